//! ROWS events: which rows changed, and what is in them.
//!
//! ```text
//! | table id 6 | flags 2 | v2: extra length 2, extra data | column count lenenc | columns before | columns after (updates) | rows |
//! row   (write) | after |   (delete) | before |   (update) | before | after |
//! image | one bit per present column: NULL | values of the columns that are present and not NULL |
//! PARTIAL_UPDATE_ROWS' after image: | options lenenc | if 1: a bit per JSON column of the table | image |
//! ```
//! [`RowWalker`] finds where each row's images are without decoding them; [`Image`] decodes one, [`FullImage`] one that is known to hold
//! every column. None of them allocates.
//! Source: `libs/mysql/binlog/event/rows_event.h`, `sql/rpl_record.cc`.

use super::column::{Column, ColumnType};
use super::event::{Format, HEADER_LENGTH, Kind};
use super::lenenc;
use super::value::{StoredWidth, Value, stored_length, stored_width};
use crate::limits::COLUMNS_MAX;
use crate::{Cursor, DecodeError, DecodeErrorKind, Span};

mod counter;
mod full_image;

pub use counter::RowCounter;
pub use full_image::FullImage;

/// What a ROWS event does to its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    /// INSERT: after images.
    Write,
    /// UPDATE: before and after images.
    Update,
    /// DELETE: before images.
    Delete,
}

/// A ROWS event. Spans count from the event's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows<'a> {
    /// The id that the TABLE_MAP before it gave the table.
    pub table_id: u64,
    /// What happened to the rows.
    pub kind: RowsKind,
    /// Whether this is the statement's last ROWS event: table ids are void after it.
    pub ends_statement: bool,
    /// Whether after images may hold JSON diffs (PARTIAL_UPDATE_ROWS): read them with [`Image::partial`].
    pub partial: bool,
    /// Columns of the table.
    pub column_count: usize,
    /// Which columns the before images hold, a bit each; [`Span::NONE`] for writes.
    pub columns_before: Span,
    /// Which columns the after images hold, a bit each; [`Span::NONE`] for deletes.
    pub columns_after: Span,
    event: &'a [u8],
    rows_at: usize,
}

impl<'a> Rows<'a> {
    const ENDS_STATEMENT: u16 = 1;

    /// Reads the event up to its rows. `event` is the whole event without its checksum.
    pub(super) fn parse(format: &Format, kind: Kind, event: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(event);
        cursor.skip(HEADER_LENGTH, "ROWS header")?;
        let post_header = format.post_header_length(kind);
        let table_id = if post_header == 6 {
            u64::from(cursor.u32_le("ROWS table id")?)
        } else {
            cursor.u48_le("ROWS table id")?
        };
        let flags = cursor.u16_le("ROWS flags")?;
        if post_header == 10 {
            let length = cursor.u16_le("ROWS extra data length")?;
            let Some(more) = length.checked_sub(2) else {
                return Err(cursor.invalid("ROWS extra data length", u64::from(length)));
            };
            cursor.skip(usize::from(more), "ROWS extra data")?;
        }
        let count = lenenc::integer(&mut cursor, "ROWS column count")?;
        if count > COLUMNS_MAX as u64 {
            return Err(DecodeError::new(
                "ROWS column count",
                cursor.at() as u64,
                DecodeErrorKind::TooLong {
                    length: count,
                    limit: COLUMNS_MAX as u64,
                },
            ));
        }
        let column_count = count as usize;
        let mut bitmap = |what| {
            let start = cursor.at();
            cursor.skip(column_count.div_ceil(8), what)?;
            Span::new(start..cursor.at()).ok_or(cursor.invalid(what, start as u64))
        };
        let (rows_kind, columns_before, columns_after) = match kind {
            Kind::WRITE_ROWS | Kind::WRITE_ROWS_V1 | Kind::WRITE_ROWS_V0 => {
                (RowsKind::Write, Span::NONE, bitmap("ROWS columns")?)
            }
            Kind::DELETE_ROWS | Kind::DELETE_ROWS_V1 | Kind::DELETE_ROWS_V0 => {
                (RowsKind::Delete, bitmap("ROWS columns")?, Span::NONE)
            }
            _ => (
                RowsKind::Update,
                bitmap("ROWS columns before")?,
                bitmap("ROWS columns after")?,
            ),
        };
        Ok(Self {
            table_id,
            kind: rows_kind,
            ends_statement: flags & Self::ENDS_STATEMENT != 0,
            partial: kind == Kind::PARTIAL_UPDATE_ROWS,
            column_count,
            columns_before,
            columns_after,
            event,
            rows_at: cursor.at(),
        })
    }

    /// The event's bytes that spans and ranges count in (without the checksum).
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.event
    }

    /// The rows one after the other.
    ///
    /// # Errors
    /// `columns` are not as many as the event's: the table's shape is another one.
    pub fn walk<'c>(&self, columns: &'c [Column]) -> Result<RowWalker<'a, 'c>, DecodeError> {
        if columns.len() != self.column_count {
            return Err(DecodeError::new(
                "ROWS column count",
                HEADER_LENGTH as u64,
                DecodeErrorKind::Invalid {
                    value: self.column_count as u64,
                },
            ));
        }
        let present = |span: Span| span.of(self.event).map(|bits| Present::new(columns, bits));
        let mut walker = RowWalker {
            event: self.event,
            columns,
            before: present(self.columns_before),
            after: present(self.columns_after),
            at: self.rows_at,
            partial_json_bytes: self.partial.then(|| json_columns(columns).div_ceil(8)),
            empty_row: false,
            plan: Plan::new(columns),
        };
        // With binlog_row_image=MINIMAL an INSERT of nothing but defaults has no column at all: the event's one row takes no byte.
        walker.empty_row = self.kind == RowsKind::Write
            && self.column_count > 0
            && walker.at == self.event.len()
            && walker.after.is_some_and(|after| after.count == 0);
        Ok(walker)
    }
}

fn json_columns(columns: &[Column]) -> usize {
    let is_json = |column: &&Column| matches!(column.kind, ColumnType::Json { .. });
    columns.iter().filter(is_json).count()
}

#[inline]
fn bit(bits: &[u8], index: usize) -> bool {
    bits.get(index >> 3)
        .is_some_and(|byte| byte >> (index & 7) & 1 != 0)
}

/// Which columns an image holds.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    bits: &'a [u8],
    count: usize,
    all: bool,
}

impl<'a> Present<'a> {
    #[inline]
    fn new(columns: &[Column], bits: &'a [u8]) -> Self {
        let count = (0..columns.len()).filter(|index| bit(bits, *index)).count();
        Self {
            bits,
            count,
            all: count == columns.len(),
        }
    }
}

/// Where a row's images are, counted from the event's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSpans {
    /// The row before; [`Span::NONE`] for a write.
    pub before: Span,
    /// The row after; [`Span::NONE`] for a delete.
    pub after: Span,
}

/// Iterates over an event's rows. After an error it ends.
#[derive(Debug, Clone)]
pub struct RowWalker<'a, 'c> {
    event: &'a [u8],
    columns: &'c [Column],
    before: Option<Present<'a>>,
    after: Option<Present<'a>>,
    at: usize,
    /// Bytes of the bitmap of partial JSON columns, in events that may have one.
    partial_json_bytes: Option<usize>,
    empty_row: bool,
    plan: Plan,
}

/// How to get past the values of an image that has them all, in steps: adjacent columns of fixed width are one step, so that the
/// common row costs a few additions. Made once per event.
#[derive(Debug, Clone)]
struct Plan {
    /// `1` to `FIXED_MAX`: so many bytes; above it: a value with a length prefix of `step - FIXED_MAX` bytes.
    steps: [u8; Self::STEPS],
    /// Steps in use; 0 where the table has more than fit.
    count: usize,
}

impl Plan {
    const STEPS: usize = 48;
    const FIXED_MAX: u8 = 250;

    fn new(columns: &[Column]) -> Self {
        let mut plan = Self {
            steps: [0; Self::STEPS],
            count: 0,
        };
        for column in columns {
            if plan.add(&column.kind).is_none() {
                return Self { count: 0, ..plan };
            }
        }
        plan
    }

    fn add(&mut self, kind: &ColumnType) -> Option<()> {
        let step = match stored_width(kind) {
            StoredWidth::Fixed(width) => {
                let width = u8::try_from(width).ok()?;
                let last = self
                    .count
                    .checked_sub(1)
                    .and_then(|at| self.steps.get_mut(at));
                if let Some(last) = last
                    && *last <= Self::FIXED_MAX
                    && *last <= Self::FIXED_MAX.saturating_sub(width)
                {
                    *last += width;
                    return Some(());
                }
                (width <= Self::FIXED_MAX).then_some(width)?
            }
            StoredWidth::Prefixed(bytes) => Self::FIXED_MAX + bytes.min(4),
        };
        *self.steps.get_mut(self.count)? = step;
        self.count += 1;
        Some(())
    }

    /// The end of the values that start at `at`; `None` where they are cut off.
    #[inline]
    fn walk(&self, event: &[u8], mut at: usize) -> Option<usize> {
        let rest = |at: usize| event.get(at..);
        for step in self.steps.get(..self.count)? {
            at += match step.checked_sub(Self::FIXED_MAX) {
                None | Some(0) => usize::from(*step),
                Some(1) => 1 + usize::from(*rest(at)?.first()?),
                Some(2) => 2 + usize::from(u16::from_le_bytes(*rest(at)?.first_chunk()?)),
                Some(3) => {
                    let [a, b, c] = *rest(at)?.first_chunk()?;
                    3 + u32::from_le_bytes([a, b, c, 0]) as usize
                }
                Some(_) => 4 + u32::from_le_bytes(*rest(at)?.first_chunk()?) as usize,
            };
        }
        (at <= event.len()).then_some(at)
    }
}

impl RowWalker<'_, '_> {
    #[inline]
    fn row(&mut self) -> Result<RowSpans, DecodeError> {
        let start = self.at;
        let before = match self.before {
            Some(present) => self.image(present)?,
            None => Span::NONE,
        };
        let after = match self.after {
            Some(present) => {
                let image_at = self.at;
                if let Some(length) = self.partial_json_bytes {
                    self.skip_partial_header(length)?;
                }
                let image = self.image(present)?;
                Span {
                    start: image_at as u32,
                    ..image
                }
            }
            None => Span::NONE,
        };
        if self.at == start {
            return Err(self.error("ROWS row without columns", 0));
        }
        Ok(RowSpans { before, after })
    }

    fn skip_partial_header(&mut self, bitmap_length: usize) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(self.event);
        cursor.skip(self.at, "ROWS value options")?;
        if partial_json(&mut cursor)? {
            cursor.skip(bitmap_length, "ROWS partial columns")?;
        }
        self.at = cursor.at();
        Ok(())
    }

    /// Moves past one image.
    #[inline]
    fn image(&mut self, present: Present<'_>) -> Result<Span, DecodeError> {
        let start = self.at;
        let null_length = present.count.div_ceil(8);
        let Some(nulls) = self.event.get(start..start + null_length) else {
            return Err(self.error("ROWS NULL bits", null_length));
        };
        let mut at = start + null_length;
        let no_null = match nulls {
            [only] => *only == 0,
            many => many.iter().all(|byte| *byte == 0),
        };
        let walked = if present.all && no_null && self.plan.count > 0 {
            self.plan.walk(self.event, at)
        } else {
            None
        };
        if let Some(end) = walked {
            at = end;
        } else {
            // Not all there, too many columns, or cut off: column by column, which also tells where.
            let mut nth = 0;
            for (index, column) in self.columns.iter().enumerate() {
                if !bit(present.bits, index) {
                    continue;
                }
                if !bit(nulls, nth) {
                    at = self.past(column, at)?;
                }
                nth += 1;
            }
        }
        self.at = at;
        // Events are bounded by MYSQL_EVENT_MAX, so offsets fit 32 bits; were one larger, its spans would be refused here.
        Span::new(start..at).ok_or_else(|| self.error("ROWS image", at))
    }

    #[inline]
    fn past(&self, column: &Column, at: usize) -> Result<usize, DecodeError> {
        let rest = self.event.get(at..).unwrap_or_default();
        match stored_length(&column.kind, rest) {
            Some(length) if length <= rest.len() => Ok(at + length),
            other => Err(DecodeError::new(
                "ROWS value",
                at as u64,
                DecodeErrorKind::Truncated {
                    missing: other.map_or(1, |length| length - rest.len()) as u64,
                },
            )),
        }
    }

    #[cold]
    fn error(&self, what: &'static str, missing: usize) -> DecodeError {
        let missing = missing as u64;
        DecodeError::new(what, self.at as u64, DecodeErrorKind::Truncated { missing })
    }
}

impl Iterator for RowWalker<'_, '_> {
    type Item = Result<RowSpans, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.event.len() {
            if !std::mem::take(&mut self.empty_row) {
                return None;
            }
            let at = self.at as u32;
            let after = Span { start: at, end: at };
            return Some(Ok(RowSpans {
                before: Span::NONE,
                after,
            }));
        }
        let row = self.row();
        if row.is_err() {
            self.at = self.event.len();
        }
        Some(row)
    }
}

/// Reads an after image's options; whether a bitmap of partial JSON columns follows.
fn partial_json(cursor: &mut Cursor<'_>) -> Result<bool, DecodeError> {
    const PARTIAL_JSON: u64 = 1;
    let options = lenenc::integer(cursor, "ROWS value options")?;
    if options & !PARTIAL_JSON != 0 {
        return Err(cursor.invalid("ROWS value options", options));
    }
    Ok(options & PARTIAL_JSON != 0)
}

/// The first 64 bits of a bitmap; fewer where it ends.
#[inline]
fn word(bits: &[u8]) -> u64 {
    match *bits {
        [] => 0,
        // Tables of up to eight columns have bitmaps of one byte: most tables of most servers.
        [only] => u64::from(only),
        [first, second] => u64::from(first) | u64::from(second) << 8,
        _ => match bits.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => bits
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        },
    }
}

/// The 64 bits of a bitmap from bit `index` on, which is a multiple of 64.
#[cold]
fn next_word(bits: &[u8], index: usize) -> u64 {
    word(bits.get(index / 8..).unwrap_or_default())
}

/// Decodes one row image, column by column. Offsets in errors count from the image's first byte.
#[derive(Debug, Clone)]
pub struct Image<'a, 'c> {
    columns: &'c [Column],
    cursor: Cursor<'a>,
    /// The next column of the table.
    column: usize,
    /// How many present columns came before it.
    nth: usize,
    /// Bits of `present` from `column` on, up to the next multiple of 64; likewise of `nulls` from `nth` on.
    present_word: u64,
    null_word: u64,
    present: &'a [u8],
    nulls: &'a [u8],
    partial: &'a [u8],
    /// How many JSON columns came before it; counted only where `partial` holds bits.
    json: usize,
}

impl<'a, 'c> Image<'a, 'c> {
    /// An image of a table with `columns`, holding the columns whose bits are set in `present`.
    ///
    /// # Errors
    /// The NULL bits are cut off.
    #[inline(always)]
    pub fn new(
        columns: &'c [Column],
        present: &'a [u8],
        image: &'a [u8],
    ) -> Result<Self, DecodeError> {
        Self::start(columns, present, &[], Cursor::new(image))
    }

    /// An after image of PARTIAL_UPDATE_ROWS: JSON columns may be diffs to the before image's value.
    ///
    /// # Errors
    /// The options, bitmap or NULL bits are cut off, or an option is unknown.
    pub fn partial(
        columns: &'c [Column],
        present: &'a [u8],
        image: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(image);
        let partial = if partial_json(&mut cursor)? {
            cursor.take(json_columns(columns).div_ceil(8), "ROWS partial columns")?
        } else {
            &[]
        };
        Self::start(columns, present, partial, cursor)
    }

    #[inline(always)]
    fn start(
        columns: &'c [Column],
        present: &'a [u8],
        partial: &'a [u8],
        mut cursor: Cursor<'a>,
    ) -> Result<Self, DecodeError> {
        let present_word = word(present);
        let count = match columns.len() {
            // Bits beyond the last column are unset on the wire, but need not be believed.
            small @ 1..=64 => (present_word & u64::MAX >> (64 - small)).count_ones() as usize,
            many => (0..many).filter(|index| bit(present, *index)).count(),
        };
        let nulls = cursor.take(count.div_ceil(8), "ROWS NULL bits")?;
        Ok(Self {
            columns,
            cursor,
            column: 0,
            nth: 0,
            present_word,
            null_word: word(nulls),
            present,
            nulls,
            partial,
            json: 0,
        })
    }

    /// The next column that the image holds: its index in the table and its value, `None` for NULL; `Ok(None)` at the end, once
    /// nothing is left over.
    ///
    /// # Errors
    /// A value that is cut off or not of its type, bytes left over at the end.
    #[inline(always)]
    #[expect(clippy::should_implement_trait, reason = "a fallible iterator")]
    pub fn next(&mut self) -> Result<Option<(usize, Option<Value<'a>>)>, DecodeError> {
        loop {
            let index = self.column;
            let Some(column) = self.columns.get(index) else {
                self.cursor.finish("ROWS image")?;
                return Ok(None);
            };
            self.column = index + 1;
            if index.is_multiple_of(64) && index > 0 {
                self.present_word = next_word(self.present, index);
            }
            let present = self.present_word & 1 != 0;
            self.present_word >>= 1;
            let diffs = !self.partial.is_empty() && self.is_diff(column);
            if !present {
                continue;
            }
            let nth = self.nth;
            self.nth = nth + 1;
            if nth.is_multiple_of(64) && nth > 0 {
                self.null_word = next_word(self.nulls, nth);
            }
            let null = self.null_word & 1 != 0;
            self.null_word >>= 1;
            if null {
                return Ok(Some((index, None)));
            }
            let value = Value::read(&column.kind, &mut self.cursor)?;
            return Ok(Some((
                index,
                Some(match value {
                    Value::Json(bytes) if diffs => Value::JsonDiffs(bytes),
                    value => value,
                }),
            )));
        }
    }

    /// Whether the JSON column at hand is a diff. The bitmap has a bit for each JSON column of the table, present or not.
    #[cold]
    fn is_diff(&mut self, column: &Column) -> bool {
        if !matches!(column.kind, ColumnType::Json { .. }) {
            return false;
        }
        let nth = self.json;
        self.json += 1;
        bit(self.partial, nth)
    }
}
