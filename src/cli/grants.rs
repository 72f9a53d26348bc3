//! `slackwater grants`: prints the least rights of a migration as statements. Asks no server.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use slackwater_connectors::postgres::client;

use crate::failure::Failure;
use crate::grants::kafka::Users;
use crate::grants::{Grants, Names};
use crate::topology::load;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// The role, in MongoDB and in Postgres.
    #[arg(long, value_name = "NAME", default_value = "slackwater")]
    role: String,
    /// The user of MongoDB, who gets the role.
    #[arg(long, value_name = "NAME", default_value = "slackwater")]
    user: String,
    /// The user of Kafka who runs `slackwater capture`; with a client certificate, its name such as CN=capture.
    #[arg(long, value_name = "NAME", default_value = "slackwater-capture")]
    capture_user: String,
    /// The user of Kafka who runs `slackwater apply`. May be the same.
    #[arg(long, value_name = "NAME", default_value = "slackwater-apply")]
    apply_user: String,
    /// The user of Kafka who runs `slackwater topics apply`. May be the same.
    #[arg(long, value_name = "NAME", default_value = "slackwater-topics")]
    topics_user: String,
    /// Prints JSON, for machines: MongoDB's commands as documents, SQL, and Kafka's entries one by one.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let database = client::database(&migration.target.uri)?;
    let names = Names {
        role: arguments.role,
        user: arguments.user,
        kafka: Users {
            capture: arguments.capture_user,
            apply: arguments.apply_user,
            topics: arguments.topics_user,
        },
    };
    let grants = Grants::of(&migration, &database, &names)?;
    let text = if arguments.json { format!("{:#}\n", grants.json()) } else { grants.text() };
    // If stdout is closed, nobody needs the answer.
    let _ = write!(std::io::stdout(), "{text}");
    Ok(ExitCode::SUCCESS)
}
