//! Whether the sources are fit, and whether every collection of theirs is accounted for.

use futures_util::future::join_all;
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::mongodb::Privileges;
use slackwater_connectors::source;

use super::freeze::Concern;
use super::{Round, freeze, rights};
use crate::config::spelling::{list, nearest};
use crate::config::{Collection, Migration, Place, Rule, Source};
use crate::source::{Finding, Fitness, Named, Presence, unmapped};
use crate::topology::load;

/// What was found at a source.
pub(super) struct Looked {
    fitness: Fitness,
    /// What our user may do there; none where the server does not say.
    privileges: Option<Privileges>,
    /// The server knows how to be frozen as the file says.
    freezes: bool,
}

/// Asks all sources, side by side.
pub(super) async fn look(migration: &Migration) -> Vec<(&Source, Result<Looked, Error>)> {
    let asked = migration.sources.iter().filter(|source| !source.unread);
    let asked = asked.map(async |source| (source, look_at(migration, source).await));
    join_all(asked).await
}

async fn look_at(migration: &Migration, source: &Source) -> Result<Looked, Error> {
    let named = Named::connect(source).await?;
    let names: Vec<String> = collections(migration, source).map(|(_, name)| name.to_owned()).collect();
    let mut fitness = load::look(&named, &names).await?;
    let (way, deadline) = (migration.freeze_of(source), migration.cutover.deadline);
    let concern = load::patiently(|| freeze::concern(way, deadline, &named.source)).await?;
    let mut freezes = true;
    match concern {
        Some(Concern::Right(text)) => fitness.findings.unknown(text),
        Some(Concern::Unable(text)) => {
            freezes = false;
            fitness.findings.warning(None, text);
        }
        Some(Concern::Slow(text)) => fitness.findings.warning(None, text),
        None => {}
    }
    Ok(Looked { fitness, privileges: named.source.privileges().await, freezes })
}

/// The mapped collections of a source: their places in the file, and their names there.
fn collections<'a>(migration: &'a Migration, source: &'a Source) -> impl Iterator<Item = (usize, &'a str)> {
    let all = migration.collections.iter().enumerate();
    all.filter(|(_, one)| one.source == source.name.value).map(|(at, one)| (at, one.collection.as_str()))
}

/// What was found becomes findings.
pub(super) fn judge(
    migration: &Migration,
    source: &Source,
    looked: Result<Looked, Error>,
    round: &mut Round,
) -> Option<(String, Fitness)> {
    let Looked { fitness, privileges, freezes } = match looked {
        Ok(looked) => looked,
        Err(error) => {
            round.server(source.place, &error);
            return None;
        }
    };
    let name = &source.name.value;
    // A right that is known to be lacking is named as such, and not by what fails without it.
    let explained = privileges.is_some_and(|has| rights::source(migration, source, &has, freezes, round));
    let told = |finding: &&Finding| !(explained && finding.of_right);
    let place_of = |collection: &Option<String>| {
        let found = collection.as_ref().and_then(|wanted| {
            collections(migration, source).find(|(_, name)| name == wanted).map(|(at, _)| at)
        });
        found.map_or(source.place, |at| migration.collections[at].name.place)
    };
    let kind = if fitness.findings.denied { Kind::Denied } else { Kind::Unsuitable };
    for error in fitness.findings.errors.iter().filter(told) {
        round.unfit(place_of(&error.collection), kind, &error.text, "");
    }
    let there: Vec<&str> = fitness.others.iter().map(String::as_str).collect();
    let empty =
        fitness.listed && there.is_empty() && fitness.collections.iter().all(|one| *one == Presence::Missing);
    if empty {
        let message = format!("the database `{}` holds no collection", source.database());
        round.warning(
            source.place,
            message,
            "is its name right? Names of databases tell capital letters from small ones",
        );
    }
    for ((at, collection), presence) in collections(migration, source).zip(&fitness.collections) {
        if *presence != Presence::Missing || empty {
            continue;
        }
        if source.kind() == source::Kind::Nocodb {
            // Its tables are declared, as the target's are.
            let message = format!("the base `{}` has no table `{collection}`", source.database());
            let help = match nearest(collection, there.iter().copied()) {
                Some(near) => format!("did you mean `{name}.{near}`?"),
                None => format!("its tables: {}", list(there.iter().copied())),
            };
            round.mistake(migration.collections[at].name.place, message, help);
            continue;
        }
        let message = format!("`{name}.{collection}` does not exist (yet)");
        let help = match nearest(collection, there.iter().copied()) {
            Some(near) => format!("did you mean `{name}.{near}`?"),
            None => "it is followed from the moment that it is created".to_owned(),
        };
        round.warning(migration.collections[at].name.place, message, help);
    }
    for ((at, _), presence) in collections(migration, source).zip(&fitness.collections) {
        histories(&migration.collections[at], *presence, round);
    }
    for ((at, _), fields) in collections(migration, source).zip(&fitness.fields) {
        if let Some(fields) = fields {
            declared(&migration.collections[at], fields, round);
        }
    }
    for warning in fitness.findings.warnings.iter().filter(told) {
        round.warning(place_of(&warning.collection), &warning.text, "");
    }
    let left = unmapped(migration, name, &fitness.others);
    if !left.is_empty() {
        let names: Vec<String> = left.iter().map(|collection| format!("{name}.{collection}")).collect();
        let message = match names.as_slice() {
            [one] => format!("`{one}` is neither mapped nor under `not_migrated`"),
            names => format!(
                "{} collections are neither mapped nor under `not_migrated`: {}",
                names.len(),
                names.join(", ")
            ),
        };
        let help =
            format!("map them, or say that they stay behind: `not_migrated: [ {} ]`", names.join(", "));
        round.mistake(source.name.place, message, help);
    }
    for stays in &migration.not_migrated {
        let Some((_, collection)) = stays.value.split_once('.').filter(|(of, _)| of == name) else {
            continue;
        };
        let mapped = migration.collections.iter().any(|mapped| mapped.name.value == stays.value);
        let known =
            !fitness.listed || empty || mapped || collection.contains('*') || there.contains(&collection);
        if !known {
            let message = format!("`{}` does not exist", stays.value);
            let help = match nearest(collection, there.iter().copied()) {
                Some(near) => format!("did you mean `{name}.{near}`?"),
                None => "take it out".to_owned(),
            };
            round.warning(stays.place, message, help);
        }
    }
    Some((name.clone(), fitness))
}

/// Columns that the mapping reads and the source does not declare are mistakes.
/// Without post-images a version is read after the change that made it, and may be of a later one.
fn histories(collection: &Collection, presence: Presence, round: &mut Round) {
    let name = &collection.name.value;
    let versions = match (collection.history(), collection.append_only) {
        (Some(place), _) => (place, "tables of history may miss versions"),
        (None, Some(place)) => (place, "several updates in a row may be listed as one"),
        (None, None) => return,
    };
    if presence == (Presence::Present { sends_documents: false }) {
        let message = format!("`{name}` has no post-images, so {}", versions.1);
        let help = format!(
            "turn them on: db.runCommand({{ collMod: \"{}\", changeStreamPreAndPostImages: {{ enabled: true }} }})",
            collection.collection
        );
        round.warning(versions.0, message, help);
    }
}

fn declared(collection: &Collection, fields: &[String], round: &mut Round) {
    let mut told: Vec<(&str, Place)> = Vec::new();
    for table in &collection.tables {
        let depth = table.each.as_ref().map_or(0, |each| each.value.depth());
        let arrays = table.each.iter().filter_map(|each| Some((each.value.0.first()?, each.place)));
        let columns = table.columns.iter().flat_map(|column| column.parts());
        let conditions = table.when.iter().flat_map(|when| when.value.paths());
        let conditions = conditions.filter(|path| path.value.up == depth);
        let values = columns.filter_map(|column| match &column.rule.value {
            // What is in an element is declared by nobody.
            Rule::Value(value) if value.path.value.up == depth => Some((&value.path.value, value.path.place)),
            _ => None,
        });
        let conditions = conditions.map(|path| (&path.value, path.place));
        for (path, place) in arrays.chain(values).chain(conditions) {
            let Some(first) = path.names.first() else { continue };
            if !fields.contains(first) && !told.contains(&(first, place)) {
                told.push((first, place));
                let message = format!("the table `{}` has no column `{first}`", collection.collection);
                let help = match nearest(first, fields.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its columns: {}", list(fields.iter().map(String::as_str))),
                };
                round.mistake(place, message, help);
            }
        }
    }
}
