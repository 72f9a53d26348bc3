//! What Postgres answers, as one of our kinds.
//!
//! The server puts values of records into message, detail and hint, so none of them is ever read here: the text
//! is made of the SQLSTATE, its name, and the names of schema, table, column and constraint.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::error::DbError;

use crate::error::{Error, Kind};

/// SQLSTATE of a lane that belongs to a newer epoch; raised by our own functions.
pub(super) const FENCED: &str = "SW001";
/// SQLSTATE of a lane that is at another sequence than the writer thought.
pub(super) const SEQUENCE: &str = "SW002";
/// SQLSTATE of a partition of the log that has another owner, or is at another offset, than the writer thought.
pub(super) const REVOKED: &str = "SW003";
/// SQLSTATE of a migration that was switched.
pub(super) const SWITCHED: &str = "SW004";
/// SQLSTATE of a cutover that cannot be opened any more: its deadline has passed, or it was reverted.
pub(super) const LATE: &str = "SW005";
/// SQLSTATE of a writer that does not know which references are watched now.
pub(super) const UNAWARE: &str = "SW006";
/// SQLSTATE of rows that may not go before a reference to them is watched.
pub(super) const NOT_WATCHED: &str = "SW007";
/// SQLSTATE of a writer that has to look what waits.
pub(super) const WAITING: &str = "SW008";
/// SQLSTATE of a row whose key is claimed by another document.
pub(super) const CLAIMED: &str = "SW009";
/// SQLSTATE of documents of which somebody has written a version since the writer looked.
pub(super) const OUTDATED: &str = "SW010";
/// SQLSTATE of a connection that has failed; the driver itself has none for it.
const CLOSED: &str = "08006";
/// What each later statement of a failed transaction answers; never the cause.
const ABORTED: &str = "25P02";
/// Of [`lost`]; no server says it.
const LOST: &str = "lost";
/// A write where none is allowed: on a standby.
const READ_ONLY: &str = "25006";

/// How often a write was refused because none was allowed.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Changes whenever a session was told that it may not write. A session that was opened then may keep that for as long as it lives
/// (`ALTER DATABASE … SET default_transaction_read_only`), so those that are older than this are to be opened anew.
pub(super) fn refused_writes() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Our error for one of the driver.
pub(super) fn explain(doing: impl Into<String>, error: &tokio_postgres::Error) -> Error {
    if let Some(error) = error.as_db_error() {
        return named(doing, error);
    }
    if let Some(cause) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return Error::new(Kind::Unreachable, doing, format!("no connection to Postgres: {}", cause.kind()));
    }
    if error.is_closed() {
        return Error::new(Kind::Unreachable, doing, "the connection to Postgres was closed").code(CLOSED);
    }
    // The part before the colon names the kind of failure; behind it there may be a value.
    let text = error.to_string();
    let head = text.split(':').next().unwrap_or_default();
    match head {
        "authentication error" | "password missing" => Error::new(
            Kind::Denied,
            doing,
            "Postgres asks for a password or a way to log in that is not configured",
        ),
        "timeout waiting for server"
        | "error connecting to server"
        | "error communicating with the server" => {
            Error::new(Kind::Unreachable, doing, "no connection to Postgres")
        }
        _ => Error::new(Kind::Bug, doing, format!("the driver refused: {head}")),
    }
}

/// The same for what the server itself has said.
pub(super) fn named(doing: impl Into<String>, error: &DbError) -> Error {
    let code = error.code().code();
    let kind = match kind(code) {
        // A trigger of the team that is broken refuses rows of its table, as one that raises an error does, with whatever code of its own. The
        // context is only looked at, and never shown.
        Kind::Unsuitable | Kind::Bug if is_of_a_trigger(error) => Kind::Data,
        // Somebody makes the same table at the same moment.
        Kind::Data if error.schema() == Some("pg_catalog") => Kind::Contention,
        kind => kind,
    };
    let mut named = Error::new(kind, doing, describe(code, error)).code(code);
    named.constraint = error
        .constraint()
        .map(|constraint| Box::new((error.table().unwrap_or_default().to_owned(), constraint.to_owned())));
    if code == "42501" && is_of_a_trigger(error) {
        named.help = Some(
            "a trigger of the table does what our role may not: give the role that right too, or make the trigger's function SECURITY DEFINER"
                .into(),
        );
    }
    if code == READ_ONLY {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        named.help = Some(
            "wait until it takes writes again (a standby, or default_transaction_read_only, which a managed server sets when its disk is \
             nearly full); if the `uri` names several hosts, add target_session_attrs=read-write, which looks for the one that does"
                .into(),
        );
    }
    named
}

/// It was raised in a function that is not ours.
fn is_of_a_trigger(error: &DbError) -> bool {
    error.where_().is_some_and(|context| context.contains("PL/pgSQL") && !context.contains("slackwater."))
}

/// What the target had confirmed is not there any more. Whoever goes on from what it knows would leave a gap; whoever begins anew reads what there
/// is, and leaves none.
pub fn lost(doing: impl Into<String>) -> Error {
    let text = "the target has lost what it had confirmed, as after a failover to a standby that was behind";
    Error::new(Kind::Fenced, doing, text)
        .code(LOST)
        .help("nothing: what is missing is read again; a synchronous standby prevents it")
}

/// Whether it is [`lost`].
pub fn was_lost(error: &Error) -> bool {
    error.code.as_deref() == Some(LOST)
}

/// The statement cannot be part of a transaction, like VACUUM.
pub fn wants_no_transaction(error: &Error) -> bool {
    error.code.as_deref() == Some("25001")
}

/// The server had answered, and then the connection was cut: it may be made again at once, and nothing says that the server is away.
pub fn was_cut(error: &Error) -> bool {
    matches!(error.code.as_deref(), Some(CLOSED | "57P01" | "57P02"))
}

/// True where the error only repeats that an earlier statement of the transaction failed.
pub(super) fn is_echo(error: &Error) -> bool {
    error.code.as_deref() == Some(ABORTED)
}

fn kind(code: &str) -> Kind {
    match code {
        FENCED | SEQUENCE => Kind::Fenced,
        REVOKED => Kind::Revoked,
        SWITCHED => Kind::Switched,
        LATE => Kind::Unsuitable,
        UNAWARE | OUTDATED => Kind::Contention,
        NOT_WATCHED | WAITING => Kind::Data,
        // Bytes that do not parse are our mistake: trying again would never end.
        "08P01" => Kind::Bug,
        "40001" | "40P01" | "55P03" | "57014" => Kind::Contention,
        // A standby, or a primary that is being handed over.
        "25006" | "25P03" | "25P04" | "57P01" | "57P02" | "57P03" | "57P05" => Kind::Unreachable,
        "42501" | "3D000" => Kind::Denied,
        // A key too long for an index page, a value nested too deep for the stack; a trigger that refuses.
        "54000" | "54001" | "44000" | "P0001" => Kind::Data,
        "58030" => Kind::Exhausted,
        "0A000" | "3F000" | "55000" | "57P04" => Kind::Unsuitable,
        _ => match code.get(..2).unwrap_or_default() {
            "08" => Kind::Unreachable,
            "28" => Kind::Denied,
            "53" => Kind::Exhausted,
            // 21: two documents of one batch whose keys fall together.
            "21" | "22" | "23" => Kind::Data,
            "42" => Kind::Unsuitable,
            _ => Kind::Bug,
        },
    }
}

fn describe(code: &str, error: &DbError) -> String {
    // A check has a name, and so has a domain.
    let is_homeless = code == "23514" && error.constraint().is_none() && error.datatype().is_none();
    let mut text = match is_homeless {
        true => "no partition takes the row; create one for it, or a default partition".to_owned(),
        false => condition(code).to_owned(),
    };
    let mut names = Vec::new();
    if let Some(table) = error.table() {
        names.push(match error.schema() {
            Some(schema) => format!("table {schema}.{table}"),
            None => format!("table {table}"),
        });
    }
    names.extend(error.column().map(|name| format!("column {name}")));
    names.extend(error.constraint().map(|name| format!("constraint {name}")));
    names.extend(error.datatype().map(|name| format!("type {name}")));
    if !names.is_empty() {
        text.push_str(": ");
        text.push_str(&names.join(", "));
    }
    text
}

/// What the code means, in words.
fn condition(code: &str) -> &'static str {
    match code {
        FENCED => "a newer process has taken over this lane",
        SEQUENCE => "the lane is at another sequence than this process left it at: somebody else wrote",
        REVOKED => {
            "a partition of the log belongs to another process now, or its collection is being recopied"
        }
        SWITCHED => "the migration was switched; nothing is written for it any more",
        UNAWARE => "other processes have put a reference under watch",
        WAITING => "something waits for rows of this batch",
        OUTDATED => "another process has written a version of these documents",
        NOT_WATCHED => "rows refer to a row that goes",
        LATE => "the deadline has passed, or the cutover was reverted",
        "08P01" => "the bytes sent do not have the form that the type expects",
        "22001" => "a text is longer than its column allows",
        "22003" => "a number is outside the range of its column",
        "22007" => "not a date or time in a form that Postgres reads",
        "22008" => "a date or time is outside the range of its column",
        "2200H" => {
            "its sequence has no number left; give it a higher MAXVALUE, and the column a type that holds it"
        }
        "22021" => "a text holds bytes that the encoding does not allow",
        "22P02" => "a text cannot be read as its column's type",
        "22P03" => "bytes cannot be read as their column's type",
        "22P05" => "a text holds a character that the database's encoding has not",
        "23502" => "a null where none is allowed",
        "23503" => "a reference without its target",
        "23505" => "a value that must be unique is there already",
        "23514" => "a check does not hold",
        "23P01" => "an exclusion constraint does not hold",
        "25006" => "the server takes no writes now: it is a standby, or is being handed over",
        "25P03" => "the transaction was idle for too long and the server ended it",
        "25P04" => "the transaction took too long and the server ended it",
        "28000" | "28P01" => "the user or the password is not accepted",
        "3D000" => "there is no such database",
        "3F000" => "there is no such schema",
        "40001" => "lost against another transaction",
        "40P01" => "deadlock with another transaction",
        "42501" => "the user has not the right to do this",
        "42703" => "there is no such column: the schema is not what the migration was compiled for",
        "42704" => "there is no such type: the schema is not what the migration was compiled for",
        "42804" => "a type does not match: the table has changed since the migration was compiled",
        "42883" => "there is no such function or operator",
        "42P01" => "there is no such table: the schema is not what the migration was compiled for",
        "42P10" => "no unique constraint matches the key",
        "53100" => "the server's disk is full",
        "53200" => "the server is out of memory",
        "53300" => "the server has no connection left",
        "54000" => "a value is larger than the server can keep: a key too long for its index",
        "54001" => "a value is nested too deep for the server",
        "55000" => {
            "the table is in no state for this: it may be published without a replica identity, which refuses updates and deletes"
        }
        "55P03" => "a lock could not be had in time",
        "57014" => "the statement was cancelled at the server",
        "57P01" | "57P02" => "the server ended the connection",
        "57P03" => "the server is starting up",
        "58030" => "the server cannot read or write its files",
        "P0001" => "a trigger or function of the target refused",
        ABORTED => "the transaction had already failed",
        _ => match code.get(..2).unwrap_or_default() {
            "08" => "the connection failed",
            "22" => "a value does not fit its column",
            "23" => "a constraint does not hold",
            "28" => "the login is not accepted",
            "42" => "the schema is not what the migration was compiled for",
            "53" => "the server lacks room",
            _ => "Postgres refused",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (code, expected) in [
            ("08006", Kind::Unreachable),
            ("08P01", Kind::Bug),
            ("57P01", Kind::Unreachable),
            ("40P01", Kind::Contention),
            ("28P01", Kind::Denied),
            ("42501", Kind::Denied),
            ("53100", Kind::Exhausted),
            ("22021", Kind::Data),
            ("23505", Kind::Data),
            ("42P01", Kind::Unsuitable),
            ("55000", Kind::Unsuitable),
            ("25P04", Kind::Unreachable),
            ("SW001", Kind::Fenced),
            ("SW002", Kind::Fenced),
            ("SW003", Kind::Revoked),
            ("XX000", Kind::Bug),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }
}
