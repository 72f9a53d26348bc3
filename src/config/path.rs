//! The place of a value in a document: `a.b`, `tags[].name`, `prices{}` (the fields of an object), `.` (the element), `^.x` (of the
//! document, from an element).
//!
//! A backslash takes the next character as it is, for names with dots or brackets in them. A number is the place in an
//! array, `-1` the last one: `lines.0.sku`.

use std::fmt;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// `^.x`: starts at the document although the rule is in a table made of elements.
    pub up: bool,
    /// The names to follow; none for `.`.
    pub names: Vec<String>,
    /// After `[]`: the names to follow within each element.
    pub each: Option<Vec<String>>,
    /// It was `{}`: the elements are the fields of an object.
    pub fields: bool,
}

impl Path {
    /// The names that lead to the value from the document, through arrays. `each`: of what the table's elements are.
    pub(crate) fn way(&self, each: Option<&Self>) -> Vec<String> {
        let array = each.filter(|_| !self.up);
        let paths = array.into_iter().chain([self]);
        paths.flat_map(|path| path.names.iter().chain(path.each.iter().flatten())).cloned().collect()
    }

    /// Takes a path apart; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (up, rest) = match text.strip_prefix('^') {
            Some("") => return Err("`^` needs a field behind it: `^.name`".into()),
            Some(rest) => (true, rest.strip_prefix('.').ok_or("after `^` comes a dot: `^.name`")?),
            None => (false, text),
        };
        let mut path = Self { up, names: Vec::new(), each: None, fields: false };
        if rest == "." && !up {
            return Ok(path);
        }
        let mut name = String::new();
        // `[]` was just read: only a dot or the end may follow.
        let mut closed = false;
        let mut letters = rest.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '.' => {
                    path.push(&mut name, &mut closed)?;
                    if letters.peek().is_none() {
                        return Err("it ends with a dot".into());
                    }
                }
                '[' | '{' => {
                    path.fields = letter == '{';
                    if path.fields && letters.next() != Some('}') {
                        return Err("`{` must be followed by `}`: `prices{}` means every field".into());
                    }
                    if !path.fields && letters.next() != Some(']') {
                        return Err("`[` must be followed by `]`: `tags[]` means every element".into());
                    }
                    if path.each.is_some() {
                        return Err("it goes through two arrays; one `[]` is the most".into());
                    }
                    path.push(&mut name, &mut closed)?;
                    path.each = Some(Vec::new());
                    closed = true;
                }
                _ if closed => return Err("after `[]` and `{}` comes a dot or nothing".into()),
                '\\' => name.push(letters.next().ok_or("it ends with a backslash")?),
                letter => name.push(letter),
            }
        }
        if !closed {
            path.push(&mut name, &mut closed)?;
        }
        Ok(path)
    }

    fn push(&mut self, name: &mut String, closed: &mut bool) -> Result<(), String> {
        if std::mem::take(closed) {
            return Ok(());
        }
        if name.is_empty() {
            return Err("a name in it is empty".into());
        }
        let name = std::mem::take(name);
        self.each.as_mut().unwrap_or(&mut self.names).push(name);
        Ok(())
    }

    /// The element itself.
    pub fn is_element(&self) -> bool {
        !self.up && self.names.is_empty()
    }

    /// The names as text, without `[]` and what follows: what ids of elements are made with.
    pub fn stem(&self) -> String {
        self.names.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(".")
    }
}

fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        if matches!(letter, '.' | '[' | '{' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_element() && self.each.is_none() {
            return f.write_str(".");
        }
        if self.up {
            f.write_str("^.")?;
        }
        f.write_str(&self.stem())?;
        if let Some(inner) = &self.each {
            f.write_str(if self.fields { "{}" } else { "[]" })?;
            for name in inner {
                write!(f, ".{}", escaped(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_written() {
        for text in [
            "a",
            "a.b.c",
            "tags[]",
            "a.tags[].b.c",
            ".",
            "^.x.y",
            r"a\.b.c",
            "lines.0.sku",
            "$x",
            "prices{}",
            r"a\{b",
        ] {
            assert_eq!(Path::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Path::parse(r"a\.b.c").expect("a path").names, ["a.b", "c"]);
        assert_eq!(Path::parse("a.tags[].b").expect("a path").stem(), "a.tags");
    }

    #[test]
    fn refuses() {
        for text in
            ["", "a.", ".a", "a..b", "a[0]", "a[]b", "a{b}", "a{}[]", "a[].b[]", "^", "^x", "[]", "a\\"]
        {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = Path::parse(&text);
        }
    }
}
