//! `keys` of a source: the columns that make a table's record key, in place of those that the catalog says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Selection;
use super::document::{Entry, Node, Value};
use super::error::ConfigError;

/// Key columns by table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<(String, String), Vec<String>>);

impl Keys {
    /// Reads `{ "shop.audit" = ["a", "b"] }`.
    pub(super) fn parse(node: Node, selection: &Selection) -> Result<Self, ConfigError> {
        let Value::Table(entries) = node.value else {
            return Err(ConfigError::new(
                &node.origin,
                "keys is no table, expected { \"shop.audit\" = [\"a\", \"b\"] }",
            ));
        };
        let mut keys = BTreeMap::new();
        for Entry { key, origin, node } in entries {
            let Some((schema, table)) = key.split_once('.') else {
                return Err(ConfigError::new(
                    &origin,
                    format!(
                        "keys: \"{key}\" names no table, expected \"database.table\" or \"schema.table\" in quotes"
                    ),
                ));
            };
            if !selection.includes(schema, table) {
                return Err(ConfigError::new(
                    &origin,
                    format!("keys: table {key} is not captured; `tables` leaves it out"),
                ));
            }
            let Value::Array(items) = node.value else {
                return Err(ConfigError::new(
                    &node.origin,
                    format!("keys: \"{key}\" has no list of columns, expected [\"a\", \"b\"]"),
                ));
            };
            let mut columns: Vec<String> = Vec::with_capacity(items.len());
            for item in items {
                match item.value {
                    Value::Text(name) if !name.is_empty() && !columns.contains(&name) => {
                        columns.push(name);
                    }
                    Value::Text(name) => {
                        return Err(ConfigError::new(
                            &item.origin,
                            format!(
                                "keys: \"{key}\" names column \"{name}\", which is empty or named twice"
                            ),
                        ));
                    }
                    _ => {
                        return Err(ConfigError::new(
                            &item.origin,
                            format!(
                                "keys: \"{key}\" has a column that is no text, expected [\"a\", \"b\"]"
                            ),
                        ));
                    }
                }
            }
            if columns.is_empty() {
                return Err(ConfigError::new(
                    &node.origin,
                    format!("keys: \"{key}\" has no columns; leave it out for the table's own key"),
                ));
            }
            keys.insert((schema.to_owned(), table.to_owned()), columns);
        }
        Ok(Self(keys))
    }

    /// Keys of these tables, as (schema, table, columns).
    #[must_use]
    pub fn new(tables: &[(&str, &str, &[&str])]) -> Self {
        let owned = |(schema, table, columns): &(&str, &str, &[&str])| {
            let columns = columns.iter().map(|&column| column.to_owned()).collect();
            (((*schema).to_owned(), (*table).to_owned()), columns)
        };
        Self(tables.iter().map(owned).collect())
    }

    /// The key columns of a table, in key order; `None` where its own key counts. Ask once per table version.
    #[must_use]
    pub fn of(&self, schema: &str, table: &str) -> Option<&[String]> {
        let name = (schema.to_owned(), table.to_owned());
        self.0.get(&name).map(Vec::as_slice)
    }

    /// Every table that has one, as (schema, table, columns).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        (self.0.iter()).map(|((schema, table), columns)| (&**schema, &**table, &**columns))
    }

    /// A text that differs when the keys do; empty where there are none.
    pub(super) fn text(&self) -> String {
        self.iter()
            .fold(String::new(), |mut text, (schema, table, columns)| {
                // Names may hold any character: their debug form is unambiguous.
                let _ = write!(text, "\n{schema:?}.{table:?}={columns:?}");
                text
            })
    }
}
