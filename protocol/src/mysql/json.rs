//! MySQL's binary JSON and its text.
//!
//! ```text
//! document  | type 1 | value |
//! object    | count n | bytes | n × { key offset, key length 2 } | n × { type 1, value or offset } | keys | values |
//! array     | count n | bytes | n × { type 1, value or offset } | values |
//! counts, sizes and offsets: 2 bytes in small containers, 4 in large ones; offsets count from the container's count
//! string    | length, 7 bits per byte, low ones first | UTF-8 |
//! opaque    | field type 1 | length as above | bytes |
//! literals and 16-bit integers stand in place of the offset, in large containers 32-bit integers too
//! ```
//! Source: `sql-common/json_binary.h`; the text is that of `Json_wrapper::to_string` (`sql-common/json_dom.cc`) without the blanks
//! after `,` and `:`. Each byte of a document belongs to one value only: whatever claims more than there is, is refused, so text
//! is bounded by the document however its offsets point.

mod diff;
mod opaque;

use std::fmt::Write;

use crate::limits::JSON_DEPTH_MAX;
use crate::{Cursor, DecodeError, DecodeErrorKind};
pub use diff::apply_diffs;

mod code {
    pub(super) const SMALL_OBJECT: u8 = 0x0;
    pub(super) const LARGE_OBJECT: u8 = 0x1;
    pub(super) const SMALL_ARRAY: u8 = 0x2;
    pub(super) const LARGE_ARRAY: u8 = 0x3;
    pub(super) const LITERAL: u8 = 0x4;
    pub(super) const INT16: u8 = 0x5;
    pub(super) const UINT16: u8 = 0x6;
    pub(super) const INT32: u8 = 0x7;
    pub(super) const UINT32: u8 = 0x8;
    pub(super) const INT64: u8 = 0x9;
    pub(super) const UINT64: u8 = 0xa;
    pub(super) const DOUBLE: u8 = 0xb;
    pub(super) const STRING: u8 = 0xc;
    pub(super) const OPAQUE: u8 = 0xf;
}

/// Appends a document's text, without blanks.
///
/// # Errors
/// A malformed document, nesting beyond [`JSON_DEPTH_MAX`]. What was appended by then stays.
pub fn write_text(document: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut budget = Budget::new(document);
    Item::document(document)?.write(&mut budget, 0, out)
}

/// What is left of a document's bytes to be claimed by values.
struct Budget {
    left: usize,
}

impl Budget {
    /// Each byte once, and one for the document itself, which may be empty.
    const fn new(document: &[u8]) -> Self {
        Self {
            left: document.len() + 1,
        }
    }

    fn claim(&mut self, bytes: usize, at: usize) -> Result<(), DecodeError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(DecodeError::new(
                "JSON values that overlap",
                at as u64,
                DecodeErrorKind::Invalid {
                    value: bytes as u64,
                },
            )),
        }
    }
}

/// A value within a document.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    kind: u8,
    /// The value's bytes, up to the end of what contains it.
    bytes: &'a [u8],
    /// Where they stand in the document.
    at: usize,
    /// Whether it stands in its container's entries, which claimed those bytes already.
    inlined: bool,
}

/// A value taken apart one level deep.
#[derive(Debug, Clone, Copy)]
enum Parsed<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    String(&'a str),
    Opaque { field_type: u8, bytes: &'a [u8] },
    Container(Container<'a>),
}

/// An object or array whose counts and entries are known to be there.
#[derive(Debug, Clone, Copy)]
struct Container<'a> {
    object: bool,
    large: bool,
    count: usize,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Item<'a> {
    /// The document itself. An empty one is what `INSERT IGNORE` leaves for NULL in a NOT NULL column: the server reads it as null.
    fn document(document: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match document.split_first() {
            Some((kind, bytes)) => Self {
                kind: *kind,
                bytes,
                at: 1,
                inlined: false,
            },
            None => Self {
                kind: code::LITERAL,
                bytes: &[0],
                at: 0,
                inlined: false,
            },
        })
    }

    fn parse(&self, budget: &mut Budget) -> Result<Parsed<'a>, DecodeError> {
        let mut cursor = Cursor::new(self.bytes);
        let parsed = self.parse_at(&mut cursor);
        let parsed = parsed.map_err(|error| error.shifted(self.at as u64))?;
        if !self.inlined {
            budget.claim(cursor.at(), self.at)?;
        }
        Ok(parsed)
    }

    fn parse_at(&self, cursor: &mut Cursor<'a>) -> Result<Parsed<'a>, DecodeError> {
        Ok(match self.kind {
            code::LITERAL => match cursor.u8("JSON literal")? {
                0 => Parsed::Null,
                1 => Parsed::Bool(true),
                2 => Parsed::Bool(false),
                other => return Err(cursor.invalid("JSON literal", u64::from(other))),
            },
            code::INT16 => Parsed::Int(i64::from(cursor.i16_le("JSON INT16")?)),
            code::UINT16 => Parsed::UInt(u64::from(cursor.u16_le("JSON UINT16")?)),
            code::INT32 => Parsed::Int(i64::from(cursor.i32_le("JSON INT32")?)),
            code::UINT32 => Parsed::UInt(u64::from(cursor.u32_le("JSON UINT32")?)),
            code::INT64 => Parsed::Int(cursor.i64_le("JSON INT64")?),
            code::UINT64 => Parsed::UInt(cursor.u64_le("JSON UINT64")?),
            code::DOUBLE => Parsed::Double(f64::from_le_bytes(*cursor.chunk("JSON DOUBLE")?)),
            code::STRING => {
                let length = variable_length(cursor)?;
                let at = cursor.at() as u64;
                let bytes = cursor.take(length, "JSON string")?;
                Parsed::String(
                    std::str::from_utf8(bytes).map_err(|_| {
                        DecodeError::new("JSON string", at, DecodeErrorKind::Encoding)
                    })?,
                )
            }
            code::OPAQUE => {
                let field_type = cursor.u8("JSON opaque type")?;
                let length = variable_length(cursor)?;
                Parsed::Opaque {
                    field_type,
                    bytes: cursor.take(length, "JSON opaque value")?,
                }
            }
            kind @ (code::SMALL_OBJECT
            | code::LARGE_OBJECT
            | code::SMALL_ARRAY
            | code::LARGE_ARRAY) => {
                let large = kind == code::LARGE_OBJECT || kind == code::LARGE_ARRAY;
                let object = kind == code::SMALL_OBJECT || kind == code::LARGE_OBJECT;
                let width = if large { 4 } else { 2 };
                let count = cursor.uint_le(width, "JSON element count")? as usize;
                let size = cursor.uint_le(width, "JSON container size")? as usize;
                let entry = 1 + width + if object { width + 2 } else { 0 };
                cursor.skip(count.saturating_mul(entry), "JSON entries")?;
                let Some(bytes) = self.bytes.get(..size) else {
                    return Err(cursor.invalid("JSON container size", size as u64));
                };
                Parsed::Container(Container {
                    object,
                    large,
                    count,
                    bytes,
                    at: self.at,
                })
            }
            other => {
                return Err(DecodeError::new(
                    "JSON type",
                    0,
                    DecodeErrorKind::Unsupported {
                        value: u64::from(other),
                    },
                ));
            }
        })
    }

    fn write(
        &self,
        budget: &mut Budget,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let container = match self.parse(budget)? {
            Parsed::Container(container) => container,
            scalar => return scalar.write(self.at, out),
        };
        check_depth(depth, self.at)?;
        out.push(if container.object { b'{' } else { b'[' });
        for index in 0..container.count {
            if index > 0 {
                out.push(b',');
            }
            if container.object {
                write_string(container.key(index, budget)?, out);
                out.push(b':');
            }
            container.item(index)?.write(budget, depth + 1, out)?;
        }
        out.push(if container.object { b'}' } else { b']' });
        Ok(())
    }
}

fn check_depth(depth: usize, at: usize) -> Result<(), DecodeError> {
    if depth < JSON_DEPTH_MAX {
        return Ok(());
    }
    Err(DecodeError::new(
        "JSON nesting",
        at as u64,
        DecodeErrorKind::TooLong {
            length: depth as u64 + 1,
            limit: JSON_DEPTH_MAX as u64,
        },
    ))
}

impl<'a> Container<'a> {
    const fn width(&self) -> usize {
        if self.large { 4 } else { 2 }
    }

    fn key(&self, index: usize, budget: &mut Budget) -> Result<&'a str, DecodeError> {
        let width = self.width();
        let mut cursor = Cursor::new(self.bytes);
        let entry = 2 * width + index * (width + 2);
        let read = |cursor: &mut Cursor<'a>| {
            cursor.skip(entry, "JSON key entry")?;
            let offset = cursor.uint_le(width, "JSON key offset")? as usize;
            let length = usize::from(cursor.u16_le("JSON key length")?);
            let mut cursor = Cursor::new(self.bytes);
            cursor.skip(offset, "JSON key offset")?;
            let bytes = cursor.take(length, "JSON key")?;
            std::str::from_utf8(bytes)
                .map_err(|_| DecodeError::new("JSON key", offset as u64, DecodeErrorKind::Encoding))
        };
        let key = read(&mut cursor).map_err(|error| error.shifted(self.at as u64))?;
        budget.claim(key.len(), self.at)?;
        Ok(key)
    }

    fn item(&self, index: usize) -> Result<Item<'a>, DecodeError> {
        let width = self.width();
        let keys = if self.object {
            self.count * (width + 2)
        } else {
            0
        };
        let entry = 2 * width + keys + index * (1 + width);
        let mut cursor = Cursor::new(self.bytes);
        let mut read = || {
            cursor.skip(entry, "JSON value entry")?;
            let kind = cursor.u8("JSON value type")?;
            let inlined = match kind {
                code::LITERAL | code::INT16 | code::UINT16 => true,
                code::INT32 | code::UINT32 => self.large,
                _ => false,
            };
            let start = if inlined {
                cursor.at()
            } else {
                cursor.uint_le(width, "JSON value offset")? as usize
            };
            let Some(bytes) = self.bytes.get(start..) else {
                return Err(cursor.invalid("JSON value offset", start as u64));
            };
            Ok(Item {
                kind,
                bytes,
                at: self.at + start,
                inlined,
            })
        };
        read().map_err(|error| error.shifted(self.at as u64))
    }
}

impl Parsed<'_> {
    /// Appends a scalar's text; containers are written by who walks them.
    fn write(&self, at: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match *self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(value) => write_display(value, out),
            Self::UInt(value) => write_display(value, out),
            Self::Double(value) => write_double(value, at, out)?,
            Self::String(text) => write_string(text, out),
            Self::Opaque { field_type, bytes } => {
                opaque::write(field_type, bytes, out).map_err(|error| error.shifted(at as u64))?;
            }
            Self::Container(_) => {}
        }
        Ok(())
    }
}

/// A length in 7-bit groups, at most five of them.
fn variable_length(cursor: &mut Cursor<'_>) -> Result<usize, DecodeError> {
    let mut length = 0_u64;
    for group in 0..5 {
        let byte = cursor.u8("JSON length")?;
        length |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            return match u32::try_from(length) {
                Ok(length) => Ok(length as usize),
                Err(_) => Err(cursor.invalid("JSON length", length)),
            };
        }
    }
    Err(cursor.invalid("JSON length", length))
}

/// Formatting into a vector cannot fail.
struct Appender<'a>(&'a mut Vec<u8>);

impl Write for Appender<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn write_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    let _ = write!(Appender(out), "{value}");
}

/// A string in quotes, escaped as the server does (`double_quote` in `sql-common/json_dom.cc`).
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    while let Some(at) = rest.iter().position(special) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else {
            break;
        };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            control => {
                let _ = write!(Appender(out), "\\u{control:04x}");
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// A double as `my_gcvt` writes it (`strings/dtoa.cc`): the shortest digits that read back the same, without exponent while the
/// point stands within 15 places; `.0` where nothing else tells it from an integer.
fn write_double(value: f64, at: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const PLAIN_PLACES: i32 = 15;
    if !value.is_finite() {
        return Err(DecodeError::new(
            "JSON DOUBLE",
            at as u64,
            DecodeErrorKind::Invalid {
                value: value.to_bits(),
            },
        ));
    }
    let mut scientific = Vec::with_capacity(32);
    let _ = write!(Appender(&mut scientific), "{:e}", value.abs());
    let mut digits = [0_u8; 20];
    let mut count = 0;
    let mut exponent = 0_i32;
    let mut parts = scientific.split(|byte| *byte == b'e');
    for (slot, digit) in digits.iter_mut().zip(
        parts
            .next()
            .unwrap_or_default()
            .iter()
            .filter(|byte| byte.is_ascii_digit()),
    ) {
        *slot = *digit;
        count += 1;
    }
    if let Some(text) = parts.next().and_then(|part| std::str::from_utf8(part).ok()) {
        exponent = text.parse().unwrap_or(0);
    }
    let digits = digits.get(..count).unwrap_or_default();
    // Digits before the point; zero and negative for numbers below 0.1.
    let point = if value == 0.0 { 1 } else { exponent + 1 };
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let plain = point > -PLAIN_PLACES && (point <= PLAIN_PLACES || count as i32 > point);
    if !plain {
        let (first, rest) = digits.split_at(1.min(count));
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.push(b'e');
        write_display(point - 1, out);
        return Ok(());
    }
    if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend((point..0).map(|_| b'0'));
        out.extend_from_slice(digits);
        return Ok(());
    }
    let point = point as usize;
    let (whole, fraction) = digits.split_at(point.min(count));
    out.extend_from_slice(whole);
    out.extend((count..point).map(|_| b'0'));
    out.push(b'.');
    out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction });
    Ok(())
}

#[cfg(test)]
mod tests;
