//! What a change means, in words.

use super::count::Rows;
use super::{Change, What};
use crate::config::LOOKED_UP;

impl Change {
    /// Why the collection is copied again.
    pub(super) fn reason(&self) -> String {
        match self.what {
            What::BackAgain => "it is in the file again".to_owned(),
            What::NewTable | What::NewColumn if self.is_looked_up() => {
                "more of its documents is looked up".to_owned()
            }
            What::NewTable => format!("it fills {} as well", self.place()),
            What::Rows => format!("other rows of {} are made", self.place()),
            What::NewColumn => format!("{} is filled", self.place()),
            _ => format!("{} is made by another rule", self.place()),
        }
    }

    /// The column with its table, the table, or the collection.
    fn place(&self) -> String {
        if self.is_looked_up() {
            return format!("what is looked up in {}", self.collection);
        }
        let table = self.table.as_deref().map(|table| table.strip_prefix("public.").unwrap_or(table));
        match (table, &self.column) {
            (Some(table), Some(column)) => format!("{table}.{column}"),
            (Some(table), None) => table.to_owned(),
            (None, _) => self.collection.clone(),
        }
    }

    fn is_looked_up(&self) -> bool {
        self.table.as_deref() == Some(LOOKED_UP)
    }

    /// A line for people. `rows`: of the table, as far as they could be counted.
    pub(crate) fn text(&self, rows: Option<Rows>) -> String {
        let (place, collection) = (self.place(), &self.collection);
        let many = rows.map_or_else(|| "its rows are".to_owned(), |rows| format!("{rows} rows"));
        let again = rows.map_or_else(
            || "its rows are to be written again".to_owned(),
            |_| format!("{many} to be written again"),
        );
        match self.what {
            What::NewTable | What::NewColumn if self.is_looked_up() => {
                format!("{place} is more than before: its documents are read again")
            }
            What::TableOut | What::ColumnOut if self.is_looked_up() => {
                format!("{place} is less than before: nothing has to be done")
            }
            What::NewTable if self.from_now_on => {
                format!(
                    "{place} is filled from {collection} now, with the versions that come: those that were are not made again"
                )
            }
            What::NewColumn | What::Rule if self.from_now_on => {
                let stay =
                    rows.map_or_else(|| "those that are rows".to_owned(), |rows| format!("the {rows} rows"));
                format!("{place}: it holds for versions that come; {stay} stay as they were made")
            }
            What::NewCollection => format!("{place} is new: it is copied"),
            What::BackAgain => format!("{place} is in the file again: it is copied again"),
            What::CollectionOut => {
                format!(
                    "{place} is not in the file any more: its rows stay, and its changes are not followed"
                )
            }
            What::NewTable => {
                format!("{place} is filled from {collection} now: its rows are made by copying it again")
            }
            What::Rows => format!(
                "{place}: other rows are made of {collection}; {again}, those that are not made any more go"
            ),
            What::TableOut => {
                format!("{place} is not filled from {collection} any more: its rows stay as they are")
            }
            What::NewColumn | What::Rule => format!("{place}: {again}"),
            What::ColumnOut => format!("{place} is not filled any more: its values stay as they are"),
        }
    }
}
