//! The driver's errors in our words.
//!
//! The driver prints whole server replies, and servers print whole commands, keys and documents into their
//! messages. So texts are our own, by code; of an unknown error only its name and the start of its message
//! are kept, up to the first character that could open a value.

use mongodb::error::{CommandError, Error as Driver, ErrorKind};

use super::selection::why;
use crate::error::{Error, Kind};

/// Codes after which the same request can work: elections, shutdowns, lost connections and cursors.
const PASSING: [i32; 26] = [
    6, 7, 43, 50, 63, 89, 91, 133, 134, 136, 150, 175, 189, 202, 206, 234, 237, 262, 290, 9001, 10107, 11600,
    11602, 13388, 13435, 13436,
];

/// What the server says of a change that is larger than a reply may be.
pub(super) const TOO_LARGE: i32 = 10334;

/// The server's code, where the error came from the server.
pub(super) fn code_of(error: &Driver) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// True where a change stream goes on after being opened again (as the change stream specification has it).
pub(super) fn resumable(error: &Driver) -> bool {
    if error.contains_label(mongodb::error::RESUMABLE_CHANGE_STREAM_ERROR) {
        return true;
    }
    kind_of(error) == Kind::Unreachable
}

/// The driver's error as ours.
pub(super) fn cleaned(doing: impl Into<String>, error: &Driver) -> Error {
    let kind = kind_of(error);
    let made = Error::new(kind, doing, what(error));
    match code_of(error) {
        Some(code) => made.code(code.to_string()),
        None => made,
    }
}

pub(super) fn kind_of(error: &Driver) -> Kind {
    match &*error.kind {
        ErrorKind::Command(command) => kind_of_command(command),
        ErrorKind::Authentication { .. } => Kind::Denied,
        ErrorKind::ServerSelection { message, .. } if refused(message) => Kind::Denied,
        ErrorKind::ServerSelection { message, .. } => why(message).kind(),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::DnsResolve { .. } => {
            Kind::Unreachable
        }
        ErrorKind::Internal { .. } | ErrorKind::Shutdown => Kind::Bug,
        _ => Kind::Unsuitable,
    }
}

fn kind_of_command(command: &CommandError) -> Kind {
    match command.code {
        11 | 13 | 18 | 31 | 8000 => Kind::Denied,
        286 => Kind::HistoryLost,
        280 if lost(&command.message) => Kind::HistoryLost,
        112 | 246 => Kind::Contention,
        146 | 292 | 14031 | 16819 => Kind::Exhausted,
        TOO_LARGE => Kind::Data,
        code if PASSING.contains(&code) => Kind::Unreachable,
        _ => Kind::Unsuitable,
    }
}

/// A wrong password can come wrapped in "no server could be chosen".
fn refused(message: &str) -> bool {
    message.contains("SCRAM failure") || message.contains("Authentication failed")
}

fn lost(message: &str) -> bool {
    message.contains("resume point may no longer be in the oplog")
        || message.contains("resume token was not found")
        || message.contains("cannot resume stream")
}

fn what(error: &Driver) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => what_of_command(command),
        ErrorKind::Authentication { .. } => WRONG_PASSWORD.into(),
        ErrorKind::ServerSelection { message, .. } if refused(message) => WRONG_PASSWORD.into(),
        ErrorKind::ServerSelection { message, .. } => why(message).words(),
        ErrorKind::DnsResolve { .. } => {
            "the name of the cluster has no SRV records; check the name behind `mongodb+srv://`".into()
        }
        ErrorKind::Io(io) => format!("the connection broke: {}", io.kind()),
        ErrorKind::ConnectionPoolCleared { .. } => "the connection broke".into(),
        ErrorKind::InvalidTlsConfig { .. } => "the TLS files of the connection string cannot be used".into(),
        ErrorKind::IncompatibleServer { .. } => {
            "the server is too old; MongoDB 4.4 is the oldest that works".into()
        }
        ErrorKind::InvalidArgument { .. } => "the driver refuses an option of the connection string".into(),
        ErrorKind::Shutdown => "the client was closed".into(),
        _ => "the driver could not read the server's answer".into(),
    }
}

const WRONG_PASSWORD: &str =
    "the server refuses this user or password; check the credentials and authSource of the connection string";

fn what_of_command(command: &CommandError) -> String {
    match command.code {
        11 | 18 | 8000 => WRONG_PASSWORD.into(),
        13 if command.message.contains("requires authentication") => {
            "the server asks for a user, and the connection string names none; write it into the `uri`: \
             mongodb://user:${file:/run/secrets/password}@host/?authSource=admin"
                .into()
        }
        13 | 31 => {
            "the user lacks the right; it needs `find` and `changeStream` on the database (role `read`)"
                .into()
        }
        286 => HISTORY.into(),
        280 if lost(&command.message) => HISTORY.into(),
        TOO_LARGE => "a document with what surrounds it is larger than a reply may be (16 MB)".into(),
        40573 => {
            "the server is standalone and has no change streams; start it with --replSet and initiate the set"
                .into()
        }
        166 => "it is a view; name the collection that it reads instead".into(),
        260 => "the saved position is not one of this server's; was the connection string changed?".into(),
        _ => named(command),
    }
}

const HISTORY: &str = "the oplog no longer reaches back to the saved position; what changed since is not known, so \
     the collections have to be copied again; make the oplog larger";

fn named(command: &CommandError) -> String {
    let start: String = command
        .message
        .chars()
        .take_while(|c| !matches!(c, '{' | '"' | '\'' | '[' | '`'))
        .take(160)
        .collect();
    let start = start.trim_end_matches([' ', ':', ',']);
    match (command.code_name.as_str(), start) {
        ("", "") => "the server refused".into(),
        (name, "") => name.into(),
        ("", start) => start.into(),
        (name, start) => format!("{name}: {start}"),
    }
}
