//! Reads the catalogue of the target: a few questions for all tables together, none for each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::{Client, Row};

use crate::error::{Error, Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::catalog::{Catalog, Column, ForeignKey, OnDelete, Rival, Table, Type};
use crate::postgres::target::statements::{literal, quote};
use crate::secret::Secret;

const DOING: &str = "reading the target's catalogue";

const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind IN ('r', 'p'),
       ARRAY(SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r WHERE NOT has_table_privilege(c.oid, r))
           || CASE WHEN has_schema_privilege(n.oid, 'USAGE') THEN '{}' ELSE ARRAY['USAGE'] END
           || CASE WHEN row_security_active(c.oid) THEN ARRAY['BYPASSRLS'] ELSE '{}' END,
       c.reltuples::bigint,
       ARRAY(SELECT g.tgname::text FROM pg_catalog.pg_trigger g
             WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') ORDER BY 1),
       ARRAY(SELECT r.rulename::text FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled IN ('O', 'A') ORDER BY 1)
FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nsp
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
GROUP BY c.oid, n.oid, n.nspname, c.relname, c.relkind, c.reltuples";

const COLUMNS: &str = "
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, a.attnotnull,
       a.atthasdef OR a.attidentity <> '', a.attgenerated <> '', a.attidentity = 'a',
       CASE
           WHEN a.attgenerated <> '' THEN NULL
           WHEN a.attidentity <> '' THEN (
               SELECT format('nextval(%L::regclass)', s.oid::regclass)
               FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                 AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i' LIMIT 1)
           ELSE coalesce(pg_catalog.pg_get_expr(def.adbin, def.adrelid), t.typdefault)
       END,
       EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence s ON s.seqcycle AND d.refclassid = 'pg_class'::regclass
                                                                               AND s.seqrelid = d.refobjid
               WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = def.oid)
           OR a.attidentity <> '' AND EXISTS (
               SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence s ON s.seqcycle AND s.seqrelid = d.objid
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                 AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i')
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// Walks from every column's type to what is under a domain and inside an array.
const TYPES: &str = "
WITH RECURSIVE used(oid, modifier) AS (
    SELECT DISTINCT a.atttypid, a.atttypmod
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END,
           CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE used.modifier END
    FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid
    WHERE t.typtype = 'd' OR (t.typelem <> 0 AND t.typlen = -1)
)
SELECT t.oid, used.modifier, pg_catalog.format_type(t.oid, used.modifier), t.typtype = 'd', t.typbasetype, t.typtypmod,
       CASE WHEN t.typtype <> 'd' AND t.typlen = -1 THEN t.typelem ELSE 0 END,
       t.typnotnull, t.typdefault IS NOT NULL,
       (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
        FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
       t.typtype IN ('e', 'r', 'm') OR EXISTS (
           SELECT FROM pg_catalog.pg_opclass o
           JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname = 'btree'
           WHERE o.opcdefault AND (o.opcintype = t.oid OR EXISTS (
               SELECT FROM pg_catalog.pg_cast k
               WHERE k.castsource = t.oid AND k.casttarget = o.opcintype
                 AND k.castmethod = 'b' AND k.castcontext = 'i')))
FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid";

const INDEXES: &str = "
SELECT i.indrelid, i.indisprimary,
       i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL,
       i.indpred IS NULL AND am.amname IN ('btree', 'hash'),
       (i.indkey::int2[])[0:i.indnkeyatts - 1]
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE i.indrelid = ANY($1) AND i.indisvalid AND i.indislive
ORDER BY i.indrelid, i.indexrelid";

/// Servers before version 15 do not know `indnullsnotdistinct`.
const RIVALS: &str = "
SELECT i.indrelid,
       ARRAY(WITH RECURSIVE all_of(oid) AS (
                 SELECT i.indexrelid
                 UNION ALL SELECT h.inhrelid FROM all_of JOIN pg_catalog.pg_inherits h ON h.inhparent = all_of.oid
             ) SELECT c.relname::text FROM all_of JOIN pg_catalog.pg_class c ON c.oid = all_of.oid),
       ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, place, false)
             FROM generate_series(1, i.indnkeyatts) AS place ORDER BY place),
       ARRAY(SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
             FROM pg_catalog.pg_constraint k, unnest(k.conexclop) WITH ORDINALITY AS x(oid, place)
             JOIN pg_catalog.pg_operator o ON o.oid = x.oid JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
             WHERE k.conindid = i.indexrelid AND k.contype = 'x' ORDER BY x.place),
       pg_catalog.pg_get_expr(i.indpred, i.indrelid),
       coalesce((to_jsonb(i)->>'indnullsnotdistinct')::bool, false)
FROM pg_catalog.pg_index i
WHERE i.indrelid = ANY($1) AND i.indisvalid AND i.indislive AND (i.indisunique OR i.indisexclusion)
ORDER BY i.indrelid, i.indexrelid";

const FOREIGN_KEYS: &str = "
SELECT k.conrelid, k.conname::text, k.conkey, n.nspname::text, c.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY named.place)
        FROM unnest(k.confkey) WITH ORDINALITY AS named(number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = named.number),
       k.confmatchtype = 'f', k.confdeltype::text,
       ARRAY(WITH RECURSIVE all_of(oid) AS (
                 SELECT k.oid
                 UNION ALL SELECT h.oid FROM all_of JOIN pg_catalog.pg_constraint h ON h.conparentid = all_of.oid
             ) SELECT DISTINCT h.conname::text FROM all_of JOIN pg_catalog.pg_constraint h ON h.oid = all_of.oid)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = ANY($1)
ORDER BY k.conrelid, k.conname";

/// Check constraints that ask whether a column of a reference is null.
const NULL_CHECKS: &str = "
SELECT k.conrelid, k.conkey, pg_catalog.pg_get_expr(k.conbin, k.conrelid)
FROM pg_catalog.pg_constraint k
WHERE k.contype = 'c' AND k.conrelid = ANY($1)
  AND pg_catalog.pg_get_expr(k.conbin, k.conrelid) ~* '\\mis (not )?null\\M|\\mnum_(non)?nulls\\M|\\mcoalesce\\M'
  AND EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conrelid = k.conrelid AND f.conkey && k.conkey)
ORDER BY k.conrelid, k.conname";

/// Tables that may refuse a row for what it is: by a check, a trigger, or because no partition takes it.
const JUDGES: &str = "
SELECT c.oid FROM pg_catalog.pg_class c
WHERE c.oid = ANY($1) AND (c.relkind = 'p'
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgtype & 6 = 6))";

/// Looks at the named tables (schema, name). Those that do not exist are left out.
pub async fn catalog(client: &Client, tables: &[(String, String)]) -> Result<Catalog> {
    let schemas: Vec<&str> = tables.iter().map(|(schema, _)| schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|(_, name)| name.as_str()).collect();
    let fail = |error: tokio_postgres::Error| explain(DOING, &error);
    let mut found: BTreeMap<u32, Table> = BTreeMap::new();
    for row in client.query(TABLES, &[&schemas, &names]).await.map_err(fail)? {
        let table = Table {
            oid: get(&row, 0)?,
            deferrable_key: false,
            schema: get(&row, 1)?,
            name: get(&row, 2)?,
            columns: Vec::new(),
            primary_key: Vec::new(),
            uniques: Vec::new(),
            rivals: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            judges: false,
            is_table: get(&row, 3)?,
            lacks: get(&row, 4)?,
            estimated_rows: get(&row, 5)?,
            triggers: get(&row, 6)?,
            rules: get(&row, 7)?,
        };
        found.insert(table.oid, table);
    }
    let oids: Vec<u32> = found.keys().copied().collect();
    let asked: [&(dyn postgres_types::ToSql + Sync); 1] = [&oids];
    let (columns, types, indexes, rivals, foreign_keys) = tokio::try_join!(
        client.query(COLUMNS, &asked),
        client.query(TYPES, &asked),
        client.query(INDEXES, &asked),
        client.query(RIVALS, &asked),
        client.query(FOREIGN_KEYS, &asked),
    )
    .map_err(fail)?;
    let types = Types::read(&types)?;
    // Numbers of columns have holes where columns were dropped.
    let mut places: HashMap<(u32, i16), usize> = HashMap::new();
    for row in &columns {
        let relation: u32 = get(row, 0)?;
        let Some(table) = found.get_mut(&relation) else { continue };
        places.insert((relation, get(row, 1)?), table.columns.len());
        let (oid, modifier) = (get(row, 3)?, get(row, 4)?);
        let (refuses_null, fills_in) = types.domain(oid, modifier);
        table.columns.push(Column {
            name: get(row, 2)?,
            kind: types.build(oid, modifier)?,
            not_null: get::<bool>(row, 5)? || refuses_null,
            has_default: get::<bool>(row, 6)? || fills_in,
            generated: get(row, 7)?,
            identity_always: get(row, 8)?,
            default: get(row, 9)?,
            cycles: get(row, 10)?,
            null_checked: false,
        });
    }
    for row in &indexes {
        let relation: u32 = get(row, 0)?;
        let Some(table) = found.get_mut(&relation) else { continue };
        let numbers: Vec<i16> = get(row, 4)?;
        let leading: Vec<usize> =
            numbers.iter().map_while(|number| places.get(&(relation, *number)).copied()).collect();
        let complete = leading.len() == numbers.len();
        if get(row, 1)? {
            table.primary_key.clone_from(&leading);
            table.deferrable_key = !get::<bool>(row, 2)?;
        } else if complete && get(row, 2)? {
            table.uniques.push(leading.clone());
        }
        if get(row, 3)? && !leading.is_empty() {
            table.indexes.push(leading);
        }
    }
    for row in &rivals {
        let relation: u32 = get(row, 0)?;
        let Some(table) = found.get_mut(&relation) else { continue };
        table.rivals.push(Rival {
            names: get(row, 1)?,
            values: get(row, 2)?,
            operators: get(row, 3)?,
            predicate: get(row, 4)?,
            nulls_equal: get(row, 5)?,
        });
    }
    for row in &foreign_keys {
        let relation: u32 = get(row, 0)?;
        let Some(table) = found.get_mut(&relation) else { continue };
        let numbers: Vec<i16> = get(row, 2)?;
        table.foreign_keys.push(ForeignKey {
            name: get(row, 1)?,
            columns: numbers.iter().filter_map(|number| places.get(&(relation, *number)).copied()).collect(),
            table: (get(row, 3)?, get(row, 4)?),
            referenced: get(row, 5)?,
            full: get(row, 6)?,
            on_delete: match get::<&str>(row, 7)? {
                "c" => OnDelete::Cascade,
                "n" => OnDelete::SetNull,
                "d" => OnDelete::SetDefault,
                _ => OnDelete::Refuse,
            },
            names: get(row, 8)?,
        });
    }
    mark_null_checked(client, &asked, &places, &mut found).await?;
    for row in client.query(JUDGES, &asked).await.map_err(fail)? {
        if let Some(table) = found.get_mut(&get(&row, 0)?) {
            table.judges = true;
        }
    }
    let tables =
        found.into_values().map(|table| ((table.schema.clone(), table.name.clone()), table)).collect();
    Ok(Catalog { tables, ..Catalog::default() })
}

/// Marks the columns of references that a check constraint may refuse to be null. It is asked what it says of a row with this null and nothing
/// else, and of one with this null and something in all other columns; unless both are true, it may refuse.
async fn mark_null_checked(
    client: &Client,
    asked: &[&(dyn postgres_types::ToSql + Sync)],
    places: &HashMap<(u32, i16), usize>,
    found: &mut BTreeMap<u32, Table>,
) -> Result<()> {
    for row in client.query(NULL_CHECKS, asked).await.map_err(|error| explain(DOING, &error))? {
        let (relation, numbers, check): (u32, Vec<i16>, String) =
            (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let Some(table) = found.get_mut(&relation) else { continue };
        let columns: Vec<usize> =
            numbers.iter().filter_map(|number| places.get(&(relation, *number)).copied()).collect();
        let refers = |column: &&usize| table.foreign_keys.iter().any(|key| key.columns.contains(column));
        for column in columns.iter().filter(refers).copied().collect::<Vec<_>>() {
            let says = |others: bool| {
                let values = columns.iter().map(|at| {
                    let one = &table.columns[*at];
                    let value = if others && *at != column { something(&one.kind) } else { None };
                    let value = value.map_or_else(|| "NULL".to_owned(), |value| literal(&value));
                    format!("CAST({value} AS {}) AS {}", one.kind.base_name, quote(&one.name))
                });
                format!("(SELECT {check} FROM (SELECT {}) AS r)", values.collect::<Vec<_>>().join(", "))
            };
            // What cannot be evaluated is not known to refuse anything.
            let said = client.query_one(&format!("SELECT {}, {}", says(false), says(true)), &[]).await;
            let holds =
                |row: &Row, at: usize| row.try_get::<_, Option<bool>>(at).ok().flatten() == Some(true);
            table.columns[column].null_checked |= said.is_ok_and(|row| !(holds(&row, 0) && holds(&row, 1)));
        }
    }
    Ok(())
}

/// Any value of a type, as text, where one is known.
fn something(kind: &Type) -> Option<String> {
    if let Some(labels) = &kind.enum_labels {
        return labels.first().cloned();
    }
    let text = match kind.base_oid {
        16 => "true",
        20 | 21 | 23 | 700 | 701 | 1700 => "0",
        25 | 1042 | 1043 => "",
        1082 | 1114 | 1184 => "epoch",
        2950 => "00000000-0000-0000-0000-000000000000",
        _ => return None,
    };
    Some(text.to_owned())
}

/// Names of the tables in a schema, partitions left out.
pub async fn tables(client: &Client, schema: &str) -> Result<Vec<String>> {
    let rows = client
        .query(
            "SELECT c.relname::text FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1",
            &[&schema],
        )
        .await
        .map_err(|error| explain(DOING, &error))?;
    rows.iter().map(|row| get(row, 0)).collect()
}

fn get<'a, T: postgres_types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|error| explain(DOING, &error))
}

struct TypeRow {
    name: String,
    domain_of: Option<(u32, i32)>,
    element: u32,
    not_null: bool,
    has_default: bool,
    labels: Option<Vec<String>>,
    comparable: bool,
}

struct Types(HashMap<(u32, i32), TypeRow>);

impl Types {
    fn read(rows: &[Row]) -> Result<Self> {
        let mut types = HashMap::new();
        for row in rows {
            let domain_of = if get(row, 3)? { Some((get(row, 4)?, get(row, 5)?)) } else { None };
            let kind = TypeRow {
                name: get(row, 2)?,
                domain_of,
                element: get(row, 6)?,
                not_null: get(row, 7)?,
                has_default: get(row, 8)?,
                labels: get(row, 9)?,
                comparable: get(row, 10)?,
            };
            types.insert((get(row, 0)?, get(row, 1)?), kind);
        }
        Ok(Self(types))
    }

    /// Whether a domain on the way refuses null, and whether one has a default.
    fn domain(&self, oid: u32, modifier: i32) -> (bool, bool) {
        match self.0.get(&(oid, modifier)) {
            Some(TypeRow { domain_of: Some((oid, modifier)), not_null, has_default, .. }) => {
                let (below_not_null, below_default) = self.domain(*oid, *modifier);
                (*not_null || below_not_null, *has_default || below_default)
            }
            _ => (false, false),
        }
    }

    fn build(&self, oid: u32, modifier: i32) -> Result<Type> {
        let row = self.0.get(&(oid, modifier)).ok_or_else(|| {
            Error::new(Kind::Contention, DOING, "a type changed while it was read: read the catalogue again")
        })?;
        if let Some((base, modifier)) = row.domain_of {
            return Ok(Type { oid, name: row.name.clone(), ..self.build(base, modifier)? });
        }
        let element =
            if row.element == 0 { None } else { Some(Box::new(self.build(row.element, modifier)?)) };
        let comparable = element.as_ref().map_or(row.comparable, |element| element.comparable);
        let enum_labels = row.labels.clone();
        let (name, base_name) = (row.name.clone(), row.name.clone());
        Ok(Type { oid, name, base_oid: oid, base_name, modifier, enum_labels, element, comparable })
    }
}

/// Connects, reads the catalogue of all tables in the schemas of these, and disconnects: who has misspelt a table is told
/// the one that was meant.
pub async fn read(url: &Secret, names: &[(String, String)]) -> Result<Catalog> {
    let (client, _task) = connect(url).await?;
    let schemas: BTreeSet<&str> = names.iter().map(|(schema, _)| schema.as_str()).collect();
    let mut all = Vec::new();
    for schema in schemas {
        all.extend(tables(&client, schema).await?.into_iter().map(|name| (schema.to_owned(), name)));
    }
    // Views and partitions are never proposed; who names one is told what it is.
    all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
    catalog(&client, &all).await
}

/// Which of these tables (by place in the list) hold no row.
pub async fn empty(url: &Secret, names: &[(String, String)]) -> Result<Vec<usize>> {
    let (client, _task) = connect(url).await?;
    let mut empty = Vec::new();
    for (place, (schema, name)) in names.iter().enumerate() {
        let fail = |error: tokio_postgres::Error| explain(format!("looking whether {name} is empty"), &error);
        let sql = format!("SELECT NOT EXISTS (SELECT FROM {}.{})", quote(schema), quote(name));
        if client.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(fail)? {
            empty.push(place);
        }
    }
    Ok(empty)
}

/// Tables with more rows than this by the statistics are not counted.
const COUNTED: i64 = 2_000_000;

/// How many rows each of these tables holds, and whether that was counted: of large ones the statistics are believed. None of a table
/// that is not there.
pub async fn count_rows(url: &Secret, names: &[(String, String)]) -> Result<Vec<Option<(u64, bool)>>> {
    let (client, _task) = connect(url).await?;
    let mut counts = Vec::with_capacity(names.len());
    for (schema, name) in names {
        let fail = |error: tokio_postgres::Error| explain(format!("counting the rows of {name}"), &error);
        let known = "SELECT c.reltuples::bigint FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
        let Some(row) = client.query_opt(known, &[schema, name]).await.map_err(fail)? else {
            counts.push(None);
            continue;
        };
        let known: i64 = row.try_get(0).map_err(fail)?;
        if known > COUNTED {
            counts.push(Some((known.unsigned_abs(), false)));
            continue;
        }
        let sql = format!("SELECT count(*) FROM {}.{}", quote(schema), quote(name));
        let count: i64 = client.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(fail)?;
        counts.push(Some((count.unsigned_abs(), true)));
    }
    Ok(counts)
}
