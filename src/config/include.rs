//! `include`: a large file is split by topic. The parts hold `collections`, `not_migrated` and `checks`; everything that is there once
//! stays in the migration file.
//!
//! The trees of the parts are put together before anything is made of them, so what is written twice is found wherever it is, and each
//! node knows the file that it is from. A part includes nothing, so there are no cycles.

use std::path::{Path, PathBuf};

use super::blot::hide_keys;
use super::diagnostics::{At, Findings, Place};
use super::fields;
use super::outside::Outside;
use super::read::Read;
use super::spelling::list;
use super::tree::{self, Node, Shape};

/// What a part may hold.
const PARTS: [&str; 3] = ["collections", "not_migrated", "checks"];
/// More than anybody has, and as many as places can tell apart.
const MOST: usize = 1_000;

/// Puts what the included files hold into the tree; they are noted in `read`.
pub(super) fn include(
    root: &mut Node,
    main: &Path,
    outside: &Outside<'_>,
    read: &mut Read,
    findings: &mut Findings,
) {
    let Shape::Map(sections) = &root.shape else { return };
    let Some((_, named)) = sections.iter().find(|(key, _)| key.value == "include") else { return };
    let named = fields::items(named, "`include`", true, findings).unwrap_or_default().to_vec();
    let folder = main.parent().unwrap_or(Path::new(""));
    let mut known: Vec<(PathBuf, Place)> = vec![(plain(main), root.place)];
    for node in &named {
        let Some(written) = fields::text(node, "an included file", findings) else { continue };
        for path in paths(&written, folder, outside, findings) {
            if let Some((_, first)) = known.iter().find(|(seen, _)| *seen == plain(&path)) {
                let (message, help) = if known[0].0 == plain(&path) {
                    let help = "put the parts into a folder of their own, or name them";
                    (format!("`{}` is the migration file itself", written.value), help)
                } else {
                    let first = findings.line(*first, node.place);
                    (format!("`{}` is included twice, first in {first}", path.display()), "keep one of them")
                };
                findings.error(node.place, message, help);
                continue;
            }
            known.push((plain(&path), node.place));
            if known.len() > MOST {
                findings.error(
                    node.place,
                    "more than 1 000 files are included",
                    "put several collections into one",
                );
                return;
            }
            let text = match (outside.file)(&path) {
                Ok(text) => text,
                Err(error) => {
                    let help = "name a file that slackwater may read; the path begins at the folder of the migration file";
                    findings.error(node.place, format!("`{}` cannot be read: {error}", path.display()), help);
                    continue;
                }
            };
            read.part(&written.value, &path, &text);
            part(root, &path, &text, findings);
        }
    }
}

/// The files that a name or a pattern stands for, sorted.
fn paths(
    written: &At<String>,
    folder: &Path,
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Vec<PathBuf> {
    let path = folder.join(&written.value);
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !written.value.contains('*') {
        return vec![path];
    }
    let inside = path.parent().unwrap_or(Path::new("")).to_path_buf();
    if inside.to_string_lossy().contains('*') {
        let message =
            format!("`{}`: `*` stands for letters of a file's name, not of a folder's", written.value);
        findings.error(written.place, message, "write a line for each folder");
        return Vec::new();
    }
    let mut names = match (outside.folder)(&inside) {
        Ok(names) => names,
        Err(error) => {
            let message = format!("the folder `{}` cannot be read: {error}", inside.display());
            findings.error(written.place, message, "the path begins at the folder of the migration file");
            return Vec::new();
        }
    };
    // As a shell does it: what begins with a dot is not meant.
    names.retain(|name| !name.starts_with('.') && super::migration::fits(name, &pattern));
    names.sort();
    if names.is_empty() {
        let message = format!("no file is named like `{}`", written.value);
        findings.error(written.place, message, "the path begins at the folder of the migration file");
    }
    names.into_iter().map(|name| inside.join(name)).collect()
}

/// Puts the sections of one file into the tree.
fn part(root: &mut Node, path: &Path, text: &str, findings: &mut Findings) {
    let file = findings.include(&path.display().to_string(), text);
    let Some(mut tree) = tree::read(file, text, findings) else { return };
    findings.reveal(file, text, &tree);
    hide_keys(&mut tree);
    let kind = tree.kind();
    let Shape::Map(entries) = tree.shape else {
        let message = format!("an included file must be a mapping (`key: value`), this is {kind}");
        findings.error(tree.place, message, format!("it may hold {}", list(PARTS)));
        return;
    };
    let Shape::Map(sections) = &mut root.shape else { return };
    for (key, node) in entries {
        if !PARTS.contains(&key.value.as_str()) {
            let help = format!("put it into the migration file; an included file may hold {}", list(PARTS));
            findings.error(key.place, format!("`{}` cannot stand in an included file", key.value), help);
            continue;
        }
        match sections.iter_mut().find(|(known, _)| known.value == key.value) {
            None => sections.push((key, node)),
            Some((_, known)) => match (&mut known.shape, node.shape) {
                (Shape::Map(all), Shape::Map(more)) => all.extend(more),
                (Shape::Seq(all), Shape::Seq(more)) => all.extend(more),
                (_, shape) => {
                    let node = Node { place: node.place, shape };
                    let message = format!(
                        "`{}` is {} here, and {} in {}",
                        key.value,
                        node.kind(),
                        known.kind(),
                        findings.line(known.place, node.place)
                    );
                    findings.error(node.place, message, "write both in the same way");
                }
            },
        }
    }
}

/// The path without `.` and `..`, as far as that can be told from it alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
