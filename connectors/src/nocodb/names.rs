//! The name that somebody may have meant.

/// A sentence that helps with a name that is not there.
pub(super) fn nearest(what: &str, wanted: &str, names: &[&str]) -> String {
    let close = names.iter().map(|name| (distance(wanted, name), *name)).min();
    match close {
        Some((edits, name)) if edits <= wanted.chars().count().max(3) / 3 => {
            format!("did you mean `{name}`?")
        }
        _ if names.is_empty() => format!("there is no {what} at all that the token's user sees"),
        _ => format!("there is: {}", names.join(", ")),
    }
}

/// How many letters have to be changed, put in or taken out; capitals do not count.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let edits = (diagonal + usize::from(from != *to)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], edits);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let names = ["Interests", "Berths", "Expenses"];
        assert_eq!(nearest("table", "intrests", &names), "did you mean `Interests`?");
        assert_eq!(nearest("table", "Invoices", &names), "there is: Interests, Berths, Expenses");
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
