//! Every example of the reference of the migration file compiles against the tables that the page shows, and every rule, option and policy has
//! an example. How a part of a file is completed is said on the page itself. Recipes are run: their documents give the rows that the page says.

use std::path::Path;

use bson::{Bson, Document};

use slackwater::config::{Outside, parse_with};
use slackwater::mapping::compile;
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::secret::Secret;

use crate::stage::{PATIENCE, Slackwater, Stage, state, until};

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

/// The section whose examples are run.
const RECIPES: &str = "Recipes";

/// A fenced block: the section and the line that it begins in, its language, its text, and the rows of tables behind it.
struct Block {
    section: &'static str,
    line: usize,
    language: String,
    text: String,
    table: Vec<&'static str>,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut section = "";
    for (number, line) in PAGE.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let (language, text) = (language.to_owned(), String::new());
                open = Some(Block { section, line: number + 2, language, text, table: Vec::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {
                section = line.strip_prefix("## ").unwrap_or(section);
                if let Some(block) = blocks.last_mut().filter(|block| block.section == section) {
                    block.table.extend(line.strip_prefix("| "));
                }
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

fn indented(text: &str, by: usize) -> String {
    let indent = " ".repeat(by);
    text.lines().map(|line| format!("{indent}{line}\n")).collect()
}

/// The whole file that an example is a part of. A recipe has a collection of its own, and no other.
fn whole(block: &Block) -> String {
    let text = &block.text;
    let (others, collection, table) = match block.section {
        RECIPES => (String::new(), "recipe", "offers"),
        _ => (format!("{COLLECTIONS}{LOCATIONS}"), "users", "users"),
    };
    let collection = |tables: String| format!("collections:\n{others}  legacy.{collection}:\n{tables}");
    let part = match text.split([':', ' ']).next().unwrap_or_default() {
        "-" => collection(indented(text, 4)),
        "columns" => collection(format!("    - into: {table}\n{}", indented(text, 6))),
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
        let text = whole(block);
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

/// A value as a page writes it: JSON, and `{"$date": "…"}`.
fn bson_of(value: &serde_json::Value) -> Bson {
    match value {
        serde_json::Value::Null => Bson::Null,
        serde_json::Value::Bool(truth) => Bson::Boolean(*truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Bson::Int64(whole),
            None => Bson::Double(number.as_f64().expect("a number")),
        },
        serde_json::Value::String(text) => Bson::String(text.clone()),
        serde_json::Value::Array(list) => Bson::Array(list.iter().map(bson_of).collect()),
        serde_json::Value::Object(fields) => match fields.get("$date").and_then(serde_json::Value::as_str) {
            Some(date) => Bson::DateTime(bson::DateTime::parse_rfc3339_str(date).expect("a time")),
            None => {
                fields.iter().map(|(name, value)| (name.clone(), bson_of(value))).collect::<Document>().into()
            }
        },
    }
}

/// What a recipe shows: columns, and of each document what they have.
struct Shown {
    columns: Vec<&'static str>,
    documents: Vec<Document>,
    rows: Vec<Vec<&'static str>>,
}

impl Shown {
    fn of(block: &Block) -> Self {
        let cells = |line: &&'static str| -> Vec<&'static str> {
            let cells = line.trim_end_matches(" |").split(" | ");
            cells.map(|cell| cell.trim_matches('`')).collect()
        };
        let mut lines = block.table.iter();
        let columns = lines.next().map(cells).unwrap_or_default();
        let lines: Vec<Vec<&str>> = lines.map(cells).collect();
        let place = format!("docs/migration-file.md, line {}", block.line);
        assert!(columns.first() == Some(&"Document") && !lines.is_empty(), "{place}: a recipe shows nothing");
        let document = |(number, line): (usize, &Vec<&str>)| {
            assert_eq!(line.len(), columns.len(), "{place}: {line:?}");
            let value: serde_json::Value = serde_json::from_str(line[0]).expect("JSON");
            let Bson::Document(mut document) = bson_of(&value) else { panic!("{place}: {line:?}") };
            if !document.contains_key("_id") {
                document.insert("_id", number as i64);
            }
            document
        };
        let documents = lines.iter().enumerate().map(document).collect();
        Self {
            documents,
            rows: lines.iter().map(|line| line[1..].to_vec()).collect(),
            columns: columns[1..].to_vec(),
        }
    }
}

/// Each recipe, on its documents: the rows are those that the page shows beside them.
#[tokio::test(flavor = "multi_thread")]
async fn every_recipe_makes_what_it_shows() {
    let stage = Stage::new("recipes").await;
    let blocks = blocks();
    for block in blocks.iter().filter(|block| block.language == "sql") {
        stage.target.batch_execute(&block.text).await.expect("the tables can be created");
    }
    stage.target.batch_execute("SET timezone = 'UTC'").await.expect("a setting");
    let source = "sources: { legacy: { mongodb: { uri: \"${SLACKWATER_MONGODB_URI}\", database: \"${SOURCE_DATABASE}\" } } }\n\
                  target: { postgres: { uri: \"${SLACKWATER_POSTGRES_URL}\" } }\n";
    let recipes: Vec<&Block> =
        blocks.iter().filter(|block| block.section == RECIPES && block.language == "yaml").collect();
    assert!(recipes.len() >= 12, "{} recipes", recipes.len());
    let mut count = 0;
    for block in recipes {
        let (place, name) =
            (format!("docs/migration-file.md, line {}", block.line), format!("recipe_{}", block.line));
        let shown = Shown::of(block);
        let collection = stage.source.collection::<Document>("recipe");
        collection.drop().await.expect("what the recipe before had can go");
        collection.insert_many(&shown.documents).await.expect("documents can be inserted");
        let text = whole(block);
        let text = format!(
            "migration: {name}\n{source}{}",
            &text[text.find("collections:").expect("collections")..]
        );
        let file = stage.file("migration.yaml", &text);
        let mut process: Slackwater = stage.run(&file);
        let copied = "SELECT FROM slackwater.collections WHERE migration = $1 AND state = 'copied'";
        until(&format!("{place} is copied"), PATIENCE, async || {
            process.still_runs();
            let rows = stage.target.query(copied, &[&name]).await.unwrap_or_default();
            (!rows.is_empty()).then_some(())
        })
        .await;
        let table = block.text.lines().find_map(|line| line.strip_prefix("- into: ")).unwrap_or("offers");
        let columns: Vec<String> =
            shown.columns.iter().map(|column| format!("coalesce(({column})::text, 'null')")).collect();
        let sql = format!("SELECT ARRAY[{}] FROM {table}", columns.join(", "));
        let rows = stage.target.query(&sql, &[]).await.expect("rows");
        let mut rows: Vec<Vec<String>> = rows.iter().map(|row| row.get(0)).collect();
        let mut wanted = shown.rows.clone();
        rows.sort();
        wanted.sort();
        let letters = state::dead_letters(&stage.target).await;
        assert_eq!(
            (&rows, letters),
            (&wanted.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect(), 0),
            "{place}: {:?}",
            shown.columns
        );
        count += rows.len();
        process.stop().await;
        let empty = format!("TRUNCATE {table} RESTART IDENTITY CASCADE");
        stage.target.batch_execute(&empty).await.expect("it can be emptied");
    }
    println!("{count} rows");
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
