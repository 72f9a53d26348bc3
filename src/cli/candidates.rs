//! `slackwater candidates`: lists rows that may mean the same, for a person to judge. Reads only.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::target::finish::Finisher;

use crate::candidates::{Row, header, line, pairs};
use crate::failure::Failure;
use crate::topology::load;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// Where the list goes: one file for all tables. `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "dedup-candidates.csv")]
    out: PathBuf,
    /// No more candidates of a table than this.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    most: usize,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let rules = migration.collections.iter().flat_map(|collection| &collection.tables);
    let mut wanted: Vec<_> = rules.filter_map(|rule| Some((rule, rule.candidates.as_ref()?))).collect();
    wanted.dedup_by(|one, other| one.0.into.value == other.0.into.value && one.0.schema == other.0.schema);
    if wanted.is_empty() {
        let line = "no table of the migration file says what candidates are: add `candidates: { near: name, same: [city] }` beside `into`";
        return Err(Failure::Unsuitable(vec![line.to_owned()]));
    }
    let plan = load::plan(&migration).await?;
    let finisher = Finisher::open(&migration.target.uri, &migration.target.schema).await?;
    let failed = |error: std::io::Error| {
        let doing = format!("writing {}", arguments.out.display());
        Failure::from(Error::new(Kind::Unsuitable, doing, error.to_string()))
    };
    let mut out: Box<dyn Write> = match arguments.out.to_str() {
        Some("-") => Box::new(std::io::stdout()),
        _ => Box::new(BufWriter::new(std::fs::File::create(&arguments.out).map_err(failed)?)),
    };
    for (rule, candidates) in wanted {
        let schema = rule.schema.as_deref().unwrap_or(&migration.target.schema);
        let name = &rule.into.value;
        let spec = plan.tables.iter().find(|spec| spec.table.schema == schema && spec.table.name == *name);
        let Some(spec) = spec else { continue };
        let key: Vec<&str> =
            spec.key.iter().map(|at| spec.table.columns[spec.columns[*at]].name.as_str()).collect();
        let same: Vec<String> = candidates.same.iter().map(|name| name.value.clone()).collect();
        let columns: Vec<&str> = key
            .iter()
            .copied()
            .chain([candidates.near.value.as_str()])
            .chain(same.iter().map(String::as_str))
            .collect();
        let texts = finisher.texts(schema, name, &columns, &key).await?;
        let rows: Vec<Row> = texts
            .into_iter()
            .map(|mut texts| {
                let mut rest = texts.split_off(key.len());
                let same = rest.split_off(1);
                Row { key: texts.join(" "), near: rest.concat(), same }
            })
            .collect();
        let found = pairs(&rows, candidates.within, arguments.most);
        out.write_all(header(&key.join(" "), &candidates.near.value, &same).as_bytes()).map_err(failed)?;
        let table = format!("{schema}.{name}");
        for pair in &found {
            out.write_all(line(&table, *pair, &rows).as_bytes()).map_err(failed)?;
        }
        let more = if found.len() >= arguments.most { ", and there may be more (`--most`)" } else { "" };
        // Where stderr is closed nobody reads it.
        let _ = writeln!(
            std::io::stderr(),
            "{table}: {} candidates among {} rows{more}",
            found.len(),
            rows.len()
        );
    }
    out.flush().map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
