//! Names of topics that Kafka takes.

use std::collections::HashMap;

use super::CatalogError;

const LONGEST: usize = 249;

/// The names of all topics of a migration, in the order of its collections.
pub(super) fn all(
    pattern: &str,
    migration: &str,
    collections: &[&str],
    prefix: Option<&str>,
) -> Result<Vec<String>, CatalogError> {
    let mut taken: HashMap<String, &str> = HashMap::new();
    let mut names = Vec::with_capacity(collections.len());
    for collection in collections {
        let name = match prefix {
            Some(prefix) => format!("{prefix}.{collection}"),
            // The collection last: a migration may be called `{collection}`.
            None => {
                let (before, after) = pattern.split_once("{collection}").unwrap_or((pattern, ""));
                let [before, after] = [before, after].map(|text| text.replace("{migration}", migration));
                format!("{before}{collection}{after}")
            }
        };
        let topic = legal(&name);
        if topic.len() > LONGEST || topic == "." || topic == ".." {
            return Err(CatalogError::Name { collection: (*collection).into(), topic });
        }
        // Kafka's metrics have no dots, so it refuses names that differ in that alone.
        if let Some(first) = taken.insert(topic.replace('.', "_"), collection) {
            return Err(CatalogError::Collision { first: first.into(), second: (*collection).into(), topic });
        }
        names.push(topic);
    }
    Ok(names)
}

fn legal(name: &str) -> String {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    name.chars().map(|letter| if legal(letter) { letter } else { '_' }).collect()
}
