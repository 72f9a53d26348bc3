//! Columns that are written as text: which texts their types refuse.

use super::Sink;
use crate::error::{Error, Kind, Result};
use crate::postgres::error::explain;
use crate::postgres::target::catalog::Type;
use crate::postgres::target::shape;

impl Sink {
    /// Those of the texts that the type's input function refuses. It is asked about all of them, then about halves.
    pub async fn refused(&mut self, kind: &Type, texts: Vec<String>) -> Result<Vec<String>> {
        self.tidy().await?;
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
            let error = self.of_texts(explain(doing(), &error));
            match part {
                _ if error.kind != Kind::Data => return Err(error),
                [] => {}
                [one] => refused.push(one.clone()),
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    open.extend([second, first]);
                }
            }
        }
        Ok(refused)
    }

    /// Some types say "syntax error" or "internal error" of a text that they cannot read. Our statements have been prepared by then,
    /// so it is of no other syntax.
    pub(super) fn of_texts(&self, mut error: Error) -> Error {
        const SAID: [&str; 2] = ["42601", "XX000"];
        let said = error.code.as_deref().is_some_and(|code| SAID.contains(&code));
        if said && self.specs.iter().any(|spec| spec.shape.is_some()) {
            error.kind = Kind::Data;
        }
        error
    }
}
