//! MySQL's and MariaDB's values as JSON (docs/formats.md, "Types").

use protocol::mysql::charset::Charset;
use protocol::mysql::{Column, ColumnType, Value, column_compression, json};
use protocol::{Cursor, DecodeError, DecodeErrorKind};

use super::temporal::{TimestampWriter, is_zero, write_date, write_datetime, write_time};
use crate::encode::binary::write_base64;
use crate::encode::error::EncodeErrorKind;
use crate::encode::number::{write_double, write_float, write_int, write_uint};
use crate::encode::text::{is_plain, write_key_string, write_string};

/// Why a value has no text; the caller adds the column's name.
#[derive(Debug)]
pub(super) enum ValueError {
    Decode(DecodeError),
    Label { value: u64, labels: usize },
    JsonBefore,
}

impl ValueError {
    #[cold]
    pub(super) fn of_column(self, column: Box<str>) -> EncodeErrorKind {
        match self {
            Self::Decode(error) => EncodeErrorKind::Value { column, error },
            Self::Label { value, labels } => EncodeErrorKind::Label {
                column,
                value,
                labels,
            },
            Self::JsonBefore => EncodeErrorKind::JsonBefore { column },
        }
    }
}

impl From<DecodeError> for ValueError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// Writes values; keeps what neighbouring rows share and buffers for values that take two steps.
#[derive(Debug)]
pub(super) struct ValueWriter {
    timestamps: TimestampWriter,
    /// A value on its way: unpacked, padded, joined, or as text that still has to be quoted.
    scratch: Vec<u8>,
    /// Longest value that a compressed column may expand to.
    row_max: usize,
    /// Zero dates written as null.
    pub(super) zero_dates: u64,
}

impl ValueWriter {
    pub(super) fn new(row_max: usize) -> Self {
        Self {
            timestamps: TimestampWriter::default(),
            scratch: Vec::new(),
            row_max,
            zero_dates: 0,
        }
    }

    /// Appends `value` of `column`. `KEY`: strings byte for byte as Jackson writes them. `ascii`: see `ColumnTemplate`. `before`: the
    /// same column's value in the before image, for partial JSON.
    #[inline(always)]
    pub(super) fn write<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        column: &Column,
        ascii: bool,
        value: Value<'_>,
        before: Option<Value<'_>>,
    ) -> Result<(), ValueError> {
        match value {
            Value::Int(value) => write_int(out, value),
            Value::UInt(value) => write_uint(out, value),
            Value::Text(bytes) if ascii && is_plain(bytes) => {
                out.push(b'"');
                out.extend_from_slice(bytes);
                out.push(b'"');
            }
            Value::Timestamp(at) if (at.seconds, at.micros) != (0, 0) => {
                let fsp = match column.kind {
                    ColumnType::Timestamp { fsp, .. } => fsp,
                    _ => 6,
                };
                self.timestamps.write(out, at, fsp);
            }
            other => self.write_rarer::<KEY>(out, column, other, before)?,
        }
        Ok(())
    }

    fn write_rarer<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        column: &Column,
        value: Value<'_>,
        before: Option<Value<'_>>,
    ) -> Result<(), ValueError> {
        match value {
            Value::Int(value) => write_int(out, value),
            Value::UInt(value) => write_uint(out, value),
            Value::Float(value) => write_float(out, value),
            Value::Double(value) => write_double(out, value),
            Value::Decimal(value) => {
                out.push(b'"');
                value.write(out)?;
                out.push(b'"');
            }
            Value::Year(year) => write_uint(out, year.into()),
            Value::Bit(bytes) => self.write_bits(out, column, bytes),
            // The only one of its kind, so that it needs no digits in a key.
            Value::Timestamp(_) => self.write_zero(out),
            // In a key null would make one of rows that are several.
            Value::Date(date) if !KEY && is_zero(date) => self.write_zero(out),
            Value::Date(date) => write_date(out, date),
            Value::DateTime(at) if !KEY && is_zero(at.date) => self.write_zero(out),
            Value::DateTime(at) => write_datetime(out, at),
            Value::Time(time) => write_time(out, time),
            Value::Text(bytes) => write_text::<KEY>(out, column, bytes)?,
            Value::Bytes(bytes) => self.write_bytes(out, column, bytes),
            Value::Compressed(bytes) => {
                self.scratch.clear();
                column_compression::inflate(bytes, self.row_max, &mut self.scratch)?;
                match charset(column) {
                    Some(_) => write_text::<KEY>(out, column, &self.scratch)?,
                    None => write_base64(out, &self.scratch),
                }
            }
            Value::Enum(index) => write_label::<KEY>(out, column, index)?,
            Value::Set(bits) => self.write_labels::<KEY>(out, column, bits)?,
            Value::Json(document) => self.write_json::<KEY>(out, document)?,
            Value::JsonDiffs(diffs) => {
                let Some(Value::Json(before)) = before else {
                    return Err(ValueError::JsonBefore);
                };
                self.scratch.clear();
                json::apply_diffs(before, diffs, &mut self.scratch)?;
                write_str::<KEY>(out, utf8(&self.scratch, "JSON text")?);
            }
            Value::Geometry(bytes) => write_geometry(out, column, bytes)?,
            Value::Vector(bytes) => write_vector(out, bytes)?,
            Value::Uuid(bytes) => write_uuid(out, &padded(bytes, "UUID")?),
            Value::Inet4(bytes) => {
                let address = std::net::Ipv4Addr::from(padded::<4>(bytes, "INET4")?);
                push_display(out, format_args!("\"{address}\""));
            }
            Value::Inet6(bytes) => write_inet6(out, padded(bytes, "INET6")?),
        }
        Ok(())
    }

    #[cold]
    fn write_zero(&mut self, out: &mut Vec<u8>) {
        self.zero_dates += 1;
        out.extend_from_slice(b"null");
    }

    /// BIT(1) is a boolean, wider ones are base64 with the least significant byte first.
    fn write_bits(&mut self, out: &mut Vec<u8>, column: &Column, bytes: &[u8]) {
        if matches!(column.kind, ColumnType::Bit { bits: 1 }) {
            let set = bytes.last().is_some_and(|byte| byte & 1 != 0);
            out.extend_from_slice(if set { b"true" } else { b"false" });
        } else {
            self.scratch.clear();
            self.scratch.extend(bytes.iter().rev());
            write_base64(out, &self.scratch);
        }
    }

    /// The server cuts BINARY's trailing zero bytes; they belong to the value.
    fn write_bytes(&mut self, out: &mut Vec<u8>, column: &Column, bytes: &[u8]) {
        match column.kind {
            ColumnType::Binary { width, .. } if bytes.len() < usize::from(width) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(bytes);
                self.scratch.resize(width.into(), 0);
                write_base64(out, &self.scratch);
            }
            _ => write_base64(out, bytes),
        }
    }

    fn write_labels<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        column: &Column,
        bits: u64,
    ) -> Result<(), ValueError> {
        let ColumnType::Set { labels, .. } = &column.kind else {
            return Err(ValueError::Label {
                value: bits,
                labels: 0,
            });
        };
        let mut joined = String::new();
        let mut rest = bits;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let label = labels.get(bit).ok_or(ValueError::Label {
                value: bits,
                labels: labels.len(),
            })?;
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(label);
        }
        write_str::<KEY>(out, &joined);
        Ok(())
    }

    fn write_json<const KEY: bool>(
        &mut self,
        out: &mut Vec<u8>,
        document: &[u8],
    ) -> Result<(), ValueError> {
        self.scratch.clear();
        json::write_text(document, &mut self.scratch)?;
        write_str::<KEY>(out, utf8(&self.scratch, "JSON text")?);
        Ok(())
    }
}

#[inline]
fn write_str<const KEY: bool>(out: &mut Vec<u8>, text: &str) {
    if KEY {
        write_key_string(out, text);
    } else {
        write_string(out, text);
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| {
        DecodeError::new(what, error.valid_up_to() as u64, DecodeErrorKind::Encoding)
    })
}

fn charset(column: &Column) -> Option<&Charset> {
    match &column.kind {
        ColumnType::Char { charset, .. }
        | ColumnType::VarChar { charset, .. }
        | ColumnType::Text { charset, .. } => Some(charset),
        _ => None,
    }
}

fn write_text<const KEY: bool>(
    out: &mut Vec<u8>,
    column: &Column,
    bytes: &[u8],
) -> Result<(), DecodeError> {
    match charset(column) {
        Some(charset) => write_str::<KEY>(out, &charset.decode(bytes)?),
        None => write_str::<KEY>(out, utf8(bytes, "text")?),
    }
    Ok(())
}

fn write_label<const KEY: bool>(
    out: &mut Vec<u8>,
    column: &Column,
    index: u16,
) -> Result<(), ValueError> {
    let labels: &[Box<str>] = match &column.kind {
        ColumnType::Enum { labels, .. } => labels,
        _ => &[],
    };
    let label = match index {
        // What the server keeps of a value that was none of the labels.
        0 => Some(""),
        _ => labels.get(usize::from(index) - 1).map(|label| &**label),
    };
    let label = label.ok_or(ValueError::Label {
        value: index.into(),
        labels: labels.len(),
    })?;
    write_str::<KEY>(out, label);
    Ok(())
}

/// `{"x":…,"y":…,"wkb":…,"srid":…}` for a column declared POINT, without coordinates for others. Null for no bytes at all: what the
/// servers keep in a NOT NULL column that an INSERT leaves out (MariaDB and MySQL 5.6, without a strict `sql_mode`).
fn write_geometry(out: &mut Vec<u8>, column: &Column, bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.is_empty() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let mut cursor = Cursor::new(bytes);
    let srid = cursor.u32_le("geometry SRID")?;
    let wkb = cursor.rest();
    out.push(b'{');
    if matches!(column.kind, ColumnType::Geometry { point: true, .. }) {
        let (x, y) = point(wkb).map_err(|error| error.shifted(4))?;
        out.extend_from_slice(b"\"x\":");
        write_double(out, x);
        out.extend_from_slice(b",\"y\":");
        write_double(out, y);
        out.push(b',');
    }
    out.extend_from_slice(b"\"wkb\":");
    write_base64(out, wkb);
    out.extend_from_slice(b",\"srid\":");
    match srid {
        0 => out.extend_from_slice(b"null"),
        srid => write_uint(out, srid.into()),
    }
    out.push(b'}');
    Ok(())
}

/// A WKB point: byte order 1 (little-endian), type 1, x, y (OGC 06-103r4, 8.2; MySQL writes no other order).
fn point(wkb: &[u8]) -> Result<(f64, f64), DecodeError> {
    let mut cursor = Cursor::new(wkb);
    let order = cursor.u8("WKB byte order")?;
    if order != 1 {
        return Err(cursor.invalid("WKB byte order", order.into()));
    }
    let kind = cursor.u32_le("WKB type")?;
    if kind != 1 {
        return Err(cursor.invalid("WKB type of a POINT column", kind.into()));
    }
    let x = f64::from_bits(cursor.u64_le("WKB x")?);
    let y = f64::from_bits(cursor.u64_le("WKB y")?);
    cursor.finish("WKB point")?;
    Ok((x, y))
}

fn write_vector(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), DecodeError> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        let left = rest.len() as u64;
        let at = (bytes.len() - rest.len()) as u64;
        return Err(DecodeError::new(
            "VECTOR",
            at,
            DecodeErrorKind::TrailingBytes { left },
        ));
    }
    out.push(b'[');
    for (n, number) in numbers.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_float(out, f32::from_le_bytes(*number));
    }
    out.push(b']');
    Ok(())
}

/// The value with the zero bytes that the server cut.
fn padded<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], DecodeError> {
    let mut whole = [0; N];
    match whole.get_mut(..bytes.len()) {
        Some(start) => {
            start.copy_from_slice(bytes);
            Ok(whole)
        }
        None => {
            let left = (bytes.len() - N) as u64;
            Err(DecodeError::new(
                what,
                N as u64,
                DecodeErrorKind::TrailingBytes { left },
            ))
        }
    }
}

/// `123e4567-e89b-12d3-a456-426655440000`
fn write_uuid(out: &mut Vec<u8>, uuid: &[u8; 16]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for (n, byte) in uuid.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
    out.push(b'"');
}

/// As MariaDB's `INET6_NTOA` writes it (`sql/sql_type_inet.cc`, `Inet6::to_string`): the first of the longest runs of zero words as
/// `::`, also a run of one; addresses that stand for IPv4 ones (`::1.2.3.4`, `::ffff:1.2.3.4`) with dots.
fn write_inet6(out: &mut Vec<u8>, address: [u8; 16]) {
    let words = std::net::Ipv6Addr::from(address).segments();
    let (mut gap_at, mut gap_length) = (usize::MAX, 0);
    let mut at = 0;
    while at < 8 {
        let length = words[at..].iter().take_while(|word| **word == 0).count();
        if length > gap_length {
            (gap_at, gap_length) = (at, length);
        }
        at += length.max(1);
    }
    out.push(b'"');
    let mut at = 0;
    while at < 8 {
        if at == gap_at {
            out.extend_from_slice(if at == 0 { b"::" } else { b":" });
            at += gap_length;
        } else if at == 6
            && gap_at == 0
            && (gap_length == 6 || gap_length == 5 && words[5] == 0xffff)
        {
            let [.., a, b, c, d] = address;
            push_display(out, format_args!("{a}.{b}.{c}.{d}"));
            at = 8;
        } else {
            push_display(out, format_args!("{:x}", words[at]));
            at += 1;
            if at < 8 {
                out.push(b':');
            }
        }
    }
    out.push(b'"');
}

fn push_display(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    // Writing to a vector does not fail.
    let _ = out.write_fmt(text);
}
