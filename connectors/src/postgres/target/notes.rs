//! Writes what is remembered with a transaction: dead letters, tallies, fences, versions that stand.
//!
//! Each kind is one statement over arrays, sorted by key so that two lanes lock rows in the same order.

use std::collections::BTreeMap;

use slackwater_topics::Key;
use tokio_postgres::Statement;

use crate::postgres::control::id::Id;
use crate::postgres::progress::{Breach, Notes, Version, op_name};
use crate::postgres::target::pipeline::{Call, Parameters};

/// An incident names no more documents than this.
const MOST_NAMED: usize = 5;

/// The kinds of notes, in the order they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Note {
    Settled,
    DeadLetters,
    Tallies,
    Fences,
    Versions,
    Breaches,
}

/// The kinds that these notes need.
pub(super) fn needed(notes: &Notes) -> impl Iterator<Item = Note> {
    [
        (Note::Settled, notes.settled.is_empty()),
        (Note::DeadLetters, notes.dead_letters.is_empty()),
        (Note::Tallies, notes.tallies.is_empty()),
        (Note::Fences, notes.fences.is_empty()),
        (Note::Versions, notes.versions.is_empty()),
        (Note::Breaches, notes.breaches.is_empty()),
    ]
    .into_iter()
    .filter_map(|(note, empty)| (!empty).then_some(note))
}

/// The SQL of a kind.
pub(super) fn sql(note: Note) -> &'static str {
    match note {
        Note::Settled => {
            "DELETE FROM slackwater.dead_letters AS d
             USING unnest($2::text[], $3::bytea[]) AS s(collection, key)
             WHERE d.migration = $1 AND d.collection = s.collection AND d.digest = sha256(s.key)"
        }
        // The next try comes when the letter is twice as old, after ten seconds at least and an hour at most. A reference
        // without its target (23503) is tried every second at first: most often the other document is still on its way. Its
        // age counts and not its tries, of which a switch that waits makes many in a second. What waits for a table is released by who sees it mended.
        Note::DeadLetters => {
            "INSERT INTO slackwater.dead_letters AS d
                 (migration, collection, key, op, kind, reason, table_name, column_name, document, retry_at)
             SELECT DISTINCT ON (n.collection, sha256(n.key))
                 $1, n.collection, n.key, n.op, n.kind, n.reason, n.table_name, n.column_name, n.document,
                 now() + CASE n.kind WHEN '23503' THEN interval '1 s' WHEN 'standing' THEN interval '100 years'
                     ELSE interval '10 s' END
             FROM unnest($2::text[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                         $9::bytea[]) WITH ORDINALITY
                 AS n(collection, key, op, kind, reason, table_name, column_name, document, place)
             ORDER BY n.collection, sha256(n.key), n.place DESC
             ON CONFLICT (migration, collection, digest) DO UPDATE SET
                 op = EXCLUDED.op, kind = EXCLUDED.kind, reason = EXCLUDED.reason,
                 table_name = EXCLUDED.table_name, column_name = EXCLUDED.column_name,
                 document = EXCLUDED.document, last_seen = now(), tries = d.tries + 1,
                 retry_at = now() + CASE
                     WHEN EXCLUDED.kind = 'standing' THEN interval '100 years'
                     WHEN EXCLUDED.kind = '23503' AND now() - d.first_seen < interval '10 s' THEN interval '1 s'
                     ELSE least(interval '1 hour', greatest(interval '10 s', now() - d.first_seen)) END"
        }
        Note::Tallies => {
            "INSERT INTO slackwater.tallies AS t
                 (migration, collection, table_name, column_name, policy, count, sample_key)
             SELECT $1, n.collection, n.table_name, n.column_name, n.policy, sum(n.count)::bigint,
                 (array_agg(n.sample_key))[1]
             FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bytea[])
                 AS n(collection, table_name, column_name, policy, count, sample_key)
             GROUP BY n.collection, n.table_name, n.column_name, n.policy
             ORDER BY n.collection, n.table_name, n.column_name, n.policy
             ON CONFLICT (migration, collection, table_name, column_name, policy) DO UPDATE SET
                 count = t.count + EXCLUDED.count, sample_key = EXCLUDED.sample_key, last_at = now()"
        }
        Note::Fences => {
            "INSERT INTO slackwater.fence_passes (migration, id, lane)
             SELECT $1, f.id::uuid, f.lane FROM unnest($2::text[], $3::text[]) AS f(id, lane)
             ORDER BY f.id, f.lane ON CONFLICT DO NOTHING"
        }
        Note::Versions => "SELECT slackwater.keep_versions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        Note::Breaches => {
            "WITH noted AS (
                 INSERT INTO slackwater.breaches AS b (migration, id, kind, collection, key, count)
                 SELECT $1, n.* FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bigint[])
                     AS n(id, kind, collection, key, count)
                 ORDER BY n.id, n.kind
                 ON CONFLICT (migration, id, kind) DO UPDATE SET count = b.count + EXCLUDED.count, last_at = now())
             INSERT INTO slackwater.incidents (migration, kind, collection, text)
             SELECT $1, 'append_only', n.* FROM unnest($7::text[], $8::text[]) AS n"
        }
    }
}

/// The call that writes one kind.
pub(super) fn call<'a>(
    note: Note,
    statement: &Statement,
    notes: &'a Notes,
    migration: &str,
    lane: &str,
) -> Call<'a> {
    let migration = Box::new(migration.to_owned());
    match note {
        Note::Settled => {
            let collections: Vec<&str> =
                notes.settled.iter().map(|(collection, _)| collection.as_str()).collect();
            let keys: Vec<&[u8]> = notes.settled.iter().map(|(_, key)| key.as_slice()).collect();
            Call::prepared(
                "removing settled dead letters",
                statement,
                vec![migration, Box::new(collections), Box::new(keys)],
            )
        }
        Note::DeadLetters => {
            let letters = &notes.dead_letters;
            let collections: Vec<&str> = letters.iter().map(|letter| letter.collection.as_str()).collect();
            let keys: Vec<&[u8]> = letters.iter().map(|letter| letter.key.as_slice()).collect();
            let ops: Vec<&str> = letters.iter().map(|letter| op_name(letter.op)).collect();
            let kinds: Vec<&str> = letters.iter().map(|letter| letter.kind.as_str()).collect();
            let reasons: Vec<&str> = letters.iter().map(|letter| letter.text.as_str()).collect();
            let tables: Vec<Option<&str>> = letters.iter().map(|letter| letter.table.as_deref()).collect();
            let columns: Vec<Option<&str>> = letters.iter().map(|letter| letter.column.as_deref()).collect();
            let documents: Vec<&[u8]> = letters.iter().map(|letter| &letter.document[..]).collect();
            Call::prepared(
                "keeping dead letters",
                statement,
                vec![
                    migration,
                    Box::new(collections),
                    Box::new(keys),
                    Box::new(ops),
                    Box::new(kinds),
                    Box::new(reasons),
                    Box::new(tables),
                    Box::new(columns),
                    Box::new(documents),
                ],
            )
        }
        Note::Tallies => {
            let tallies = &notes.tallies;
            let collections: Vec<&str> = tallies.iter().map(|tally| tally.collection.as_str()).collect();
            let tables: Vec<&str> = tallies.iter().map(|tally| tally.table.as_str()).collect();
            let columns: Vec<&str> = tallies.iter().map(|tally| tally.column.as_str()).collect();
            let policies: Vec<&str> = tallies.iter().map(|tally| tally.policy.as_str()).collect();
            let counts: Vec<i64> = tallies.iter().map(|tally| tally.count as i64).collect();
            let samples: Vec<&[u8]> = tallies.iter().map(|tally| tally.sample_key.as_slice()).collect();
            Call::prepared(
                "counting what policies did",
                statement,
                vec![
                    migration,
                    Box::new(collections),
                    Box::new(tables),
                    Box::new(columns),
                    Box::new(policies),
                    Box::new(counts),
                    Box::new(samples),
                ],
            )
        }
        Note::Fences => {
            let ids: Vec<String> = notes.fences.iter().map(|fence| fence.id.to_string()).collect();
            let lanes: Vec<String> =
                notes.fences.iter().map(|fence| fence.lane.as_deref().unwrap_or(lane).to_owned()).collect();
            Call::prepared(
                "noting that fences have passed",
                statement,
                vec![migration, Box::new(ids), Box::new(lanes)],
            )
        }
        Note::Versions => {
            let mut parameters: Parameters<'a> = vec![migration];
            parameters.extend(versions(notes));
            Call::prepared("keeping which versions stand", statement, parameters)
        }
        Note::Breaches => {
            let mut parameters: Parameters<'a> = vec![migration];
            parameters.extend(breaches(notes));
            Call::prepared("noting what is not applied", statement, parameters)
        }
    }
}

fn versions(notes: &Notes) -> Parameters<'_> {
    let versions = || notes.versions.iter();
    let last = |version: &Version| version.last.map(|last| last.to_vec());
    vec![
        Box::new(versions().map(|note| Id(note.id)).collect::<Vec<_>>()),
        Box::new(versions().map(|note| note.collection.as_str()).collect::<Vec<_>>()),
        Box::new(versions().map(|note| note.key.as_slice()).collect::<Vec<_>>()),
        Box::new(versions().map(|note| note.before.is_some()).collect::<Vec<_>>()),
        Box::new(versions().map(|note| note.before.as_ref().and_then(last)).collect::<Vec<_>>()),
        Box::new(versions().map(|note| &note.after.first[..]).collect::<Vec<_>>()),
        Box::new(versions().map(|note| last(&note.after)).collect::<Vec<_>>()),
        Box::new(versions().map(|note| note.before.map_or(0, |before| before.number)).collect::<Vec<_>>()),
        Box::new(versions().map(|note| note.after.number).collect::<Vec<_>>()),
    ]
}

fn breaches(notes: &Notes) -> Parameters<'_> {
    let breaches = || notes.breaches.iter();
    let (collections, texts): (Vec<String>, Vec<String>) = incidents(&notes.breaches).into_iter().unzip();
    vec![
        Box::new(breaches().map(|breach| Id(breach.id)).collect::<Vec<_>>()),
        Box::new(breaches().map(|breach| breach.kind.word()).collect::<Vec<_>>()),
        Box::new(breaches().map(|breach| breach.collection.as_str()).collect::<Vec<_>>()),
        Box::new(breaches().map(|breach| breach.key.as_slice()).collect::<Vec<_>>()),
        Box::new(breaches().map(|breach| breach.count as i64).collect::<Vec<_>>()),
        Box::new(collections),
        Box::new(texts),
    ]
}

/// What is told of each collection.
fn incidents(breaches: &[Breach]) -> Vec<(String, String)> {
    let mut by_collection: BTreeMap<&str, Vec<&Breach>> = BTreeMap::new();
    for breach in breaches {
        by_collection.entry(&breach.collection).or_default().push(breach);
    }
    let text = |breaches: &[&Breach]| {
        let named = breaches.iter().take(MOST_NAMED).map(|breach| {
            let times = if breach.count > 1 { format!(" ({} times)", breach.count) } else { String::new() };
            format!("{} of {}{times}", breach.kind.word(), Key::from_bytes(&breach.key))
        });
        let mut named = named.collect::<Vec<_>>().join(", ");
        if breaches.len() > MOST_NAMED {
            named += &format!(" and {} more", breaches.len() - MOST_NAMED);
        }
        format!("not applied, because the collection is append only: {named}")
    };
    by_collection.iter().map(|(name, breaches)| ((*name).to_owned(), text(breaches))).collect()
}
