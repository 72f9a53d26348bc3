//! What only the server can judge: which texts a type refuses, and of which inputs an expression fails.

use std::sync::Arc;

use tokio_postgres::Client;

use super::catalog::Type;
use super::parameter::rows as sent;
use super::rows::{Rows, TableSpec};
use super::shape;
use crate::error::{Error, Kind, Result};
use crate::postgres::error::explain;

/// Asks over a connection, outside a transaction.
#[derive(Clone, Copy)]
pub struct Judge<'c> {
    pub(super) client: &'c Client,
    pub(super) specs: &'c [TableSpec],
}

impl Judge<'_> {
    /// Those of the texts that the type's input function refuses. It is asked about all of them, then about halves.
    pub async fn refused(self, kind: &Type, texts: Vec<String>) -> Result<Vec<String>> {
        let doing = || format!("reading text as {}", kind.name);
        let sql = format!(
            "SELECT count(r.value) FROM (SELECT {} AS value FROM unnest($1::text[]) AS v(text)) AS r",
            shape::read("v.text", kind)
        );
        let ask = self.client.prepare(&sql).await.map_err(|error| explain(doing(), &error))?;
        let mut refused = Vec::new();
        let mut open: Vec<&[String]> = vec![&texts];
        while let Some(part) = open.pop() {
            let Err(error) = self.client.query(&ask, &[&part]).await else { continue };
            let error = of_texts(self.specs, explain(doing(), &error));
            if error.kind != Kind::Data {
                return Err(error);
            }
            halve(part, &mut open, |one| refused.push(one.clone()));
        }
        Ok(refused)
    }

    /// Those of the inputs of a computed column of which its expression fails. An input is the fields that it takes, in its order.
    pub async fn failing(
        self,
        index: usize,
        column: usize,
        inputs: Vec<Vec<Vec<u8>>>,
    ) -> Result<Vec<Vec<Vec<u8>>>> {
        let spec = &self.specs[index];
        let doing = || format!("computing a column of {}.{}", spec.table.schema, spec.table.name);
        let found = spec.shape.as_ref().and_then(|shape| {
            let computed = shape.computed().iter().find(|computed| computed.column == column)?;
            Some((shape, computed))
        });
        let Some((shape, computed)) = found else {
            return Err(Error::new(Kind::Bug, doing(), "a column that is not computed"));
        };
        let sql = shape.try_computed(&spec.table, &spec.columns, computed);
        let ask = self.client.prepare(&sql).await.map_err(|error| explain(doing(), &error))?;
        let places = shape.inputs_of(computed);
        let mut failing = Vec::new();
        let mut open: Vec<&[Vec<Vec<u8>>]> = vec![&inputs];
        while let Some(part) = open.pop() {
            let mut rows = Rows::new(Arc::clone(&spec.record), 0);
            for fields in part {
                rows.begin();
                for at in 0..shape.oids().count() {
                    let out = rows.field(at);
                    match places.iter().position(|place| *place == at) {
                        Some(input) => out.extend_from_slice(&fields[input]),
                        None if at == column => out.extend_from_slice(&[0, 0, 0, 1, 1]),
                        None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                    }
                }
                rows.end();
            }
            let Err(error) = self.client.query(&ask, &[&*sent(&ask, 0, &rows)]).await else { continue };
            let error = of_texts(self.specs, explain(doing(), &error));
            if error.kind != Kind::Data {
                return Err(error);
            }
            halve(part, &mut open, |one| failing.push(one.clone()));
        }
        Ok(failing)
    }
}

/// Some types say "syntax error" or "internal error" of a text that they cannot read, and those that are names of something in the
/// database say that there is no such thing. Our statements have been prepared by then, so it is of no other syntax and of no other name.
pub(super) fn of_texts(specs: &[TableSpec], mut error: Error) -> Error {
    const SAID: [&str; 2] = ["42601", "XX000"];
    let said = error.code.as_deref().is_some_and(|code| SAID.contains(&code));
    if said && specs.iter().any(|spec| spec.shape.is_some()) {
        error.kind = Kind::Data;
    }
    const UNKNOWN: [&str; 7] = ["0A000", "3F000", "42602", "42704", "42725", "42883", "42P01"];
    let unknown = error.code.as_deref().is_some_and(|code| UNKNOWN.contains(&code));
    let of_names = |spec: &TableSpec| spec.columns.iter().any(|at| is_name(&spec.table.columns[*at].kind));
    if unknown && specs.iter().any(of_names) {
        error.kind = Kind::Data;
        error.what = "the database knows nothing of the name that a text gives".to_owned();
    }
    error
}

/// The name of something in the database: its input function looks it up.
fn is_name(kind: &Type) -> bool {
    const NAMES: [&str; 11] = [
        "regclass",
        "regcollation",
        "regconfig",
        "regdictionary",
        "regnamespace",
        "regoper",
        "regoperator",
        "regproc",
        "regprocedure",
        "regrole",
        "regtype",
    ];
    NAMES.contains(&kind.base_name.as_str()) || kind.element.as_deref().is_some_and(is_name)
}

/// What failed as a whole is looked at in halves; one alone is what fails.
fn halve<'p, T>(part: &'p [T], open: &mut Vec<&'p [T]>, mut fails: impl FnMut(&T)) {
    match part {
        [] => {}
        [one] => fails(one),
        _ => {
            let (first, second) = part.split_at(part.len() / 2);
            open.extend([second, first]);
        }
    }
}
