//! Counting the rows of an event that comes in pieces and is never held whole, for rows of which nothing but their number is wanted.
//!
//! ```text
//! | head: needed whole | rows: any pieces |            MariaDB's compressed ones: | head | rows, a zlib stream in any pieces |
//! ```
//! It gets past rows as [`super::RowWalker`] does, with a length prefix and the NULL bits of one image as all that it remembers.

use flate2::{Decompress, FlushDecompress, Status};

use super::super::column::Column;
use super::super::event::{Format, Header, Kind};
use super::super::payload::{Compressed, plain_kind};
use super::super::value::{StoredWidth, stored_width};
use super::{Rows, RowsKind, bit, json_columns};
use crate::{DecodeError, DecodeErrorKind};

/// Expanded bytes that are there at a time.
const EXPANDED: usize = 32 << 10;

/// See the module.
#[derive(Debug)]
pub struct RowCounter {
    /// Bytes of the head that are still to come.
    head: usize,
    inflater: Option<Box<Inflater>>,
    walk: Walk,
}

impl RowCounter {
    /// The table that a ROWS event is of; `event` is its beginning.
    ///
    /// # Errors
    /// As [`RowCounter::new`].
    pub fn table_id(format: &Format, event: &[u8]) -> Result<u64, DecodeError> {
        head(format, event).map(|rows| rows.table_id)
    }

    /// Of the ROWS event, compressed or not, that begins with `event` and is of a table with `columns`.
    ///
    /// # Errors
    /// `event` is too short to hold the head (`Truncated`: try again with more), or the head is malformed, or of another number of
    /// columns.
    pub fn new(format: &Format, event: &[u8], columns: &[Column]) -> Result<Self, DecodeError> {
        let header = Header::parse(event)?;
        let rows = head(format, event)?;
        if columns.len() != rows.column_count {
            let value = rows.column_count as u64;
            let kind = DecodeErrorKind::Invalid { value };
            return Err(DecodeError::new("ROWS column count", 19, kind));
        }
        let image = |span: crate::Span, partial| {
            let present = span.of(event)?;
            let held = (0..columns.len()).filter(|index| bit(present, *index));
            Some(ImagePlan {
                // COLUMNS_MAX columns at most.
                columns: held.map(|index| index as u16).collect(),
                partial,
            })
        };
        let before = image(rows.columns_before, false);
        let after = image(rows.columns_after, rows.partial);
        let takes_nothing = |image: &ImagePlan| image.columns.is_empty();
        let empty_row = rows.kind == RowsKind::Write
            && rows.column_count > 0
            && after.as_ref().is_some_and(takes_nothing);
        let (head, inflater) = match is_compressed(header.kind) {
            false => (rows.rows_at, None),
            true => {
                let compressed = Compressed::parse(format, header, event)?;
                let inflater = Inflater::new(&compressed);
                (compressed.stream_at(), Some(Box::new(inflater)))
            }
        };
        Ok(Self {
            head,
            inflater,
            walk: Walk {
                widths: columns.iter().map(|it| stored_width(&it.kind)).collect(),
                images: before.into_iter().chain(after).collect(),
                json_bytes: json_columns(columns).div_ceil(8),
                at: rows.rows_at as u64,
                row_at: 0,
                image: 0,
                nulls: Vec::new(),
                state: State::Row,
                rows: 0,
                empty_row,
            },
        })
    }

    /// Takes what comes next of the event, from its first byte on and without its checksum.
    ///
    /// # Errors
    /// Rows that are malformed, or a corrupt stream. Nothing more is to be fed then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let head = self.head.min(bytes.len());
        self.head -= head;
        let bytes = bytes.get(head..).unwrap_or_default();
        match &mut self.inflater {
            None => self.walk.feed(bytes),
            Some(inflater) => inflater.feed(bytes, &mut self.walk),
        }
    }

    /// How many rows the event has, all of which was fed.
    ///
    /// # Errors
    /// It ends inside a row or before the compressed stream does.
    pub fn finish(self) -> Result<u64, DecodeError> {
        if let Some(inflater) = &self.inflater {
            inflater.finish()?;
        }
        self.walk.finish()
    }
}

const fn is_compressed(kind: Kind) -> bool {
    plain_kind(kind).0 != kind.0
}

/// Everything before the rows.
fn head<'a>(format: &Format, event: &'a [u8]) -> Result<Rows<'a>, DecodeError> {
    let kind = Header::parse(event)?.kind;
    Rows::parse(format, plain_kind(kind), event)
}

/// What one image of every row is like.
#[derive(Debug)]
struct ImagePlan {
    /// The columns that it holds.
    columns: Box<[u16]>,
    /// Whether options and partial JSON columns stand before it.
    partial: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two rows.
    Row,
    /// Between two images of a row.
    Image,
    Options,
    /// So many bytes of the bitmap of partial JSON columns are to come.
    PartialBits(usize),
    NullBits,
    /// The image's column of this number comes.
    Value(usize),
    /// Its length is being read.
    Length {
        nth: usize,
        bytes: u8,
        have: u8,
        length: u32,
    },
    /// So many bytes of it are to come.
    Rest {
        nth: usize,
        left: usize,
    },
}

#[derive(Debug)]
struct Walk {
    /// Of the table's columns.
    widths: Box<[StoredWidth]>,
    images: Box<[ImagePlan]>,
    json_bytes: usize,
    /// Where it stands in the event, expanded where it is compressed, and where the row began.
    at: u64,
    row_at: u64,
    /// Number of the image in its row.
    image: usize,
    nulls: Vec<u8>,
    state: State,
    rows: u64,
    /// Whether an event without a byte of rows has one: an INSERT of nothing but defaults into a minimal image.
    empty_row: bool,
}

impl Walk {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), DecodeError> {
        self.empty_row &= bytes.is_empty();
        while let Some(used) = self.step(bytes)? {
            bytes = bytes.get(used..).unwrap_or_default();
            self.at += used as u64;
        }
        Ok(())
    }

    /// One step, and how many bytes it took; `None` where it needs some and there are none.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        let first = bytes.first().copied();
        let columns = self.images.get(self.image).map(|image| &*image.columns);
        let (next, used) = match (self.state, first) {
            (State::Row, None) => return Ok(None),
            (State::Row, Some(_)) => {
                self.row_at = self.at;
                self.image = 0;
                (State::Image, 0)
            }
            (State::Image, _) => match self.images.get(self.image) {
                None if self.at == self.row_at => {
                    return Err(self.truncated("ROWS row without columns"));
                }
                None => {
                    self.rows += 1;
                    (State::Row, 0)
                }
                Some(image) => {
                    self.nulls.clear();
                    match image.partial {
                        true => (State::Options, 0),
                        false => (State::NullBits, 0),
                    }
                }
            },
            (State::Options, Some(0)) => (State::NullBits, 1),
            (State::Options, Some(1)) => (State::PartialBits(self.json_bytes), 1),
            (State::Options, Some(other)) => {
                let kind = DecodeErrorKind::Invalid {
                    value: other.into(),
                };
                return Err(DecodeError::new("ROWS value options", self.at, kind));
            }
            (State::PartialBits(0), _) => (State::NullBits, 0),
            (State::PartialBits(left), Some(_)) => {
                let used = left.min(bytes.len());
                (State::PartialBits(left - used), used)
            }
            (State::NullBits, _) => {
                let length = columns.map_or(0, <[u16]>::len).div_ceil(8);
                let missing = length - self.nulls.len();
                if missing == 0 {
                    (State::Value(0), 0)
                } else if bytes.is_empty() {
                    return Ok(None);
                } else {
                    let used = missing.min(bytes.len());
                    self.nulls.extend(bytes.iter().take(used));
                    (State::NullBits, used)
                }
            }
            (State::Value(nth), _) => {
                let column = columns.and_then(|it| it.get(nth)).copied();
                (self.value(column, nth), 0)
            }
            (
                State::Length {
                    nth,
                    bytes,
                    have,
                    length,
                },
                _,
            ) if have == bytes => {
                let left = length as usize;
                (State::Rest { nth, left }, 0)
            }
            (
                State::Length {
                    nth,
                    bytes,
                    have,
                    length,
                },
                Some(byte),
            ) => {
                let length = length | u32::from(byte) << (8 * u32::from(have));
                let have = have + 1;
                (
                    State::Length {
                        nth,
                        bytes,
                        have,
                        length,
                    },
                    1,
                )
            }
            (State::Rest { nth, left: 0 }, _) => (State::Value(nth + 1), 0),
            (State::Rest { nth, left }, Some(_)) => {
                let used = left.min(bytes.len());
                let left = left - used;
                (State::Rest { nth, left }, used)
            }
            (
                State::Options | State::PartialBits(_) | State::Length { .. } | State::Rest { .. },
                None,
            ) => return Ok(None),
        };
        self.state = next;
        Ok(Some(used))
    }

    /// What comes for the image's column of this number, which is the table's `column`; `None` behind the last one.
    fn value(&mut self, column: Option<u16>, nth: usize) -> State {
        let Some(column) = column else {
            self.image += 1;
            return State::Image;
        };
        if bit(&self.nulls, nth) {
            return State::Value(nth + 1);
        }
        match self.widths.get(usize::from(column)) {
            None => State::Value(nth + 1),
            Some(StoredWidth::Fixed(left)) => State::Rest { nth, left: *left },
            Some(StoredWidth::Prefixed(bytes)) => State::Length {
                nth,
                bytes: match bytes {
                    1..=3 => *bytes,
                    _ => 4,
                },
                have: 0,
                length: 0,
            },
        }
    }

    fn finish(&self) -> Result<u64, DecodeError> {
        match self.state {
            State::Row => Ok(self.rows + u64::from(self.empty_row)),
            _ => Err(self.truncated("ROWS image")),
        }
    }

    #[cold]
    fn truncated(&self, what: &'static str) -> DecodeError {
        DecodeError::new(what, self.at, DecodeErrorKind::Truncated { missing: 1 })
    }
}

/// Expands the rows of MariaDB's compressed events.
#[derive(Debug)]
struct Inflater {
    stream: Decompress,
    out: Box<[u8]>,
    kind: Kind,
    /// Where the stream stands in the event.
    at: u64,
    /// Bytes that the event says it has.
    expected: u64,
    ended: bool,
}

impl Inflater {
    fn new(compressed: &Compressed<'_>) -> Self {
        Self {
            stream: Decompress::new(true),
            out: vec![0; EXPANDED].into(),
            kind: compressed.header.kind,
            at: compressed.stream_at() as u64,
            expected: compressed.body_length() as u64,
            ended: false,
        }
    }

    fn feed(&mut self, mut bytes: &[u8], walk: &mut Walk) -> Result<(), DecodeError> {
        while !self.ended {
            let (read, made) = (self.stream.total_in(), self.stream.total_out());
            let status = (self.stream).decompress(bytes, &mut self.out, FlushDecompress::None);
            let status = status.map_err(|_| self.corrupt())?;
            let used = (self.stream.total_in() - read) as usize;
            let made = (self.stream.total_out() - made) as usize;
            if self.stream.total_out() > self.expected {
                return Err(self.corrupt());
            }
            bytes = bytes.get(used..).unwrap_or_default();
            walk.feed(self.out.get(..made).unwrap_or_default())?;
            self.ended = matches!(status, Status::StreamEnd);
            if used == 0 && made == 0 {
                break;
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), DecodeError> {
        match self.ended && self.stream.total_out() == self.expected {
            true => Ok(()),
            false => Err(self.corrupt()),
        }
    }

    #[cold]
    fn corrupt(&self) -> DecodeError {
        let value = self.stream.total_out();
        DecodeError::new(
            self.kind.name(),
            self.at,
            DecodeErrorKind::Invalid { value },
        )
    }
}
