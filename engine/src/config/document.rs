//! A TOML document as a tree in which everything knows where it was written, so that any error can say so.

use std::ops::Range;
use std::sync::Arc;

use toml_edit::{Document, Item, Key, TableLike, Value as TomlValue};

use super::error::{ConfigError, Origin, suggestion};
use super::expand::{Variables, expand};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// A kind that no setting has: its name.
    Other(&'static str),
}

/// A text and where it stands.
pub(super) type Placed = (String, Origin);

/// One key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) node: Node,
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Parses a file's text.
pub(super) fn parse(text: &str, file: &Arc<str>) -> Result<Node, ConfigError> {
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
    let origin = |span: Option<Range<usize>>, parent: &Origin| match span {
        Some(span) => Origin::Line(file.clone(), line_of(span.start)),
        None => parent.clone(),
    };
    let top = Origin::Line(file.clone(), 1);
    // The parser's own picture of the place may show a password: only its words are used.
    let document = Document::parse(text).map_err(|e| {
        ConfigError::new(
            &origin(e.span(), &top),
            e.message().trim().replace('\n', "; "),
        )
    })?;
    Ok(Node {
        value: table(document.as_table(), &top, &origin),
        origin: top,
    })
}

type Locate<'a> = dyn Fn(Option<Range<usize>>, &Origin) -> Origin + 'a;

fn table(table: &dyn TableLike, parent: &Origin, locate: &Locate<'_>) -> Value {
    let entry = |(name, item): (&str, &Item)| {
        let key = table.get_key_value(name).and_then(|(key, _)| key.span());
        let origin = locate(key.or_else(|| item.span()), parent);
        Entry {
            key: name.to_owned(),
            node: node(item, &origin, locate),
            origin,
        }
    };
    Value::Table(table.iter().map(entry).collect())
}

fn node(item: &Item, parent: &Origin, locate: &Locate<'_>) -> Node {
    let origin = locate(item.span(), parent);
    let value = match item {
        Item::Value(v) => return value(v, parent, locate),
        Item::Table(t) => table(t, &origin, locate),
        Item::ArrayOfTables(_) => Value::Other("a list of tables"),
        Item::None => Value::Other("nothing"),
    };
    Node { origin, value }
}

fn value(value: &TomlValue, parent: &Origin, locate: &Locate<'_>) -> Node {
    let origin = locate(value.span(), parent);
    let value = match value {
        TomlValue::String(text) => Value::Text(text.value().clone()),
        TomlValue::Integer(number) => Value::Integer(*number.value()),
        TomlValue::Boolean(flag) => Value::Boolean(*flag.value()),
        TomlValue::Float(_) => Value::Other("a number with a fraction"),
        TomlValue::Datetime(_) => Value::Other("a date"),
        TomlValue::Array(list) => Value::Array(
            list.iter()
                .map(|v| self::value(v, &origin, locate))
                .collect(),
        ),
        TomlValue::InlineTable(t) => table(t, &origin, locate),
    };
    Node { origin, value }
}

/// Applies one `--set key=value`: the value is TOML where it can be read so, a text otherwise (`--set kafka.compression=zstd`).
pub(super) fn apply_set(root: &mut Node, set: &str) -> Result<(), ConfigError> {
    let usage = |text: String| ConfigError {
        origin: Origin::Argument("--set"),
        text,
    };
    let (path, text) = set.split_once('=').ok_or_else(|| {
        usage("expected KEY=VALUE, for example --set kafka.compression=zstd".to_owned())
    })?;
    let keys = Key::parse(path.trim()).map_err(|_| {
        usage(format!(
            "\"{}\" is not a key; for example kafka.compression",
            path.trim()
        ))
    })?;
    let origin = Origin::Set(path.trim().into());
    let parsed: Option<TomlValue> = text.trim().parse().ok();
    let node = match &parsed {
        Some(parsed) => value(parsed, &origin, &|_, _| origin.clone()),
        None => Node {
            origin: origin.clone(),
            value: Value::Text(text.to_owned()),
        },
    };
    let mut at = root;
    let (last, parents) = keys
        .split_last()
        .ok_or_else(|| usage("the key is empty".to_owned()))?;
    for key in parents {
        let entries = entries_of(at, &origin)?;
        let index = match entries.iter().position(|entry| entry.key == key.get()) {
            Some(index) => index,
            None => {
                let node = Node {
                    origin: origin.clone(),
                    value: Value::Table(Vec::new()),
                };
                entries.push(Entry {
                    key: key.get().to_owned(),
                    origin: origin.clone(),
                    node,
                });
                entries.len() - 1
            }
        };
        at = &mut entries[index].node;
    }
    let entries = entries_of(at, &origin)?;
    entries.retain(|entry| entry.key != last.get());
    entries.push(Entry {
        key: last.get().to_owned(),
        origin,
        node,
    });
    Ok(())
}

fn entries_of<'a>(node: &'a mut Node, origin: &Origin) -> Result<&'a mut Vec<Entry>, ConfigError> {
    match &mut node.value {
        Value::Table(entries) => Ok(entries),
        other => Err(ConfigError::new(
            origin,
            format!("its parent is {}, not a table", other.kind()),
        )),
    }
}

/// A table being read: its keys are checked first, then taken one by one.
pub(super) struct Section<'a> {
    /// What messages call it, e.g. `[kafka]`.
    name: String,
    pub(super) origin: Origin,
    entries: Vec<Entry>,
    variables: Variables<'a>,
}

impl<'a> Section<'a> {
    /// `known` are the keys it may have, `unavailable` those that the interface names and this version has not.
    pub(super) fn new(
        node: Node,
        name: &str,
        known: &[&str],
        unavailable: &[&str],
        variables: Variables<'a>,
    ) -> Result<Self, ConfigError> {
        let Value::Table(entries) = node.value else {
            return Err(ConfigError::new(
                &node.origin,
                format!("{name} is {}, expected a table", node.value.kind()),
            ));
        };
        for entry in &entries {
            if unavailable.contains(&entry.key.as_str()) {
                return Err(ConfigError::unavailable(
                    &entry.origin,
                    format!("\"{}\" in {name}", entry.key),
                ));
            }
            if !known.contains(&entry.key.as_str()) {
                let text = format!(
                    "unknown key \"{}\" in {name}{}",
                    entry.key,
                    suggestion(&entry.key, known)
                );
                return Err(ConfigError::new(&entry.origin, text));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            origin: node.origin,
            entries,
            variables,
        })
    }

    /// The value of a key, out of the section.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.swap_remove(at).node)
    }

    /// An error about a key that must be there.
    pub(super) fn missing(&self, key: &str, example: &str) -> ConfigError {
        ConfigError::new(
            &self.origin,
            format!("{} needs {key}, for example {key} = {example}", self.name),
        )
    }

    fn mismatch(node: &Node, key: &str, expected: &str) -> ConfigError {
        ConfigError::new(
            &node.origin,
            format!("{key} is {}, expected {expected}", node.value.kind()),
        )
    }

    /// A text as written, variables not yet filled in.
    pub(super) fn raw_text(
        &mut self,
        key: &str,
        example: &str,
    ) -> Result<Option<(String, Origin)>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Node {
                origin,
                value: Value::Text(text),
            }) => Ok(Some((text, origin))),
            Some(node) => Err(Self::mismatch(
                &node,
                key,
                &format!("a text, for example {example}"),
            )),
        }
    }

    /// A text with its variables filled in.
    pub(super) fn text(
        &mut self,
        key: &str,
        example: &str,
    ) -> Result<Option<(String, Origin)>, ConfigError> {
        let Some((text, origin)) = self.raw_text(key, example)? else {
            return Ok(None);
        };
        let text = expand(&text, self.variables).map_err(|e| ConfigError::new(&origin, e))?;
        Ok(Some((text, origin)))
    }

    /// A list of texts with their variables filled in; one text alone is a list of one.
    pub(super) fn texts(
        &mut self,
        key: &str,
        example: &str,
    ) -> Result<Option<(Vec<Placed>, Origin)>, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let expected = format!("a list of texts, for example {example}");
        let list = match node.value {
            Value::Array(list) => list,
            Value::Text(_) => vec![node.clone()],
            _ => return Err(Self::mismatch(&node, key, &expected)),
        };
        let mut texts = Vec::with_capacity(list.len());
        for item in list {
            let Value::Text(text) = &item.value else {
                return Err(Self::mismatch(
                    &item,
                    &format!("an item of {key}"),
                    &expected,
                ));
            };
            let text =
                expand(text, self.variables).map_err(|e| ConfigError::new(&item.origin, e))?;
            texts.push((text, item.origin));
        }
        Ok(Some((texts, node.origin)))
    }

    /// A whole number within bounds. Texts are read too: `${NAME}` can only stand in one.
    pub(super) fn integer(
        &mut self,
        key: &str,
        bounds: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<(i64, Origin)>, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let number = match &node.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) => {
                let text =
                    expand(text, self.variables).map_err(|e| ConfigError::new(&node.origin, e))?;
                text.trim().parse().ok()
            }
            _ => None,
        };
        match number {
            Some(number) if bounds.contains(&number) => Ok(Some((number, node.origin))),
            Some(number) => Err(ConfigError::new(
                &node.origin,
                format!(
                    "{key} is {number}, expected {} to {}",
                    bounds.start(),
                    bounds.end()
                ),
            )),
            None => Err(Self::mismatch(&node, key, "a whole number")),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Node {
                value: Value::Boolean(flag),
                ..
            }) => Ok(Some(flag)),
            Some(node) => Err(Self::mismatch(&node, key, "true or false")),
        }
    }

    /// A size within bounds: `"32MiB"`, or a number of bytes.
    pub(super) fn size(
        &mut self,
        key: &str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<(usize, Origin)>, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let size = match &node.value {
            Value::Integer(number) => {
                usize::try_from(*number).map_err(|_| format!("{key} is {number}, expected a size"))
            }
            Value::Text(text) => {
                expand(text, self.variables).and_then(|text| super::size::parse(&text))
            }
            _ => return Err(Self::mismatch(&node, key, "a size, for example \"32MiB\"")),
        }
        .map_err(|e| ConfigError::new(&node.origin, e))?;
        if !bounds.contains(&size) {
            let show = super::size::show;
            let text = format!(
                "{key} is {}, expected {} to {}",
                show(size),
                show(*bounds.start()),
                show(*bounds.end())
            );
            return Err(ConfigError::new(&node.origin, text));
        }
        Ok(Some((size, node.origin)))
    }

    /// One of some words. `later` are words of the interface that this version has not.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Result<Option<T>, ConfigError> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let example = format!("\"{}\"", known.first().copied().unwrap_or_default());
        let Some((text, origin)) = self.text(key, &example)? else {
            return Ok(None);
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        if later.contains(&text.as_str()) {
            return Err(ConfigError::unavailable(
                &origin,
                format!("{key} = \"{text}\""),
            ));
        }
        Err(ConfigError::new(
            &origin,
            format!(
                "{key} = \"{text}\" is not known{}",
                suggestion(&text, &known)
            ),
        ))
    }
}
