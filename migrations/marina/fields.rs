//! A record as the API answers it, a column at a time, in the text that Postgres prints.

use bson::Bson;
use serde_json::Value;

use crate::json::Json;
use crate::rendering::Number;
use crate::{Error, Ids, Result};

pub(super) type Cell = Option<String>;

/// A record, or a part of one.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) table: &'a str,
    pub(super) value: &'a Value,
}

impl<'a> Fields<'a> {
    fn wrong(&self, title: &str, what: &str) -> Error {
        Error::Unexpected(format!("{}: `{title}` {what}", self.table))
    }

    /// What stands there; null and absent are one.
    fn get(&self, title: &str) -> Option<&'a Value> {
        self.value.get(title).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, title: &str) -> Result<Cell> {
        match self.get(title) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(title, "is not text")),
        }
    }

    /// Without blanks at the ends.
    pub(super) fn trimmed(&self, title: &str) -> Result<Cell> {
        Ok(self.text(title)?.map(|text| text.trim().to_owned()))
    }

    /// Trimmed, and null where nothing is left.
    pub(super) fn filled(&self, title: &str) -> Result<Cell> {
        Ok(self.trimmed(title)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn lower(&self, title: &str) -> Result<Cell> {
        Ok(self.text(title)?.map(|text| text.to_lowercase()))
    }

    /// An e-mail address.
    pub(super) fn address(&self, title: &str) -> Result<Cell> {
        Ok(self.filled(title)?.map(|text| text.to_lowercase()))
    }

    pub(super) fn or(&self, title: &str, otherwise: &str) -> Result<Cell> {
        Ok(self.text(title)?.or_else(|| Some(otherwise.to_owned())))
    }

    pub(super) fn whole(&self, title: &str) -> Result<Cell> {
        match self.get(title) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number.to_string())),
                None => Err(self.wrong(title, "is not a whole number")),
            },
        }
    }

    /// A number, or text that is one, with so many digits after the point.
    pub(super) fn numeric(&self, title: &str, scale: usize) -> Result<Cell> {
        let Some(value) = self.get(title) else { return Ok(None) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let number = Number::parse(&text).ok_or_else(|| self.wrong(title, "is not a number"))?;
        Ok(Some(number.plain(Some(scale))))
    }

    pub(super) fn boolean(&self, title: &str) -> Result<Cell> {
        match self.get(title) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value.to_string())),
            Some(_) => Err(self.wrong(title, "is not a boolean")),
        }
    }

    /// A moment in UTC, of whole seconds: with a blank and an offset in a column, with `T` and `Z` inside JSON.
    pub(super) fn moment(&self, title: &str) -> Result<Cell> {
        let Some(text) = self.text(title)? else { return Ok(None) };
        let clock = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"));
        let clock = clock.filter(|clock| clock.len() == 19 && clock.is_ascii());
        let clock = clock.ok_or_else(|| self.wrong(title, "is no moment in UTC"))?;
        Ok(Some(format!("{} {}+00", &clock[..10], &clock[11..])))
    }

    /// One label for another; what is not among them becomes `unknown`.
    pub(super) fn label(&self, title: &str, labels: &[(&str, &str)], unknown: Option<&str>) -> Result<Cell> {
        let Some(text) = self.text(title)? else { return Ok(None) };
        let label = labels.iter().find(|(from, _)| *from == text).map(|(_, to)| *to);
        Ok(label.or(unknown).map(str::to_owned))
    }

    pub(super) fn json(&self, title: &str) -> Result<Cell> {
        let Some(value) = self.get(title) else { return Ok(None) };
        let json = Json::parse(&value.to_string()).ok_or_else(|| self.wrong(title, "is no JSON"))?;
        Ok(Some(json.canonical()))
    }

    /// The choices of a column that allows several, each once, in small letters.
    pub(super) fn choices(&self, title: &str) -> Result<Vec<String>> {
        let text = self.text(title)?.unwrap_or_default();
        Ok(text.split(',').filter(|choice| !choice.is_empty()).map(str::to_lowercase).collect())
    }

    /// What is inside a column; nothing where that is null.
    pub(super) fn inside(&self, title: &str) -> Fields<'a> {
        Fields { table: self.table, value: self.value.get(title).unwrap_or(&Value::Null) }
    }

    /// The elements of a list with the identifiers that their own keys give them, and their places, counted from one.
    pub(super) fn children(&self, ids: &Ids, title: &str, by: &str) -> Result<Vec<(Fields<'a>, Cell, Cell)>> {
        let id = self.id()?;
        let items = self.get(title).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut children = Vec::new();
        for (at, value) in items.iter().enumerate() {
            let child = Fields { table: self.table, value };
            let key = child.text(by)?.ok_or_else(|| self.wrong(title, "has an element without its key"))?;
            let row = ids.element(&collection(self.table), &Bson::Int64(id), title, &Bson::String(key))?;
            children.push((child, Some(row.to_string()), Some((at + 1).to_string())));
        }
        Ok(children)
    }

    pub(super) fn id(&self) -> Result<i64> {
        super::base::number(self.value)
    }

    /// The number of the record that a link to one leads to.
    pub(super) fn link(&self, title: &str) -> Result<Option<i64>> {
        self.get(title).map(super::base::number).transpose()
    }
}

/// The name of a table in the migration file.
pub(super) fn collection(table: &str) -> String {
    format!("base.{table}")
}
