//! The list as CSV (RFC 4180), for a person with a spreadsheet.

use super::{Pair, Row};

/// The first line. `key`, `near` and `same` are the names of columns.
pub(crate) fn header(key: &str, near: &str, same: &[String]) -> String {
    let mut fields = vec!["table".to_owned(), "distance".to_owned()];
    fields.extend([key.to_owned(), format!("other {key}"), near.to_owned(), format!("other {near}")]);
    fields.extend(same.iter().cloned());
    joined(&fields)
}

/// The line of a pair.
pub(crate) fn line(table: &str, pair: Pair, rows: &[Row]) -> String {
    let (first, second) = (&rows[pair.first], &rows[pair.second]);
    let mut fields = vec![table.to_owned(), pair.distance.to_string()];
    fields.extend([first, second].map(|row| row.key.clone()));
    fields.extend([first, second].map(|row| row.near.clone()));
    fields.extend(first.same.iter().cloned());
    joined(&fields)
}

/// A line of these fields.
pub(crate) fn joined(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
    fields.join(",") + "\r\n"
}

fn quoted(field: &str) -> String {
    let edges = field.starts_with(' ') || field.ends_with(' ');
    if edges || field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_quotes_has_them() {
        let row =
            |key: &str, near: &str| Row { key: key.into(), near: near.into(), same: vec!["Oslo, N".into()] };
        let rows = [row("1", "Ann \"A\" B"), row("2", "Ann\nB")];
        let pair = Pair { first: 0, second: 1, distance: 2 };
        assert_eq!(
            line("public.clients", pair, &rows),
            "public.clients,2,1,2,\"Ann \"\"A\"\" B\",\"Ann\nB\",\"Oslo, N\"\r\n"
        );
        let header = header("id", "name", &["residence".to_owned()]);
        assert_eq!(header, "table,distance,id,other id,name,other name,residence\r\n");
        assert_eq!(quoted(" x"), "\" x\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
