//! Topic names from the template `{source}.{schema}.{table}`, and the refusal of two tables that meet in one by accident.
//!
//! Kafka takes letters, digits, `.`, `_` and `-`, at most 249 of them, and neither `.` nor `..`
//! (`org.apache.kafka.common.internals.Topic`). Everything else becomes `_`, one per character, as Debezium does.

use std::collections::HashMap;
use std::fmt;

use crate::schema::Table;

/// Longest topic name that Kafka takes.
pub const TOPIC_NAME_MAX: usize = 249;

/// A table without a topic of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicError {
    /// Two tables lead to the same topic, although the template tells them apart.
    Shared {
        /// The topic.
        topic: String,
        /// `schema.table` that came first.
        first: String,
        /// `schema.table` that came second.
        second: String,
    },
    /// A name that Kafka refuses.
    Invalid {
        /// The name.
        topic: String,
        /// `schema.table`.
        table: String,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared {
                topic,
                first,
                second,
            } => write!(
                f,
                "tables {first} and {second} would share topic {topic}, because Kafka forbids characters of their names: exclude one of them \
                 in source.tables"
            ),
            Self::Invalid { topic, table } => write!(
                f,
                "table {table} leads to topic {topic:?}, which Kafka refuses (1 to {TOPIC_NAME_MAX} characters, not . or ..): change kafka.topic \
                 or exclude the table in source.tables"
            ),
        }
    }
}

impl std::error::Error for TopicError {}

/// Names topics and remembers which table each belongs to.
#[derive(Debug, Clone)]
pub struct Topics {
    template: Box<str>,
    source: Box<str>,
    /// By topic: what the template tells tables apart by, and the table that came first.
    owners: HashMap<String, (String, String)>,
}

impl Topics {
    /// Names for `source` after `template`, in which `{source}`, `{schema}` and `{table}` are replaced.
    #[must_use]
    pub fn new(template: &str, source: &str) -> Self {
        Self {
            template: template.into(),
            source: source.into(),
            owners: HashMap::new(),
        }
    }

    /// The topic of a table.
    ///
    /// # Errors
    /// A name that Kafka refuses, or one that belongs to another table already: a template without `{table}` (or `{schema}`) brings
    /// tables together on purpose, replaced characters do so by accident.
    pub fn topic(&mut self, table: &Table) -> Result<String, TopicError> {
        let topic = topic_name(&self.template, &self.source, table);
        let name = format!("{}.{}", table.schema, table.name);
        if topic.is_empty() || topic.len() > TOPIC_NAME_MAX || topic == "." || topic == ".." {
            return Err(TopicError::Invalid { topic, table: name });
        }
        // NUL stands in no identifier, so this tells `a.b` + `c` from `a` + `b.c`.
        let mut identity = String::new();
        for (placeholder, part) in [("{schema}", &table.schema), ("{table}", &table.name)] {
            if self.template.contains(placeholder) {
                identity.push_str(part);
            }
            identity.push('\0');
        }
        match self.owners.get(&topic) {
            Some((owner, first)) if *owner != identity => Err(TopicError::Shared {
                topic,
                first: first.clone(),
                second: name,
            }),
            Some(_) => Ok(topic),
            None => {
                self.owners.insert(topic.clone(), (identity, name));
                Ok(topic)
            }
        }
    }
}

/// `template` with its placeholders replaced, and every character that Kafka forbids by `_`.
#[must_use]
pub fn topic_name(template: &str, source: &str, table: &Table) -> String {
    let known = [
        ("{source}", source),
        ("{schema}", &*table.schema),
        ("{table}", &*table.name),
    ];
    let mut name = String::with_capacity(
        template.len() + source.len() + table.schema.len() + table.name.len(),
    );
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        name.push_str(&rest[..open]);
        rest = &rest[open..];
        match known
            .iter()
            .find(|(placeholder, _)| rest.starts_with(placeholder))
        {
            Some((placeholder, value)) => {
                name.push_str(value);
                rest = &rest[placeholder.len()..];
            }
            None => {
                name.push('{');
                rest = &rest[1..];
            }
        }
    }
    name.push_str(rest);
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Columns;

    fn table(schema: &str, name: &str) -> Table {
        Table {
            version: 0,
            schema: schema.into(),
            name: name.into(),
            key: Box::default(),
            columns: Columns::MySql(Box::default()),
        }
    }

    #[test]
    fn forbidden_characters_become_underscores() {
        let name = |template, schema, of| topic_name(template, "shop", &table(schema, of));
        assert_eq!(
            name("{source}.{schema}.{table}", "a b", "tü$"),
            "shop.a_b.t__"
        );
        assert_eq!(
            name("all-{source}-{nothing}", "a", "b"),
            "all-shop-_nothing_"
        );
        // A name that looks like a placeholder is not replaced again.
        assert_eq!(name("{schema}.{table}", "{table}", "t"), "_table_.t");
    }

    #[test]
    fn tables_that_meet_by_accident_are_refused() {
        let mut topics = Topics::new("{source}.{schema}.{table}", "shop");
        assert_eq!(topics.topic(&table("a", "x$y")).unwrap(), "shop.a.x_y");
        assert_eq!(topics.topic(&table("a", "x$y")).unwrap(), "shop.a.x_y");
        let error = topics.topic(&table("a", "x#y")).unwrap_err();
        assert!(error.to_string().contains("a.x$y and a.x#y"), "{error}");
        topics.topic(&table("a.b", "c")).unwrap();
        assert!(topics.topic(&table("a", "b.c")).is_err());

        let mut one = Topics::new("everything", "shop");
        assert_eq!(one.topic(&table("a", "b")), one.topic(&table("c", "d")));
        let mut by_table = Topics::new("{table}", "shop");
        assert_eq!(
            by_table.topic(&table("a", "b")),
            by_table.topic(&table("c", "b"))
        );
        for refused in ["..", &"x".repeat(250)] {
            let error = by_table.topic(&table("a", refused)).unwrap_err();
            assert!(matches!(error, TopicError::Invalid { .. }));
        }
    }
}
