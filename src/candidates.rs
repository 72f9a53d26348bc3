//! Near matches: rows of one table whose names are a few letters apart, and which have other values in common. They are listed for a person,
//! who decides; nothing is ever merged here. Pure.
//!
//! Names are compared as they are normalised: lower case, letters and digits only, one blank between words. Two names that are at most
//! `k` edits apart have a text in common that each becomes by taking `k` letters out, or fewer. So every name is listed under all such
//! texts of it, and only names under the same text are compared: the work grows with the number of names and not with its square.

mod csv;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

pub(crate) use csv::{header, joined, line};

/// Texts that are listed at once; each takes eight bytes.
const AT_ONCE: usize = 32_000_000;
/// Of a longer name only so many letters are listed; all of them are compared.
const LISTED: usize = 48;

/// A row, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) near: String,
    /// What has to be the same.
    pub(crate) same: Vec<String>,
}

/// Two rows that may mean the same, as places among the rows, and how far apart their names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) distance: usize,
}

/// The candidates among these rows, in the order of the rows; no more than `most`.
pub(crate) fn pairs(rows: &[Row], within: usize, most: usize) -> Vec<Pair> {
    // Rows with the same values in the other columns, by name.
    let mut blocks: BTreeMap<Vec<String>, BTreeMap<Vec<char>, Vec<usize>>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        let same: Vec<String> = row.same.iter().map(|value| normal(value)).collect();
        let name: Vec<char> = normal(&row.near).chars().collect();
        // What is empty is like nothing.
        if !name.is_empty() && same.iter().all(|value| !value.is_empty()) {
            blocks.entry(same).or_default().entry(name).or_default().push(at);
        }
    }
    let mut found = Vec::new();
    for names in blocks.values() {
        let texts: Vec<&[char]> = names.keys().map(Vec::as_slice).collect();
        let places: Vec<&[usize]> = names.values().map(Vec::as_slice).collect();
        for rows in &places {
            add(rows, rows, 0, most, &mut found);
        }
        for (one, other, distance) in near(&texts, within) {
            add(places[one], places[other], distance, most, &mut found);
        }
        if found.len() >= most {
            break;
        }
    }
    found.sort_unstable();
    found
}

fn add(ones: &[usize], others: &[usize], distance: usize, most: usize, found: &mut Vec<Pair>) {
    for one in ones {
        for other in others {
            if distance == 0 && one >= other {
                continue;
            }
            if found.len() >= most {
                return;
            }
            found.push(Pair { first: *one.min(other), second: *one.max(other), distance });
        }
    }
}

/// Names that are near each other, each pair once. No two are the same.
fn near(names: &[&[char]], within: usize) -> BTreeSet<(usize, usize, usize)> {
    let hash = RandomState::new();
    let texts: usize = names.iter().map(|name| count(name.len().min(LISTED), within)).sum();
    let passes = (texts / AT_ONCE + 1) as u64;
    let mut found = BTreeSet::new();
    // Half of the text's hash, and the name: texts that only look alike are compared for nothing.
    let mut listed: Vec<u64> = Vec::new();
    for pass in 0..passes {
        listed.clear();
        for (at, name) in names.iter().enumerate() {
            shorter(&name[..name.len().min(LISTED)], within, &mut |text| {
                let key = hash.hash_one(text);
                if (key >> 32) % passes == pass {
                    listed.push(key << 32 | at as u64);
                }
            });
        }
        listed.sort_unstable();
        listed.dedup();
        for group in listed.chunk_by(|one, other| one >> 32 == other >> 32) {
            for (place, one) in group.iter().enumerate() {
                for other in &group[place + 1..] {
                    let (one, other) = (*one as u32 as usize, *other as u32 as usize);
                    if let Some(distance) = distance(names[one], names[other], within) {
                        found.insert((one, other, distance));
                    }
                }
            }
        }
    }
    found
}

/// How many texts a name of this length is listed under, at the most.
fn count(length: usize, within: usize) -> usize {
    let twice = if within > 1 { length * length.saturating_sub(1) / 2 } else { 0 };
    1 + length + twice
}

/// The text, and all that it becomes when one letter is taken out, or two.
fn shorter(name: &[char], within: usize, out: &mut impl FnMut(&[char])) {
    out(name);
    let mut text = Vec::with_capacity(name.len());
    for first in 0..name.len() {
        text.clear();
        text.extend(name.iter().enumerate().filter(|(at, _)| *at != first).map(|(_, letter)| *letter));
        out(&text);
        for second in (first + 1..name.len()).filter(|_| within > 1) {
            text.clear();
            let left = name.iter().enumerate().filter(|(at, _)| *at != first && *at != second);
            text.extend(left.map(|(_, letter)| *letter));
            out(&text);
        }
    }
}

/// The number of letters that have to be put in, taken out or changed (Levenshtein); none if there are more than `within`.
fn distance(one: &[char], other: &[char], within: usize) -> Option<usize> {
    if one.len().abs_diff(other.len()) > within {
        return None;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        let mut least = row[0];
        for (place, theirs) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != theirs);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
            least = least.min(row[place + 1]);
        }
        if least > within {
            return None;
        }
    }
    row.last().copied().filter(|distance| *distance <= within)
}

/// Lower case, letters and digits only, one blank between words.
fn normal(text: &str) -> String {
    let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(near: &str, same: &[&str]) -> Row {
        Row {
            key: near.into(),
            near: near.into(),
            same: same.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn found(rows: &[Row], within: usize) -> Vec<(usize, usize, usize)> {
        pairs(rows, within, usize::MAX).iter().map(|pair| (pair.first, pair.second, pair.distance)).collect()
    }

    #[test]
    fn names_are_compared_where_the_rest_is_the_same() {
        let rows = [
            row("Ann  O'Neil", &["Oslo"]),
            row("ann o neil", &[" oslo"]),
            row("Anna O'Neil", &["Oslo"]),
            row("Anna O'Neal", &["Oslo"]),
            row("Ann O'Neil", &["Rome"]),
            row("", &["Oslo"]),
            row("Ann O'Neil", &[""]),
        ];
        assert_eq!(found(&rows, 2), [(0, 1, 0), (0, 2, 1), (0, 3, 2), (1, 2, 1), (1, 3, 2), (2, 3, 1)]);
        assert_eq!(found(&rows, 1), [(0, 1, 0), (0, 2, 1), (1, 2, 1), (2, 3, 1)]);
        assert_eq!(pairs(&rows, 2, 3).len(), 3, "no more than was asked for");
    }

    /// Chance by a seed (splitmix64).
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % end as u64) as usize
        }

        fn name(&mut self, letters: usize, longest: usize) -> String {
            let length = 1 + self.below(longest);
            (0..length).map(|_| char::from(b'a' + self.below(letters) as u8)).collect()
        }
    }

    /// As each with each would find.
    #[test]
    fn nothing_is_missed() {
        let mut chance = Chance(5);
        for (letters, longest) in [(2, 6), (3, 12), (26, 4), (2, 70)] {
            let rows: Vec<Row> = (0..150).map(|_| row(&chance.name(letters, longest), &[])).collect();
            for within in 1..=2 {
                let mut wanted = Vec::new();
                for one in 0..rows.len() {
                    for other in one + 1..rows.len() {
                        let texts = [one, other].map(|at| rows[at].near.chars().collect::<Vec<_>>());
                        if let Some(distance) = distance(&texts[0], &texts[1], within) {
                            wanted.push((one, other, distance));
                        }
                    }
                }
                assert_eq!(found(&rows, within), wanted, "{letters} {longest} {within}");
            }
        }
    }

    #[test]
    fn the_distance_is_levenshteins() {
        let of = |one: &str, other: &str| {
            let texts = [one, other].map(|text| text.chars().collect::<Vec<_>>());
            distance(&texts[0], &texts[1], 2)
        };
        for (one, other, wanted) in [
            ("", "", Some(0)),
            ("a", "", Some(1)),
            ("abc", "abc", Some(0)),
            ("abc", "axc", Some(1)),
            ("abc", "acb", Some(2)),
            ("kitten", "sitten", Some(1)),
            ("kitten", "sitting", None),
            ("søren", "soren", Some(1)),
            ("abcdef", "bcdefg", Some(2)),
        ] {
            assert_eq!((of(one, other), of(other, one)), (wanted, wanted), "{one} {other}");
        }
    }
}
