//! The few things that tests read from slackwater's own state in the target.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, Row};

use super::Stage;

/// What is known of the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Chunks that were cut.
    pub(crate) chunks: i64,
    /// Chunks that are in the target.
    pub(crate) done: i64,
    /// How often chunks were read, all together.
    pub(crate) reads: i64,
    /// Chunks that were read more than once.
    pub(crate) repeated: i64,
    /// How often the collection copied most often was recopied.
    pub(crate) generation: i32,
}

/// Whether slackwater has written anything: its schema is there.
pub(crate) async fn exists(target: &Client) -> bool {
    let there = target.query_one("SELECT to_regnamespace('slackwater') IS NOT NULL", &[]).await;
    there.expect("the catalogue can be read").get(0)
}

/// How far the copy is; nothing if it has not begun.
pub(crate) async fn copy(target: &Client) -> Copy {
    let statement = "SELECT count(*), count(*) FILTER (WHERE done), coalesce(sum(reads), 0)::bigint,
                            count(*) FILTER (WHERE reads > 1), coalesce(max(generation), 0)
                     FROM slackwater.chunks";
    let row = first(target, statement).await;
    row.map_or_else(Copy::default, |row| Copy {
        chunks: row.get(0),
        done: row.get(1),
        reads: row.get(2),
        repeated: row.get(3),
        generation: row.get(4),
    })
}

/// Whether every collection is copied.
pub(crate) async fn copied(target: &Client) -> bool {
    let statement = "SELECT count(*) > 0 AND coalesce(bool_and(state = 'copied' AND NOT reload), false) FROM slackwater.collections";
    first(target, statement).await.is_some_and(|row| row.get(0))
}

/// The one row of an answer; nothing where slackwater has not made its tables yet.
async fn first(target: &Client, statement: &str) -> Option<Row> {
    rows(target, statement).await.pop()
}

/// The rows of an answer; none where slackwater has not made its tables yet.
pub(crate) async fn rows(target: &Client, statement: &str) -> Vec<Row> {
    match target.query(statement, &[]).await {
        Ok(rows) => rows,
        Err(error) => {
            let code = error.code().map(|code| code.code().to_owned());
            let not_made = code.as_deref().is_some_and(|code| matches!(code, "42P01" | "3F000"));
            assert!(not_made, "slackwater's state can be read: {error:?}");
            Vec::new()
        }
    }
}

/// What was lost at the source and said so.
pub(crate) async fn incidents(target: &Client) -> Vec<String> {
    let rows = target.query("SELECT to_jsonb(i)::text FROM slackwater.incidents i", &[]).await;
    rows.expect("slackwater.incidents can be read").iter().map(|row| row.get(0)).collect()
}

/// Records that could not be written.
pub(crate) async fn dead_letters(target: &Client) -> i64 {
    let row = target.query_one("SELECT count(*) FROM slackwater.dead_letters", &[]).await;
    row.expect("slackwater.dead_letters can be read").get(0)
}

/// How a row waits: whether it is held, and by column what it lacks.
pub(crate) type Waits = BTreeMap<(String, Vec<String>), (bool, BTreeSet<(String, String)>)>;

/// What slackwater says that waits for other rows.
pub(crate) async fn waiting(stage: &Stage) -> Waits {
    let waits = "SELECT r.table_name, w.key, w.held FROM slackwater.waiting_rows w JOIN slackwater.relations r ON r.id = w.relation";
    let wants = "SELECT r.table_name, f.key, d.kind, d.table_name, d.constraint_name, f.wanted[1]
                 FROM slackwater.waiting_for f JOIN slackwater.relations r ON r.id = f.relation
                 JOIN slackwater.watched d ON d.id = f.reference";
    let mut waits: Waits = rows(&stage.target, waits)
        .await
        .iter()
        .map(|row| ((row.get(0), row.get(1)), (row.get(2), BTreeSet::new())))
        .collect();
    for row in rows(&stage.target, wants).await {
        let place: (String, Vec<String>) = (row.get(0), row.get(1));
        let (kind, table, constraint): (String, String, String) = (row.get(2), row.get(3), row.get(4));
        assert_eq!(kind, "reference", "{place:?} waits for a value of {constraint} that nobody else has");
        let column =
            constraint.strip_prefix(&format!("{table}_")).and_then(|rest| rest.strip_suffix("_fkey"));
        let column = column.expect("our names of foreign keys").to_owned();
        let (_, lacks) = waits.get_mut(&place).expect("what waits for something is a row that waits");
        lacks.insert((column, row.get(5)));
    }
    waits
}
