//! HTML of a report's parts: everything that was not written here is escaped. Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// The figures that are not known.
const NONE: &str = "–";

pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A cell: its HTML, and whether it stands on the right.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    html: String,
    right: bool,
}

/// A line may break within the long names of tables and columns.
pub(super) fn text(text: &str) -> Cell {
    let mut html = String::with_capacity(text.len());
    for part in text.split_inclusive(['.', '_', '/']) {
        html.push_str(&escape(part));
        if part.len() > 1 && part.ends_with(['.', '_', '/']) {
            html.push_str("<wbr>");
        }
    }
    Cell { html, right: false }
}

/// HTML that is made here.
pub(super) fn html(html: String) -> Cell {
    Cell { html, right: false }
}

pub(super) fn right(text: &str) -> Cell {
    Cell { html: escape(text), right: true }
}

/// A number, where there is one.
pub(super) fn figure(value: &Value) -> Cell {
    right(&value.as_u64().map_or_else(|| NONE.to_owned(), grouped))
}

/// A value of any shape, as plain as it can be.
pub(super) fn any(value: &Value) -> Cell {
    match value {
        Value::Null => text(""),
        Value::Number(number) => right(&number.as_u64().map_or_else(|| number.to_string(), grouped)),
        other => text(&plain(other)),
    }
}

/// A value in words.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let all = fields.iter().map(|(name, value)| format!("{name}: {}", plain(value)));
            all.collect::<Vec<_>>().join("; ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// A table. A header that begins with a blank stands on the right, over figures; a row is marked where its second part is true.
pub(super) fn table(header: &[&str], rows: &[(Vec<Cell>, bool)]) -> String {
    let mut html = String::from("<table>\n<thead><tr>");
    for name in header {
        let class = if name.starts_with(' ') { " class=n" } else { "" };
        let _ = write!(html, "<th{class}>{}</th>", escape(name.trim_start()));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (row, off) in rows {
        html.push_str(if *off { "<tr class=off>" } else { "<tr>" });
        for cell in row {
            let class = if cell.right { " class=n" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", cell.html);
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody>\n</table>\n"
}

/// Names with what they mean.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let mut html = String::from("<dl>\n");
    for (name, what) in facts.iter().filter(|(_, what)| !what.is_empty()) {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(what));
    }
    html + "</dl>\n"
}

/// Digits in groups of three, which a line does not break.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time of day, to the second.
pub(super) fn when(value: &Value) -> String {
    let at = value.as_i64().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// How long something took.
pub(super) fn took(millis: f64) -> String {
    match millis {
        _ if millis < 10.0 => format!("{millis:.1} ms"),
        _ if millis < 1_000.0 => format!("{millis:.0} ms"),
        _ if millis < 120_000.0 => format!("{:.1} s", millis / 1_000.0),
        _ => format!("{} min {:.0} s", (millis / 60_000.0).floor(), (millis % 60_000.0) / 1_000.0),
    }
}

/// The items of a list, none if it is no list.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_a_text_is_html() {
        assert_eq!(escape("<b a=\"x\" b='y'>&"), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
        let table = table(&["a", " n"], &[(vec![text("<i>"), figure(&json!(1_234_567))], true)]);
        assert!(
            table.contains("<tr class=off><td>&lt;i&gt;</td><td class=n>1\u{202f}234\u{202f}567</td></tr>")
        );
        assert!(facts(&[("a", "<".into()), ("b", String::new())]).contains("<dd>&lt;</dd>\n</dl>"));
    }

    #[test]
    fn figures_are_plain() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1\u{202f}000");
        assert_eq!(
            [took(2.26), took(86.4), took(4_200.0), took(200_000.0)],
            ["2.3 ms", "86 ms", "4.2 s", "3 min 20 s"]
        );
        assert_eq!(when(&json!(1_772_359_200_700_i64)), "2026-03-01 10:00:00 UTC");
        assert_eq!(when(&Value::Null), "");
        assert_eq!(plain(&json!({"a": [1, true], "b": null})), "a: 1, yes; b: ");
    }
}
