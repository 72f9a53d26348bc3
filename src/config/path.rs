//! The place of a value in a document: `a.b`, `tags[].name`, `prices{}` (the fields of an object), `.` (the element), `^.x` (one level
//! further out, which is the document for elements of one array), `^^.x` (two levels).
//!
//! A backslash takes the next character as it is, for names with dots or brackets in them. A number is the place in an
//! array, `-1` the last one: `lines.0.sku`.

use std::fmt;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// How many levels further out it starts: `^.x` one, `^^.x` two.
    pub up: usize,
    /// The names to follow; none for `.`.
    pub names: Vec<String>,
    /// After `[]`: the names to follow within each element.
    pub each: Option<Vec<String>>,
    /// It was `{}`: the elements are the fields of an object.
    pub fields: bool,
}

/// A name on the way to a value; none stands for any field of an object.
pub(crate) type Step = Option<String>;

/// Whether the field of this name is on the way.
pub(crate) fn is_on(step: &Step, name: &[u8]) -> bool {
    step.as_ref().is_none_or(|step| step.as_bytes() == name)
}

impl Path {
    /// The names that lead to the value from the document, through arrays. `each`: of what the table's elements are.
    pub(crate) fn way(&self, each: Option<&Levels>) -> Vec<Step> {
        let levels = each.into_iter().flat_map(|each| &each.0);
        let around = levels.clone().count().saturating_sub(self.up);
        let mut way: Vec<Step> = Vec::new();
        for level in levels.take(around) {
            way.extend(level.names.iter().cloned().map(Some));
            way.extend(level.fields.then_some(None));
        }
        way.extend(self.names.iter().chain(self.each.iter().flatten()).cloned().map(Some));
        way
    }

    /// Takes a path apart; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.trim_start_matches('^');
        let up = text.len() - rest.len();
        let rest = match rest {
            "" if up > 0 => return Err("`^` needs a field behind it: `^.name`".into()),
            rest if up > 0 => rest.strip_prefix('.').ok_or("after `^` comes a dot: `^.name`")?,
            rest => rest,
        };
        let mut path = Self { up, names: Vec::new(), each: None, fields: false };
        if rest == "." && up == 0 {
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
        self.up == 0 && self.names.is_empty()
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
        if self.up > 0 {
            write!(f, "{}.", "^".repeat(self.up))?;
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

/// Where the elements are that become rows: the arrays and objects to go through, each inside an element of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(
    /// One at least. Names may be missing where an element is itself the array: `rows[][]`.
    pub Vec<Path>,
);

impl Levels {
    /// Takes `orders[].lines[]` apart; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut levels: Vec<Path> = Vec::new();
        let mut start = 0;
        let mut letters = text.char_indices();
        while let Some((_, letter)) = letters.next() {
            match letter {
                '\\' => drop(letters.next()),
                '[' | '{' => {
                    letters.next();
                    let end = letters.offset();
                    levels.push(Self::level(&text[start..end], levels.is_empty())?);
                    start = end;
                }
                _ => {}
            }
        }
        match &text[start..] {
            "" if !levels.is_empty() => Ok(Self(levels)),
            _ => Err("there is no `[]` or `{}` at its end".into()),
        }
    }

    fn level(text: &str, first: bool) -> Result<Path, String> {
        if !first && matches!(text, "[]" | "{}") {
            return Ok(Path { up: 0, names: Vec::new(), each: Some(Vec::new()), fields: text == "{}" });
        }
        let inner = match text.strip_prefix('.') {
            Some(inner) if !first => inner,
            None if first => text,
            _ => return Err("after `[]` and `{}` comes a dot or nothing".into()),
        };
        let path = Path::parse(inner)?;
        match path.up == 0 && path.each.is_some() {
            true => Ok(path),
            false => Err("it begins at the document".into()),
        }
    }

    /// How many arrays and objects are gone through.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// What ids of elements are made with: all of it, without the brackets at its end.
    pub fn stem(&self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len() - 2);
        text
    }

    /// Elements of the other are inside elements of this one.
    pub fn encloses(&self, other: &Self) -> bool {
        self.depth() < other.depth() && other.0[..self.depth()] == self.0
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, level) in self.0.iter().enumerate() {
            if at > 0 && !level.names.is_empty() {
                f.write_str(".")?;
            }
            f.write_str(&level.stem())?;
            f.write_str(if level.fields { "{}" } else { "[]" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_back_as_written() {
        for (text, depth) in [
            ("lines[]", 1),
            ("order.lines[]", 1),
            ("orders[].lines[]", 2),
            ("a.orders[].b.lines[].notes{}", 3),
            ("prices{}[]", 2),
            ("rows[][]", 2),
            (r"a\[b.c[].d}[]", 2),
        ] {
            let levels = Levels::parse(text).expect(text);
            assert_eq!((levels.to_string().as_str(), levels.depth()), (text, depth));
        }
        let levels = |text| Levels::parse(text).expect("levels");
        assert_eq!(levels("a.orders[].lines[]").stem(), "a.orders[].lines");
        assert!(levels("orders[]").encloses(&levels("orders[].lines[]")));
        assert!(!levels("orders[]").encloses(&levels("orders[]")));
        assert!(!levels("orders{}").encloses(&levels("orders[].lines[]")));
        assert!(!levels("order[]").encloses(&levels("orders[].lines[]")));
        for text in
            ["", "a", "a[].b", "[]", "^.a[]", "a[]b[]", "a[].^.b[]", "a[]..b[]", "a[].[]", "a[", "a]", "a[0]"]
        {
            assert!(Levels::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comes_back_as_written() {
        for text in [
            "a",
            "a.b.c",
            "tags[]",
            "a.tags[].b.c",
            ".",
            "^.x.y",
            "^^.x",
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
        for text in [
            "", "a.", ".a", "a..b", "a[0]", "a[]b", "a{b}", "a{}[]", "a[].b[]", "^", "^^", "^x", "^^x", "[]",
            "a\\",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = Path::parse(&text);
            let _ = Levels::parse(&text);
        }
    }
}
