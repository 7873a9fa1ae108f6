//! PostgreSQL's values as JSON (docs/formats.md, "Types").

use protocol::postgres::array::{Token, Tokens, unescape};
use protocol::postgres::hstore::{Pairs, Quoted};
use protocol::postgres::{Array, ColumnType, value};
use protocol::{DecodeError, DecodeErrorKind};

use crate::encode::binary::write_base64;
use crate::encode::number::{write_double, write_float, write_uint};
use crate::encode::text::{is_plain, write_key_string, write_string};

use super::temporal::{
    write_date, write_interval, write_time, write_time_tz, write_timestamp, write_timestamp_tz,
};

/// Writes values; keeps buffers for those that take two steps.
#[derive(Debug, Default)]
pub(super) struct ValueWriter {
    /// A value on its way: as bytes, or as text that still has to be quoted.
    scratch: Vec<u8>,
    /// An element of an array, or a part of an hstore, without its escapes.
    element: Vec<u8>,
}

impl ValueWriter {
    /// Appends the value that the server's `text` says. `KEY`: strings byte for byte as Jackson writes them.
    #[inline]
    pub(super) fn write<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        kind: &ColumnType,
        text: &[u8],
    ) -> Result<(), DecodeError> {
        match kind {
            ColumnType::Integer => out.extend_from_slice(value::integer(text)?),
            ColumnType::Text if is_plain(text) => write_plain(out, text),
            ColumnType::Timestamp => write_timestamp(out, text)?,
            ColumnType::TimestampTz { digits } => write_timestamp_tz(out, text, *digits)?,
            other => self.write_rarer::<KEY>(out, other, text)?,
        }
        Ok(())
    }

    fn write_rarer<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        kind: &ColumnType,
        text: &[u8],
    ) -> Result<(), DecodeError> {
        match kind {
            ColumnType::Integer => out.extend_from_slice(value::integer(text)?),
            ColumnType::Boolean => write_boolean(out, value::boolean(text)?),
            ColumnType::Real => write_float(out, value::float(text)?),
            ColumnType::Double => write_double(out, value::float(text)?),
            ColumnType::Numeric => write_plain(out, value::numeric(text)?),
            ColumnType::Money { digits } => {
                out.push(b'"');
                value::money(text, *digits, out)?;
                out.push(b'"');
            }
            ColumnType::Bytea => {
                self.scratch.clear();
                value::bytea(text, &mut self.scratch)?;
                write_base64(out, &self.scratch);
            }
            ColumnType::Bit { width: 1 } if text == b"0" || text == b"1" => {
                write_boolean(out, text == b"1");
            }
            ColumnType::Bit { .. } | ColumnType::VarBit => {
                self.scratch.clear();
                value::bits(text, &mut self.scratch)?;
                write_base64(out, &self.scratch);
            }
            ColumnType::Date => write_date(out, text)?,
            ColumnType::Time => write_time(out, text)?,
            ColumnType::TimeTz => write_time_tz(out, text)?,
            ColumnType::Timestamp => write_timestamp(out, text)?,
            ColumnType::TimestampTz { digits } => write_timestamp_tz(out, text, *digits)?,
            ColumnType::Interval => write_interval(out, text)?,
            ColumnType::Point => write_point(out, text)?,
            ColumnType::Geometry => self.write_geometry(out, text)?,
            ColumnType::Vector => write_vector(out, text)?,
            ColumnType::Hstore => self.write_hstore::<KEY>(out, text)?,
            ColumnType::Array(array) => self.write_array::<KEY>(out, array, text)?,
            _ => write_str::<KEY>(out, utf8(text)?),
        }
        Ok(())
    }

    /// `{"wkb":…,"srid":…}`; the bytes are EWKB, as Debezium's are.
    fn write_geometry(&mut self, out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
        self.scratch.clear();
        let srid = value::geometry(text, &mut self.scratch)?;
        write_wkb(out, &self.scratch, srid.filter(|srid| *srid != 0));
        Ok(())
    }

    /// A JSON object as a string, keys in the server's order.
    fn write_hstore<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        text: &[u8],
    ) -> Result<(), DecodeError> {
        let Self { scratch, element } = self;
        scratch.clear();
        scratch.push(b'{');
        let mut pairs = Pairs::new(text);
        while let Some((key, value)) = pairs.next_pair()? {
            if scratch.len() > 1 {
                scratch.push(b',');
            }
            write_string(scratch, utf8(plain(key, element))?);
            scratch.push(b':');
            match value {
                Some(value) => write_string(scratch, utf8(plain(value, element))?),
                None => scratch.extend_from_slice(b"null"),
            }
        }
        scratch.push(b'}');
        write_str::<KEY>(out, utf8(scratch)?);
        Ok(())
    }

    /// A JSON array, nested for more than one dimension.
    fn write_array<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        array: &Array,
        text: &[u8],
    ) -> Result<(), DecodeError> {
        let mut tokens = Tokens::new(text, array.delimiter)?;
        let mut is_first = true;
        while let Some(token) = tokens.next_token()? {
            if !is_first && token != Token::Close {
                out.push(b',');
            }
            is_first = token == Token::Open;
            match token {
                Token::Open => out.push(b'['),
                Token::Close => out.push(b']'),
                Token::Null => out.extend_from_slice(b"null"),
                Token::Plain(element) => self.write::<KEY>(out, &array.element, element)?,
                Token::Escaped(escaped) => {
                    let mut element = std::mem::take(&mut self.element);
                    element.clear();
                    unescape(escaped, &mut element);
                    let written = self.write::<KEY>(out, &array.element, &element);
                    self.element = element;
                    written?;
                }
            }
        }
        Ok(())
    }
}

/// Between quotes, as it stands.
#[inline]
fn write_plain(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

#[inline]
fn write_str<const KEY: bool>(out: &mut Vec<u8>, text: &str) {
    if KEY {
        write_key_string(out, text);
    } else {
        write_string(out, text);
    }
}

/// With `client_encoding=UTF8` the server sends nothing else, unless its database has no encoding (`SQL_ASCII`).
fn utf8(text: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to() as u64;
        DecodeError::new("text", at, DecodeErrorKind::Encoding)
    })
}

/// A text without its escapes.
fn plain<'a>(quoted: Quoted<'a>, element: &'a mut Vec<u8>) -> &'a [u8] {
    if !quoted.escaped {
        return quoted.text;
    }
    element.clear();
    unescape(quoted.text, element);
    element
}

fn write_boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// `{"x":…,"y":…,"wkb":…,"srid":null}`: WKB of a point, little-endian (OGC 06-103r4, 8.2).
fn write_point(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    let (x, y) = value::point(text)?;
    let mut wkb = [0; 21];
    wkb[0] = 1;
    wkb[1] = 1;
    wkb[5..13].copy_from_slice(&x.to_le_bytes());
    wkb[13..].copy_from_slice(&y.to_le_bytes());
    out.extend_from_slice(b"{\"x\":");
    write_double(out, x);
    out.extend_from_slice(b",\"y\":");
    write_double(out, y);
    // The rest of the object that `write_wkb` writes.
    let start = out.len();
    write_wkb(out, &wkb, None);
    if let Some(brace) = out.get_mut(start) {
        *brace = b',';
    }
    Ok(())
}

fn write_wkb(out: &mut Vec<u8>, wkb: &[u8], srid: Option<u32>) {
    out.extend_from_slice(b"{\"wkb\":");
    write_base64(out, wkb);
    out.extend_from_slice(b",\"srid\":");
    match srid {
        Some(srid) => write_uint(out, srid.into()),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

fn write_vector(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    out.push(b'[');
    for (n, number) in value::vector(text)?.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_float(out, number?);
    }
    out.push(b']');
    Ok(())
}
