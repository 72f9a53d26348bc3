//! Every example of the reference of the migration file compiles against the tables that the page shows, and every rule, option and policy has
//! an example. How a part of a file is completed is said on the page itself.

use std::path::Path;

use slackwater::config::{Outside, parse_with};
use slackwater::mapping::compile;
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::secret::Secret;

use crate::stage::Stage;

const PAGE: &str = include_str!("../../docs/migration-file.md");

/// What a file lacks that begins with one of its sections.
const SECTIONS: [(&str, &str); 4] = [
    ("migration", "migration: examples\n"),
    ("sources", "sources: { legacy: { mongodb: { uri: \"${URI}\", database: crm } } }\n"),
    ("target", "target: { postgres: { uri: \"${URI}\" } }\n"),
    ("collections", ""),
];
const COLLECTIONS: &str =
    "  legacy.organisations: { into: organisations, columns: { id: { uuid: _id }, name: name } }\n";
const LOCATIONS: &str =
    "  legacy.locations: { into: sites.locations, columns: { id: { uuid: _id }, name: name } }\n";

/// A fenced block: the line that it begins in, its language, its text.
struct Block {
    line: usize,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in PAGE.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { line: number + 2, language: language.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

fn indented(text: &str, by: usize) -> String {
    let indent = " ".repeat(by);
    text.lines().map(|line| format!("{indent}{line}\n")).collect()
}

/// The whole file that an example is a part of.
fn whole(text: &str) -> String {
    let collection =
        |tables: String| format!("collections:\n{COLLECTIONS}{LOCATIONS}  legacy.users:\n{tables}");
    let part = match text.split([':', ' ']).next().unwrap_or_default() {
        "-" => collection(indented(text, 4)),
        "columns" => collection(format!("    - into: users\n{}", indented(text, 6))),
        _ => text.to_owned(),
    };
    let has = |name: &str| part.lines().any(|line| line.starts_with(&format!("{name}:")));
    let mut file = String::new();
    for (name, section) in SECTIONS {
        if !has(name) {
            file += section;
        }
    }
    file += &part;
    if !has("collections") && !has("include") {
        // Sources have other names in some examples.
        let source = if part.contains("berlin:") { "berlin" } else { "legacy" };
        file += &format!("collections:\n{}", COLLECTIONS.replace("legacy.", &format!("{source}.")));
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_compiles() {
    let stage = Stage::new("examples").await;
    let blocks = blocks();
    for block in blocks.iter().filter(|block| block.language == "sql") {
        stage
            .target
            .batch_execute(&block.text)
            .await
            .unwrap_or_else(|error| panic!("docs/migration-file.md, line {}: {error:?}", block.line));
    }
    let yaml: Vec<&Block> = blocks.iter().filter(|block| block.language == "yaml").collect();
    let named = |block: &Block| {
        let name = block.text.lines().next().unwrap_or_default().strip_prefix("# ")?;
        name.ends_with(".yaml").then(|| name.to_owned())
    };
    let parts: Vec<(String, String)> =
        yaml.iter().filter_map(|block| Some((named(block)?, block.text.clone()))).collect();
    let file = |path: &Path| {
        let found = parts.iter().find(|(name, _)| Path::new(name) == path);
        // Any other file holds a key, a password or a certificate.
        let other = || if path.ends_with("legacy_key") { "0".repeat(64) } else { "content".to_owned() };
        Ok(found.map_or_else(other, |(_, text)| text.clone()))
    };
    let folder = |folder: &Path| {
        let inside = parts.iter().filter(|(name, _)| Path::new(name).parent() == Some(folder));
        Ok(inside.filter_map(|(name, _)| Some(name.rsplit('/').next()?.to_owned())).collect())
    };
    let environment = |name: &str| {
        Some(match name {
            _ if name.contains("WEBHOOK") => "https://hooks.example".to_owned(),
            _ if name.ends_with("_KEY") => "0".repeat(64),
            _ if name.ends_with("_IV") => "0".repeat(32),
            _ => "value".to_owned(),
        })
    };
    let outside = Outside { environment: &environment, file: &file, folder: &folder };
    let examples: Vec<&&Block> = yaml.iter().filter(|block| named(block).is_none()).collect();
    println!("{} examples, {} included files", examples.len(), parts.len());
    assert!(examples.len() >= 15 && parts.len() >= 2);
    for block in examples {
        let text = whole(&block.text);
        let place = || format!("docs/migration-file.md, line {}", block.line);
        let migration = match parse_with("migration.yaml", &text, &outside) {
            Ok(migration) => migration,
            Err(found) => panic!("{}: {found}\n{text}", place()),
        };
        let tables: Vec<(String, String)> = migration
            .collections
            .iter()
            .flat_map(|collection| &collection.tables)
            .map(|table| {
                let schema = table.schema.clone().unwrap_or_else(|| migration.target.schema.clone());
                (schema, table.into.value.clone())
            })
            .collect();
        let url = Secret::new(stage.postgres.clone());
        let catalog = introspect::read(&url, &tables).await.expect("the catalogue can be read");
        if let Err(found) = compile(&migration, &catalog) {
            panic!("{}: {found}\n{text}", place());
        }
    }
    stage.clear().await;
}

/// The words in the first column of the tables of a section.
fn words(section: &str) -> Vec<String> {
    let begin = PAGE.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = &PAGE[begin + 4..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    let mut words = Vec::new();
    for cell in cells {
        for quoted in cell.split('`').skip(1).step_by(2) {
            words.extend(quoted.split(':').next().map(|word| word.trim().to_owned()));
        }
    }
    words
}

#[test]
fn every_rule_has_an_example() {
    let examples: String =
        blocks().into_iter().filter(|block| block.language == "yaml").map(|block| block.text).collect();
    let mut all = words("Sections");
    all.extend(words("Rules"));
    all.extend(words("Policies"));
    assert!(all.iter().any(|word| word == "uuid") && all.iter().any(|word| word == "missing"), "{all:?}");
    let lacking: Vec<&String> = all
        .iter()
        .filter(|word| {
            let key = format!("{word}:");
            !examples.match_indices(&key).any(|(at, _)| {
                examples[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|before| !before.is_alphanumeric() && before != '_')
            })
        })
        .collect();
    assert!(lacking.is_empty(), "without an example: {lacking:?}");
}
