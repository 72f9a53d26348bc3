//! From the path of a migration file to a plan and two servers that are fit for it. Writes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::client;
use slackwater_connectors::postgres::target::catalog::Catalog;
use slackwater_connectors::postgres::target::expressions::{Expression, complaints};
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::postgres::target::serial::{self, Series};
use slackwater_connectors::retry::Pauses;

use crate::apply::schema_watch::plan_with_standing;
use crate::config::{self, Diagnostic, Migration};
use crate::failure::Failure;
use crate::mapping::{self, Plan};
use crate::source::{Fitness, Named};

/// How often the source is looked at when the connection breaks.
const TRIES: usize = 4;

/// A migration file as it was when the process began.
pub(crate) struct Loaded {
    pub(crate) migration: Arc<Migration>,
    /// A text that changes when the file does.
    pub(crate) fingerprint: String,
}

/// Reads and checks the migration file of a process that goes on.
pub(crate) fn loaded(path: &Path) -> Result<Loaded, Failure> {
    let migration = Arc::new(migration(path)?);
    Ok(Loaded { fingerprint: migration.fingerprint.clone(), migration })
}

/// Reads and checks the migration file, as far as that goes without a server.
pub(crate) fn migration(path: &Path) -> Result<Migration, Failure> {
    config::load(path)
        .map_err(|error| Failure::File { path: path.display().to_string(), error })?
        .map_err(Failure::Mistakes)
}

/// Says which server the target is, and what protects the connection to it.
pub(crate) async fn announce_target(migration: &Migration) -> Result<(), Failure> {
    let target = client::look(&migration.target.uri).await?;
    tracing::info!("target: {target}");
    if let Some(warning) = target.warning() {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Compiles it against the target's catalogue.
pub(crate) async fn plan(migration: &Migration) -> Result<Arc<Plan>, Failure> {
    let catalog = catalog(migration).await?;
    mapping::compile(migration, &catalog).map(Arc::new).map_err(Failure::Mistakes)
}

/// What the target has, and what it has against the file's expressions.
pub(crate) async fn catalog(migration: &Migration) -> Result<Catalog, Error> {
    let mut catalog = introspect::read(&migration.target.uri, &tables(migration)).await?;
    // Of a table or a column that is not there something else is said.
    let known = |expression: &Expression| {
        let table = catalog.tables.get(&(expression.schema.clone(), expression.table.clone()));
        table.is_some_and(|table| table.column(&expression.column).is_some())
    };
    let expressions: Vec<Expression> = mapping::expressions(migration).into_iter().filter(known).collect();
    let schemas: BTreeSet<&str> = expressions.iter().map(|one| one.schema.as_str()).collect();
    let complaints = complaints(&migration.target.uri, &schemas, &expressions).await?;
    let named = |Expression { schema, table, column, sql, .. }| [schema, table, column, sql];
    let found = expressions.into_iter().zip(complaints);
    catalog.complaints =
        found.filter_map(|(expression, complaint)| Some((named(expression), complaint?))).collect();
    Ok(catalog)
}

/// The same for a process that writes: tables that have changed while it ran before, and stand still, do not keep it from starting.
pub(crate) async fn plan_at_start(migration: &Migration) -> Result<Arc<Plan>, Failure> {
    match plan(migration).await {
        Err(Failure::Mistakes(mistakes)) => match plan_with_standing(migration, &tables(migration)).await? {
            Some(plan) => Ok(Arc::new(plan)),
            None => Err(Failure::Mistakes(mistakes)),
        },
        outcome => outcome,
    }
}

/// A sequence that is going to give numbers which rows of the table have already: what was found, and the remedy.
pub(crate) struct Behind {
    pub(crate) table: (String, String),
    pub(crate) message: String,
    pub(crate) help: String,
}

/// Looks at the sequences that numbers are taken from, once: from then on they are ahead of what they gave.
pub(crate) async fn behind(migration: &Migration, plan: &Plan) -> Result<Vec<Behind>, Error> {
    let quick = |series: &&Series| {
        let mut tables = plan.tables.iter().filter(|spec| !spec.stands).map(|spec| &spec.table);
        let table = tables.find(|table| (&table.schema, &table.name) == (&series.schema, &series.table));
        // Without an index every row would have to be read.
        table.is_some_and(|table| {
            let column = table.column(&series.column);
            table.indexes.iter().any(|index| index.first().copied() == column)
        })
    };
    let all: Vec<&Series> = plan.series.iter().filter(quick).collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let found = serial::behind(&migration.target.uri, &all).await?;
    let told = found.into_iter().map(|(place, help)| (all[place], help)).map(|(series, help)| Behind {
        table: (series.schema.clone(), series.table.clone()),
        message: format!(
            "the sequence of {}.{}.{} is behind the numbers in the table: documents would take the place of rows that are there",
            series.schema, series.table, series.column
        ),
        help,
    });
    Ok(told.collect())
}

/// Refuses to start where such a sequence is.
pub(crate) async fn sequences(migration: &Migration, plan: &Plan) -> Result<(), Failure> {
    let behind = behind(migration, plan).await?;
    if behind.is_empty() {
        return Ok(());
    }
    Err(Failure::Unsuitable(behind.into_iter().map(|one| format!("{}; {}", one.message, one.help)).collect()))
}

/// The tables that it names.
pub(crate) fn tables(migration: &Migration) -> Vec<(String, String)> {
    migration.tables()
}

/// Connects to a source and looks whether it is fit for its collections. A connection that broke while we looked says nothing about
/// what is there.
pub(crate) async fn fit(source: &config::Source, plan: &Plan) -> Result<(Named, Fitness), Failure> {
    let named = Named::connect(source).await?;
    let ids = plan.of_source(&named.name);
    let names: Vec<String> = ids.into_iter().map(|id| plan.collection(id).collection.clone()).collect();
    let fitness = look(&named, &names).await?;
    tracing::info!("source {}: {}", named.name, fitness.text);
    let errors: Vec<String> = fitness.findings.errors.iter().map(|error| error.text.clone()).collect();
    match (errors.is_empty(), fitness.findings.denied) {
        (true, _) => Ok((named, fitness)),
        (false, true) => Err(Failure::Denied(errors)),
        (false, false) => Err(Failure::Unsuitable(errors)),
    }
}

/// Looks at a source and these collections of it.
pub(crate) async fn look(named: &Named, names: &[String]) -> Result<Fitness, Error> {
    patiently(|| named.source.fitness(names)).await
}

/// Asks again where a connection broke.
pub(crate) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pauses = Pauses::for_server();
    let mut tries = 1;
    loop {
        match ask().await {
            Err(error) if error.kind == Kind::Unreachable && tries < TRIES => {
                tokio::time::sleep(pauses.next_pause()).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// What somebody should look at in the migration file.
pub(crate) fn warnings(plan: &Plan) -> Vec<String> {
    let text = |warning: &Diagnostic| {
        let place = match warning.is_included() {
            true => format!("{}, line {}", warning.file, warning.line),
            false => format!("line {}", warning.line),
        };
        match &warning.help {
            Some(help) => format!("{place}: {}; {help}", warning.message),
            None => format!("{place}: {}", warning.message),
        }
    };
    plan.warnings.list().iter().map(text).collect()
}
