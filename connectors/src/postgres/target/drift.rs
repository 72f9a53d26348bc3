//! Looks whether the target's tables change while they are written, and who locks them.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::error::{Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::catalog::Catalog;
use crate::postgres::target::introspect;
use crate::postgres::target::statements::qualified;
use crate::secret::Secret;

/// Schema and name.
pub type Name = (String, String);

/// One line for everything of a table that matters to who writes it.
pub type Facts = BTreeMap<Name, BTreeSet<String>>;

/// The OID of a table, out of its facts.
pub fn oid_of(facts: &BTreeSet<String>) -> Option<u32> {
    facts.iter().find_map(|fact| fact.strip_prefix("table ")?.split(' ').next()?.parse().ok())
}

/// The number of a column, out of its table's facts: a column that was dropped and made again has another.
pub fn number_of(facts: &BTreeSet<String>, column: &str) -> Option<i32> {
    facts.iter().find_map(|fact| {
        let mut words = fact.strip_prefix("column ")?.splitn(6, ' ');
        let number = words.next()?.parse().ok();
        (words.nth(4)? == column).then_some(number)?
    })
}

/// Oids only, where a name would have to be looked up: this is asked every second.
const FACTS: &str = "
WITH t AS (
    SELECT c.oid, n.nspname::text AS nsp, c.relname::text AS rel, c.relkind
    FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nsp
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
)
SELECT nsp, rel, format('table %s %s', oid, relkind) FROM t
UNION ALL SELECT nsp, rel, 'right ' || r FROM t, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'SELECT']) AS r
    WHERE has_table_privilege(t.oid, r)
UNION ALL SELECT nsp, rel, 'right BYPASSRLS' FROM t WHERE NOT row_security_active(t.oid)
UNION ALL SELECT nsp, rel, format('column %s %s %s %s %s%s %s', a.attnum, a.atttypid, a.atttypmod, a.attnotnull,
        a.atthasdef, a.attgenerated, a.attname)
    FROM t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT nsp, rel, format('constraint %s', k.conname)
    FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype <> 'n'
UNION ALL SELECT nsp, rel, format('index %s %s', i.indexrelid, i.indisvalid)
    FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid AND i.indisunique
UNION ALL SELECT nsp, rel, format('trigger %s %s', g.tgname, g.tgenabled)
    FROM t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
UNION ALL SELECT nsp, rel, format('rule %s %s', r.rulename, r.ev_enabled)
    FROM t JOIN pg_catalog.pg_rewrite r ON r.ev_class = t.oid AND r.ev_type <> '1'";

/// Sessions of ours that wait for a lock, and for whom.
const BLOCKED: &str = "
SELECT a.pid, n.nspname::text, c.relname::text, b.pid, b.usename::text, b.application_name,
       (extract(epoch FROM clock_timestamp() - a.query_start) * 1000)::bigint
FROM pg_catalog.pg_stat_activity a
JOIN pg_catalog.pg_locks l ON l.pid = a.pid AND NOT l.granted
LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation AND l.locktype = 'relation'
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(a.pid)) AS p(pid)
JOIN pg_catalog.pg_stat_activity b ON b.pid = p.pid
WHERE a.application_name = 'slackwater' AND a.datname = current_database() AND a.usename = current_user
  AND a.wait_event_type = 'Lock' AND a.query_start < clock_timestamp() - interval '250 ms'
  AND b.application_name IS DISTINCT FROM 'slackwater'
ORDER BY a.pid, b.pid";

/// A session of ours that waits for a lock of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The session.
    pub pid: i32,
    /// The table that is locked as a whole; none where it is a row.
    pub table: Option<Name>,
    /// Who holds the lock, in words.
    pub holder: String,
    /// For how long it has waited.
    pub waited_ms: i64,
}

/// One connection for looking.
pub struct Looker {
    client: Client,
    task: JoinHandle<()>,
}

impl Looker {
    /// Connects.
    pub async fn open(url: &Secret) -> Result<Self> {
        let (client, task) = connect(url).await?;
        // Parts of the catalogue cannot be read while a table is locked, and who looks for locks must not wait for one.
        let set = client.batch_execute("SET lock_timeout = '300ms'").await;
        set.map_err(|error| explain("preparing to look at tables", &error))?;
        Ok(Self { client, task })
    }

    /// What there is to know of these tables now. Those that do not exist are left out.
    pub async fn facts(&self, names: &[Name]) -> Result<Facts> {
        let doing = "looking whether tables have changed";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let (schemas, tables): (Vec<&str>, Vec<&str>) =
            names.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
        let mut facts = Facts::new();
        for row in self.client.query(FACTS, &[&schemas, &tables]).await.map_err(fail)? {
            let get = |at: usize| row.try_get::<_, String>(at).map_err(fail);
            facts.entry((get(0)?, get(1)?)).or_default().insert(get(2)?);
        }
        Ok(facts)
    }

    /// The catalogue of these tables.
    pub async fn catalog(&self, names: &[Name]) -> Result<Catalog> {
        introspect::catalog(&self.client, names).await
    }

    /// Sessions of ours that have waited for a lock of somebody else for a moment.
    pub async fn blocked(&self) -> Result<Vec<Blocked>> {
        let doing = "looking who holds locks";
        let fail = |error: tokio_postgres::Error| explain(doing, &error);
        let mut found: Vec<Blocked> = Vec::new();
        for row in self.client.query(BLOCKED, &[]).await.map_err(fail)? {
            let text = |at: usize| row.try_get::<_, Option<String>>(at).map_err(fail);
            let (pid, holder): (i32, i32) = (row.try_get(0).map_err(fail)?, row.try_get(3).map_err(fail)?);
            let table = text(1)?.zip(text(2)?);
            let user = text(4)?.unwrap_or_default();
            let program = text(5)?.filter(|name| !name.is_empty()).map(|name| format!(", {name}"));
            let holder = format!("session {holder} ({user}{})", program.unwrap_or_default());
            match found.iter_mut().find(|known| known.pid == pid && known.table == table) {
                Some(known) => known.holder += &format!(", {holder}"),
                None => found.push(Blocked { pid, table, holder, waited_ms: row.try_get(6).map_err(fail)? }),
            }
        }
        Ok(found)
    }

    /// Ends what a session of ours waits for.
    pub async fn cancel(&self, pid: i32) -> Result<()> {
        let canceled = self.client.execute("SELECT pg_catalog.pg_cancel_backend($1)", &[&pid]).await;
        canceled.map(drop).map_err(|error| explain("giving up a wait for a lock", &error))
    }

    /// Whether the table could be written now. One that is gone, or that we may not write, is not locked.
    pub async fn is_free(&self, (schema, table): &Name) -> Result<bool> {
        let lock = format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE NOWAIT", qualified(schema, table));
        let asked = self.client.batch_execute(&format!("BEGIN; {lock}; COMMIT")).await;
        let Err(error) = asked else { return Ok(true) };
        let error = explain("looking whether a table is locked", &error);
        if error.kind == Kind::Unreachable {
            return Err(error);
        }
        let _ = self.client.batch_execute("ROLLBACK").await;
        Ok(error.code.as_deref() != Some("55P03"))
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
