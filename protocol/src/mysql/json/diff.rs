//! Partial JSON updates (`binlog_row_value_options=PARTIAL_JSON`): diffs to be applied to the row's value before.
//!
//! ```text
//! { operation 1: 0 replace, 1 insert, 2 remove | path length lenenc, path | not for remove: length lenenc, document } …
//! path: `$`, then `[index]`, `.name` or `."name as JSON string"` each
//! ```
//! Source: `sql/json_diff.cc` (`Json_diff_vector`, `apply_json_diffs`), WL#2955.

use super::{Budget, Item, Parsed, check_depth, write_string};
use crate::mysql::lenenc;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// Applies `diffs` to the binary document `before` and appends the text of the result, as [`super::write_text`] writes it.
///
/// # Errors
/// A malformed document or diff, or a path that the document does not have: the diff belongs to another document.
pub fn apply_diffs(before: &[u8], diffs: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut root = Node::read(before)?;
    let mut cursor = Cursor::new(diffs);
    while !cursor.is_empty() {
        let at = cursor.at() as u64;
        let operation = cursor.u8("JSON diff operation")?;
        let path = lenenc::string(&mut cursor, "JSON diff path")?;
        let legs = legs(path).ok_or(DecodeError::new(
            "JSON diff path",
            at,
            DecodeErrorKind::Encoding,
        ))?;
        let applied = match operation {
            0 | 1 => {
                let value = lenenc::string(&mut cursor, "JSON diff value")?;
                let value_at = (cursor.at() - value.len()) as u64;
                let value = Node::read(value).map_err(|error| error.shifted(value_at))?;
                if operation == 0 {
                    root.replace(&legs, value)
                } else {
                    root.insert(&legs, value)
                }
            }
            2 => root.remove(&legs),
            other => return Err(cursor.invalid("JSON diff operation", u64::from(other))),
        };
        // The depth is bounded by the path's, which may add to the document's own: checked when written.
        applied.ok_or(DecodeError::new(
            "JSON diff path that the document does not have",
            at,
            DecodeErrorKind::Invalid {
                value: u64::from(operation),
            },
        ))?;
    }
    root.write(0, out)
}

/// A document that can be changed. Diffs are rare and documents small: a tree of owned nodes is enough.
enum Node<'a> {
    Object(Vec<(Box<str>, Node<'a>)>),
    Array(Vec<Node<'a>>),
    Scalar(Parsed<'a>, usize),
}

enum Leg {
    Member(Box<str>),
    Cell(usize),
}

impl<'a> Node<'a> {
    fn read(document: &'a [u8]) -> Result<Self, DecodeError> {
        let mut budget = Budget::new(document);
        Self::from_item(Item::document(document)?, &mut budget, 0)
    }

    fn from_item(item: Item<'a>, budget: &mut Budget, depth: usize) -> Result<Self, DecodeError> {
        let container = match item.parse(budget)? {
            Parsed::Container(container) => container,
            scalar => return Ok(Self::Scalar(scalar, item.at)),
        };
        check_depth(depth, item.at)?;
        if container.object {
            let mut members = Vec::new();
            for index in 0..container.count {
                let key = container.key(index, budget)?;
                let value = Self::from_item(container.item(index)?, budget, depth + 1)?;
                members.push((key.into(), value));
            }
            return Ok(Self::Object(members));
        }
        let mut cells = Vec::new();
        for index in 0..container.count {
            cells.push(Self::from_item(container.item(index)?, budget, depth + 1)?);
        }
        Ok(Self::Array(cells))
    }

    fn seek(&mut self, legs: &[Leg]) -> Option<&mut Self> {
        let mut node = self;
        for leg in legs {
            node = match (leg, node) {
                (Leg::Member(name), Self::Object(members)) => {
                    let member = members.iter_mut().find(|(key, _)| key == name);
                    member.map(|(_, value)| value)?
                }
                (Leg::Cell(index), Self::Array(cells)) => cells.get_mut(*index)?,
                // `$[0]` of what is no array is the value itself.
                (Leg::Cell(0), node) => node,
                _ => return None,
            };
        }
        Some(node)
    }

    fn replace(&mut self, legs: &[Leg], value: Self) -> Option<()> {
        *self.seek(legs)? = value;
        Some(())
    }

    fn insert(&mut self, legs: &[Leg], value: Self) -> Option<()> {
        let (last, parents) = legs.split_last()?;
        match (last, self.seek(parents)?) {
            (Leg::Member(name), Self::Object(members)) => {
                // Objects are ordered by the length of their keys, then by bytes.
                let order = |key: &str| (key.len(), key.as_bytes().to_vec());
                let place = members.binary_search_by_key(&order(name), |(key, _)| order(key));
                members.insert(place.err()?, (name.clone(), value));
            }
            (Leg::Cell(index), Self::Array(cells)) => {
                cells.insert((*index).min(cells.len()), value);
            }
            _ => return None,
        }
        Some(())
    }

    fn remove(&mut self, legs: &[Leg]) -> Option<()> {
        let (last, parents) = legs.split_last()?;
        match (last, self.seek(parents)?) {
            (Leg::Member(name), Self::Object(members)) => {
                let index = members.iter().position(|(key, _)| key == name)?;
                members.remove(index);
            }
            (Leg::Cell(index), Self::Array(cells)) if *index < cells.len() => {
                cells.remove(*index);
            }
            _ => return None,
        }
        Some(())
    }

    fn write(&self, depth: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self {
            Self::Scalar(value, at) => return value.write(*at, out),
            Self::Object(members) => {
                check_depth(depth, 0)?;
                out.push(b'{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(key, out);
                    out.push(b':');
                    value.write(depth + 1, out)?;
                }
                out.push(b'}');
            }
            Self::Array(cells) => {
                check_depth(depth, 0)?;
                out.push(b'[');
                for (index, value) in cells.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    value.write(depth + 1, out)?;
                }
                out.push(b']');
            }
        }
        Ok(())
    }
}

/// The legs of a path; `None` when it is none.
fn legs(path: &[u8]) -> Option<Vec<Leg>> {
    let path = std::str::from_utf8(path).ok()?;
    let mut rest = path.strip_prefix('$')?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            legs.push(Leg::Cell(index.parse().ok()?));
            rest = after;
        } else if let Some(after) = rest.strip_prefix(".\"") {
            let (name, after) = quoted(after)?;
            legs.push(Leg::Member(name.into()));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at_checked(end)?;
            if name.is_empty() {
                return None;
            }
            legs.push(Leg::Member(name.into()));
            rest = after;
        }
    }
    Some(legs)
}

/// The JSON string whose opening quote was read, and what follows its closing one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'b' => name.push('\u{8}'),
                'f' => name.push('\u{c}'),
                'n' => name.push('\n'),
                'r' => name.push('\r'),
                't' => name.push('\t'),
                'u' => {
                    let mut unit = || {
                        let mut value = 0;
                        for _ in 0..4 {
                            value = value * 16 + chars.next()?.1.to_digit(16)?;
                        }
                        Some(value as u16)
                    };
                    let first = unit()?;
                    let mut units = vec![first];
                    if (0xd800..0xdc00).contains(&first) {
                        let pair = chars.next()?.1 == '\\' && chars.next()?.1 == 'u';
                        if !pair {
                            return None;
                        }
                        let mut value = 0;
                        for _ in 0..4 {
                            value = value * 16 + chars.next()?.1.to_digit(16)?;
                        }
                        units.push(value as u16);
                    }
                    name.push_str(&String::from_utf16(&units).ok()?);
                }
                other => name.push(other),
            },
            other => name.push(other),
        }
    }
    None
}
