//! The row of a message, made into TupleData in the message's own bytes.
//!
//! ```text
//! read   …"columns":[{"name":"id","type":"bigint","value":1},{"name":"v","type":"text","value":"a\"b"}],"identity":[…
//! write  | count 2 | t length 4  1 | t length 4  a"b | …                    further to the front, never over what is still to be read
//! ```
//! A message is read whole before the first byte is written, so that an error leaves it as it was.

use std::ops::Range;

use super::scan::{JsonText, Scan, starts_with, unescape_in_place};
use super::{Action, Message};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::COLUMNS_MAX;

/// The columns of a table as the plugin names them, ready to find their values.
#[derive(Debug, Clone)]
pub struct Shape {
    columns: Vec<Column>,
    /// The primary key's columns that the table was taken to have; `None`: whatever messages say.
    key: Option<Box<[Box<str>]>>,
    /// Whether an identity has every column.
    is_full: bool,
    /// What stood behind the row of an earlier message and was found to be well-formed: it hardly ever changes.
    tail: Vec<u8>,
    after: Vec<Slot>,
    before: Vec<Slot>,
}

#[derive(Debug, Clone)]
struct Column {
    described: DescribedColumn,
    /// What stands before each value: `{"name":"id","type":"bigint","value":`.
    prefix: Vec<u8>,
    is_bytea: bool,
    /// Whether its values are never TOASTed.
    is_inline: bool,
}

/// A column as the plugin describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DescribedColumn {
    /// Name.
    pub name: Box<str>,
    /// Name of its type with its modifiers, as `format_type` writes it: `numeric(10,2)`.
    pub type_name: Box<str>,
}

/// A value of the row, or its absence.
#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: Kind,
    /// The text in the message: a number, or what stands between quotes.
    start: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Absent,
    True,
    False,
    /// As it stands there.
    Text,
    /// With escapes.
    Escaped,
    /// Hexadecimal digits without the `\x` before them.
    Bytea,
}

impl Slot {
    const ABSENT: Self = Self {
        kind: Kind::Absent,
        start: 0,
        end: 0,
    };

    /// Bytes that it takes in a tuple, at most.
    #[inline]
    const fn room(self) -> usize {
        match self.kind {
            Kind::Null | Kind::Absent => 1,
            Kind::True | Kind::False => 6,
            Kind::Text | Kind::Escaped => 5 + (self.end - self.start) as usize,
            Kind::Bytea => 7 + (self.end - self.start) as usize,
        }
    }
}

/// Where the tuples of a row stand, and what pgoutput would have said of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowTuples {
    /// TupleData of the row before, where pgoutput sends one: an identity that an update kept is none. Columns that are not in it are null.
    pub before: Option<Range<usize>>,
    /// Whether it holds the replica identity only, not the whole row. An identity of all columns counts as the whole row.
    pub before_is_key: bool,
    /// TupleData of the row after. Columns that are not in it are unchanged (TOAST); see [`Shape::inline`].
    pub after: Option<Range<usize>>,
}

/// Why a row was not rewritten. The message is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowError {
    /// It is not what the plugin writes.
    Decode(DecodeError),
    /// The table has other columns by now: see [`Described::read`].
    Mismatch(Mismatch),
    /// The tuples would not fit before what they are made of: that many bytes have to be put in before the message (a wide table of
    /// which few columns are sent).
    NoRoom {
        /// Bytes that are missing.
        missing: usize,
    },
}

/// A column that the table does not have, or no more, or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name.
    pub column: Box<str>,
    /// What about it.
    pub kind: MismatchKind,
}

/// What about a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MismatchKind {
    /// It is not known, or not in this place.
    Unknown,
    /// Its type is another one.
    Type,
    /// A row comes without it whose kind never leaves it out.
    Missing,
    /// It is in the primary key now, or in it no more.
    Key,
}

impl From<DecodeError> for RowError {
    #[cold]
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::Mismatch(Mismatch { column, kind }) => match kind {
                MismatchKind::Unknown => write!(f, "column {column} is not known"),
                MismatchKind::Type => write!(f, "column {column} has another type"),
                MismatchKind::Missing => write!(f, "column {column} is missing"),
                MismatchKind::Key => write!(f, "column {column} is in another primary key"),
            },
            Self::NoRoom { missing } => write!(f, "{missing} bytes are needed before the message"),
        }
    }
}

impl std::error::Error for RowError {}

impl Shape {
    /// The shape of a table with these columns, in the order of `attnum`, those without dropped ones.
    #[must_use]
    pub fn new(columns: &[DescribedColumn]) -> Self {
        let column = |described: &DescribedColumn| Column {
            prefix: prefix(described),
            is_bytea: &*described.type_name == "bytea",
            is_inline: false,
            described: described.clone(),
        };
        Self {
            columns: columns.iter().map(column).collect(),
            key: None,
            is_full: false,
            tail: Vec::new(),
            after: Vec::new(),
            before: Vec::new(),
        }
    }

    /// A message whose primary key (`include-pk`) has other columns than these is a [`Mismatch`]. `names` are in the table's order, none
    /// where there is no primary key.
    #[must_use]
    pub fn keyed_by(mut self, names: &[Box<str>]) -> Self {
        self.key = Some(names.into());
        self
    }

    /// An update without one of the columns whose flag is set (in the table's order) is a [`Mismatch`]: values of a fixed length are never
    /// TOASTed, so that they are never left out.
    #[must_use]
    pub fn inline(mut self, flags: &[bool]) -> Self {
        for (column, flag) in self.columns.iter_mut().zip(flags) {
            column.is_inline = *flag;
        }
        self
    }

    /// An identity without one of the columns is a [`Mismatch`]: with REPLICA IDENTITY FULL it has all of them.
    #[must_use]
    pub fn full(mut self, is_full: bool) -> Self {
        self.is_full = is_full;
        self
    }

    /// Reads the row of the message at `message` of `bytes`, which [`Message::decode`] read up to its row, and writes its tuples one after
    /// the other from `to` on, which is not behind the message's start; whatever stands between `to` and the message's end is
    /// overwritten. Ranges are of `bytes`.
    ///
    /// # Errors
    /// See [`RowError`].
    #[inline]
    pub fn rewrite(
        &mut self,
        bytes: &mut [u8],
        to: usize,
        message: Range<usize>,
        action: Action,
        row_at: usize,
    ) -> Result<RowTuples, RowError> {
        let text = bytes.get(message.clone()).unwrap_or_default();
        let arrays = self.read(text, action, row_at)?;
        let has_before = arrays.has_before && !(arrays.has_after && self.keeps_identity(text));
        let base = message.start;
        // Where each tuple's last byte goes at most, and how far a value would have been written over before it was read.
        let mut at = to;
        let mut missing = to.saturating_sub(base);
        for (slots, wanted) in [(&self.after, arrays.has_after), (&self.before, has_before)] {
            if wanted {
                (at, missing) = room(slots, at, base, missing);
            }
        }
        missing = missing.max(at.saturating_sub(message.end));
        if missing > 0 || message.end > bytes.len() {
            return Err(RowError::NoRoom { missing });
        }
        let mut at = to;
        let mut after = None;
        let mut before = None;
        if arrays.has_after {
            let end = write(bytes, at, base, &self.after, b'u');
            after = Some(at..end);
            at = end;
        }
        if has_before {
            let end = write(bytes, at, base, &self.before, b'n');
            before = Some(at..end);
        }
        let is_key = self.before.iter().any(|slot| slot.kind == Kind::Absent);
        Ok(RowTuples {
            before_is_key: has_before && is_key,
            before,
            after,
        })
    }

    /// Whether `before` holds part of the columns, with the values that they have in `after`: pgoutput does not send it then.
    fn keeps_identity(&self, text: &[u8]) -> bool {
        let mut is_key = false;
        for (before, after) in self.before.iter().zip(&self.after) {
            if before.kind == Kind::Absent {
                is_key = true;
                continue;
            }
            let raw = |slot: &Slot| text.get(slot.start as usize..slot.end as usize);
            if before.kind != after.kind || raw(before) != raw(after) {
                return false;
            }
        }
        is_key
    }

    #[inline]
    fn read(&mut self, text: &[u8], action: Action, row_at: usize) -> Result<Arrays, RowError> {
        if u32::try_from(text.len()).is_err() {
            return Err(too_long(text.len()).into());
        }
        let mut arrays = Arrays::default();
        let mut scan = Scan::starting_at(text, row_at);
        let columns = &self.columns;
        // The plugin's own order and writing first; anything else member by member.
        if action != Action::Delete && scan.eat_exactly(b"\"columns\":[") {
            array(&mut scan, columns, &mut self.after)?;
            arrays.has_after = true;
            if scan.eat_exactly(b",\"identity\":[") {
                array(&mut scan, columns, &mut self.before)?;
                arrays.has_before = true;
            }
        } else if scan.eat_exactly(b"\"identity\":[") {
            array(&mut scan, columns, &mut self.before)?;
            arrays.has_before = true;
        } else {
            self.member(&mut scan, &mut arrays)?;
        }
        let tail = scan.rest();
        if tail.len() != self.tail.len() || !starts_with(tail, &self.tail) {
            while scan.comma_or(b'}', "wal2json message")? {
                self.member(&mut scan, &mut arrays)?;
            }
            scan.finish("wal2json message")?;
            if tail.len() < TAIL_MAX && tail.starts_with(b",\"pk\":[") && !arrays.late {
                self.tail.clear();
                self.tail.extend_from_slice(tail);
            }
        }
        arrays.check(action, text.len())?;
        self.all_there(action, &arrays)?;
        Ok(arrays)
    }

    /// One member of the message that describes its row.
    #[cold]
    fn member(&mut self, scan: &mut Scan<'_>, arrays: &mut Arrays) -> Result<(), RowError> {
        let key = scan.string("wal2json member")?;
        scan.expect(b':', "wal2json member")?;
        let (seen, slots) = match key.raw() {
            b"columns" if !arrays.has_before => (&mut arrays.has_after, &mut self.after),
            b"identity" => (&mut arrays.has_before, &mut self.before),
            b"columns" => return Err(scan.invalid_at(key.at(), "wal2json columns").into()),
            // Read, not passed over: its types may be other than JSON.
            b"pk" => return self.same_key(&described_columns(scan, false)?),
            _ => return Ok(scan.skip_value("wal2json member")?),
        };
        if std::mem::replace(seen, true) {
            return Err(scan.invalid_at(key.at(), "wal2json member twice").into());
        }
        arrays.late = true;
        scan.expect(b'[', "wal2json row")?;
        array(scan, &self.columns, slots)
    }

    /// A primary key does not change often, and then with the table's name or columns only by chance.
    fn same_key(&self, found: &[DescribedColumn]) -> Result<(), RowError> {
        let Some(known) = &self.key else {
            return Ok(());
        };
        let new = (found.iter()).find(|column| !known.contains(&column.name));
        let gone = (known.iter()).find(|name| !found.iter().any(|column| column.name == **name));
        match new.map(|column| &column.name).or(gone) {
            None => Ok(()),
            Some(name) => Err(mismatch(name, MismatchKind::Key)),
        }
    }

    /// Only TOASTed values are left out, and not of inserts or of whole identities: any other column that is not there is one that the table
    /// does not have.
    #[inline]
    fn all_there(&self, action: Action, arrays: &Arrays) -> Result<(), RowError> {
        let is_insert = action == Action::Insert;
        if arrays.has_after {
            self.no_gap(&self.after, |column| is_insert || column.is_inline)?;
        }
        if arrays.has_before && self.is_full {
            self.no_gap(&self.before, |_| true)?;
        }
        Ok(())
    }

    #[inline]
    fn no_gap(&self, slots: &[Slot], is_needed: impl Fn(&Column) -> bool) -> Result<(), RowError> {
        let is_gap =
            |(slot, column): &(&Slot, &Column)| slot.kind == Kind::Absent && is_needed(column);
        match slots.iter().zip(&self.columns).find(is_gap) {
            None => Ok(()),
            Some((_, column)) => Err(mismatch(&column.described.name, MismatchKind::Missing)),
        }
    }
}

/// Longest tail that is remembered.
const TAIL_MAX: usize = 4096;

/// What there was of the row.
#[derive(Debug, Default)]
struct Arrays {
    has_after: bool,
    has_before: bool,
    /// Whether one of them was found behind the first.
    late: bool,
}

impl Arrays {
    #[inline]
    fn check(&self, action: Action, at: usize) -> Result<(), DecodeError> {
        let (after, before) = (self.has_after, self.has_before);
        match action {
            Action::Insert if after && !before => Ok(()),
            // Without an identity the plugin warns in the server's log and sends the change all the same.
            Action::Update if after => Ok(()),
            Action::Delete if before && !after => Ok(()),
            _ => Err(DecodeError::new(
                "wal2json row",
                at as u64,
                DecodeErrorKind::Truncated { missing: 1 },
            )),
        }
    }
}

/// Finds the values of an array whose `[` has been read.
#[inline]
fn array(scan: &mut Scan<'_>, columns: &[Column], slots: &mut Vec<Slot>) -> Result<(), RowError> {
    slots.clear();
    if !scan.eat(b']') {
        loop {
            let next = columns.get(slots.len()..).unwrap_or_default();
            let expected = next
                .iter()
                .position(|column| scan.eat_exactly(&column.prefix));
            match expected.and_then(|skipped| Some((skipped, next.get(skipped)?))) {
                Some((skipped, column)) => {
                    slots.resize(slots.len() + skipped, Slot::ABSENT);
                    value(scan, column.is_bytea, slots)?;
                    match scan.rest() {
                        [b'}', b',', ..] => {
                            scan.pass(2);
                            continue;
                        }
                        [b'}', b']', ..] => {
                            scan.pass(2);
                            break;
                        }
                        [b'}', ..] => scan.pass(1),
                        _ => passed_over(scan)?,
                    }
                }
                None => spelt_out(scan, columns, slots)?,
            }
            if !scan.comma_or(b']', "wal2json row")? {
                break;
            }
        }
    }
    slots.resize(columns.len(), Slot::ABSENT);
    Ok(())
}

/// Reads a value and appends it. Each arm appends its own: a value that the arms return goes through memory, and is loaded from there
/// before the stores to it are done.
#[inline]
fn value(scan: &mut Scan<'_>, is_bytea: bool, slots: &mut Vec<Slot>) -> Result<(), DecodeError> {
    const WHAT: &str = "wal2json value";
    let word = |kind| Slot {
        kind,
        start: 0,
        end: 0,
    };
    let slot = |kind, start: usize, end: usize| Slot {
        kind,
        // The message's length fits.
        start: start as u32,
        end: end as u32,
    };
    match scan.rest().first() {
        Some(b'"') => {
            let text: JsonText<'_> = scan.string(WHAT)?;
            let kind = match (text.is_escaped(), is_bytea) {
                (false, false) => Kind::Text,
                (true, false) => Kind::Escaped,
                (false, true) => Kind::Bytea,
                (true, true) => return Err(scan.invalid_at(text.at(), "wal2json bytea")),
            };
            slots.push(slot(kind, text.at(), text.at() + text.raw().len()));
        }
        Some(b'0'..=b'9' | b'-') => {
            let (start, end) = scan.number(WHAT)?;
            slots.push(slot(Kind::Text, start, end));
        }
        Some(b'n') => {
            scan.word(b"null", WHAT)?;
            slots.push(word(Kind::Null));
        }
        Some(b't') => {
            scan.word(b"true", WHAT)?;
            slots.push(word(Kind::True));
        }
        Some(b'f') => {
            scan.word(b"false", WHAT)?;
            slots.push(word(Kind::False));
        }
        _ => return Err(scan.unexpected(WHAT)),
    }
    Ok(())
}

/// Members of a column behind its value (`include-not-null`, `include-default` …), and its end.
#[cold]
fn passed_over(scan: &mut Scan<'_>) -> Result<(), DecodeError> {
    while scan.comma_or(b'}', "wal2json column")? {
        let key = scan.string("wal2json column")?;
        if matches!(key.raw(), b"name" | b"type" | b"value") {
            return Err(scan.invalid_at(key.at(), "wal2json column"));
        }
        scan.expect(b':', "wal2json column")?;
        scan.skip_value("wal2json column")?;
    }
    Ok(())
}

/// A column that does not stand there as expected: in other letters, with more members, or another one.
#[cold]
fn spelt_out(
    scan: &mut Scan<'_>,
    columns: &[Column],
    slots: &mut Vec<Slot>,
) -> Result<(), RowError> {
    let mut look = *scan;
    let described = described_column(&mut look, true)?;
    let here = slots.len();
    let next = columns.get(here..).unwrap_or_default();
    let found = next
        .iter()
        .position(|column| column.described.name == described.name);
    let Some((skipped, column)) = found.and_then(|at| Some((at, next.get(at)?))) else {
        return Err(mismatch(&described.name, MismatchKind::Unknown));
    };
    if column.described.type_name != described.type_name {
        return Err(mismatch(&described.name, MismatchKind::Type));
    }
    slots.resize(here + skipped, Slot::ABSENT);
    // Once more, for the value.
    scan.expect(b'{', "wal2json column")?;
    loop {
        let key = scan.string("wal2json column")?;
        scan.expect(b':', "wal2json column")?;
        match key.raw() {
            b"type" => drop(scan.type_name(b",\"value\":", "wal2json type")?),
            b"value" => {
                scan.blanks();
                value(scan, column.is_bytea, slots)?;
            }
            _ => scan.skip_value("wal2json column")?,
        }
        if !scan.comma_or(b'}', "wal2json column")? {
            break;
        }
    }
    match slots.len() == here + skipped + 1 {
        true => Ok(()),
        false => Err(scan.invalid_at(scan.at(), "wal2json value").into()),
    }
}

/// Where the tuple of `slots` ends at most when it is written from `at` on, and how many bytes are missing so that nothing is written over
/// before it is read.
#[inline]
fn room(slots: &[Slot], mut at: usize, base: usize, mut missing: usize) -> (usize, usize) {
    at += 2;
    for slot in slots {
        if matches!(slot.kind, Kind::Text | Kind::Escaped | Kind::Bytea) {
            let text = slot.room() - (slot.end - slot.start) as usize;
            missing = missing.max((at + text).saturating_sub(base + slot.start as usize));
        }
        at += slot.room();
    }
    (at, missing)
}

/// Writes a tuple of texts that stand further behind in `bytes`, counted from `base`, and returns its end.
#[inline]
fn write(bytes: &mut [u8], to: usize, base: usize, slots: &[Slot], absent: u8) -> usize {
    let mut at = to;
    put(bytes, &mut at, &(slots.len() as u16).to_be_bytes());
    for slot in slots {
        let start = base + slot.start as usize;
        let length = slot.end - slot.start;
        match slot.kind {
            Kind::Null => put(bytes, &mut at, b"n"),
            Kind::Absent => put(bytes, &mut at, &[absent]),
            Kind::True => put(bytes, &mut at, b"t\0\0\0\x01t"),
            Kind::False => put(bytes, &mut at, b"t\0\0\0\x01f"),
            Kind::Text => {
                put_length(bytes, &mut at, length);
                bytes.copy_within(start..start + length as usize, at);
                at += length as usize;
            }
            Kind::Bytea => {
                put_length(bytes, &mut at, length + 2);
                put(bytes, &mut at, b"\\x");
                bytes.copy_within(start..start + length as usize, at);
                at += length as usize;
            }
            Kind::Escaped => {
                let mut field = at;
                let written = unescape_in_place(bytes, start, at + 5, length as usize);
                put_length(bytes, &mut field, written as u32);
                at += 5 + written;
            }
        }
    }
    at
}

#[inline]
fn put_length(bytes: &mut [u8], at: &mut usize, length: u32) {
    let [a, b, c, d] = length.to_be_bytes();
    put(bytes, at, &[b't', a, b, c, d]);
}

#[inline]
fn put(bytes: &mut [u8], at: &mut usize, text: &[u8]) {
    if let Some(place) = bytes.get_mut(*at..*at + text.len()) {
        place.copy_from_slice(text);
    }
    *at += text.len();
}

#[cold]
fn mismatch(column: &str, kind: MismatchKind) -> RowError {
    RowError::Mismatch(Mismatch {
        column: column.into(),
        kind,
    })
}

#[cold]
fn too_long(length: usize) -> DecodeError {
    let kind = DecodeErrorKind::TooLong {
        length: length as u64,
        limit: u32::MAX.into(),
    };
    DecodeError::new("wal2json message", 0, kind)
}

/// What stands before a value of the column, in the plugin's writing.
fn prefix(column: &DescribedColumn) -> Vec<u8> {
    let mut text = b"{\"name\":".to_vec();
    escape(&column.name, &mut text);
    text.extend_from_slice(b",\"type\":");
    let type_name = &*column.type_name;
    if type_name.starts_with('"') && !type_name.ends_with(']') {
        text.extend_from_slice(type_name.as_bytes());
    } else {
        escape(type_name, &mut text);
    }
    text.extend_from_slice(b",\"value\":");
    text
}

/// As the server's `escape_json`.
fn escape(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// What a message says about its table's columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Columns of the row after: of an insert, all that the table has; of an update, those that are not unchanged TOAST.
    pub columns: Option<Vec<DescribedColumn>>,
    /// Columns of the row before: of the replica identity, all with REPLICA IDENTITY FULL.
    pub identity: Option<Vec<DescribedColumn>>,
    /// Names of the primary key's columns in the table's order (`include-pk`); empty without one.
    pub key: Option<Vec<Box<str>>>,
}

impl Described {
    /// Reads the columns of the row in `bytes`, whose head is `message`.
    ///
    /// # Errors
    /// What is not the plugin's JSON.
    pub fn read(bytes: &[u8], message: &Message<'_>) -> Result<Self, DecodeError> {
        let mut scan = Scan::starting_at(bytes, message.row_at);
        let mut described = Self::default();
        loop {
            let key = scan.string("wal2json member")?;
            scan.expect(b':', "wal2json member")?;
            match key.raw() {
                b"columns" => described.columns = Some(described_columns(&mut scan, true)?),
                b"identity" => described.identity = Some(described_columns(&mut scan, true)?),
                b"pk" => {
                    let columns = described_columns(&mut scan, false)?;
                    described.key = Some(columns.into_iter().map(|column| column.name).collect());
                }
                _ => scan.skip_value("wal2json member")?,
            }
            if !scan.comma_or(b'}', "wal2json message")? {
                break;
            }
        }
        scan.finish("wal2json message")?;
        Ok(described)
    }
}

fn described_columns(
    scan: &mut Scan<'_>,
    with_value: bool,
) -> Result<Vec<DescribedColumn>, DecodeError> {
    let mut columns = Vec::new();
    scan.expect(b'[', "wal2json columns")?;
    if scan.eat(b']') {
        return Ok(columns);
    }
    loop {
        if columns.len() == COLUMNS_MAX {
            let kind = DecodeErrorKind::TooLong {
                length: COLUMNS_MAX as u64 + 1,
                limit: COLUMNS_MAX as u64,
            };
            return Err(DecodeError::new("wal2json columns", scan.at() as u64, kind));
        }
        columns.push(described_column(scan, with_value)?);
        if !scan.comma_or(b']', "wal2json columns")? {
            return Ok(columns);
        }
    }
}

fn described_column(scan: &mut Scan<'_>, with_value: bool) -> Result<DescribedColumn, DecodeError> {
    let start = scan.at();
    let mut name = None;
    let mut type_name = None;
    // What stands behind a type's name where that is not a JSON string.
    let behind: &[u8] = if with_value { b",\"value\":" } else { b"}" };
    scan.expect(b'{', "wal2json column")?;
    loop {
        let key = scan.string("wal2json column")?;
        scan.expect(b':', "wal2json column")?;
        match key.raw() {
            b"name" => name = Some(text(&scan.string("wal2json name")?.unescaped(), key)?),
            b"type" => type_name = Some(text(&scan.type_name(behind, "wal2json type")?, key)?),
            _ => scan.skip_value("wal2json column")?,
        }
        if !scan.comma_or(b'}', "wal2json column")? {
            break;
        }
    }
    match (name, type_name) {
        (Some(name), Some(type_name)) => Ok(DescribedColumn { name, type_name }),
        _ => Err(scan.invalid_at(start, "wal2json column name and type")),
    }
}

fn text(bytes: &[u8], key: JsonText<'_>) -> Result<Box<str>, DecodeError> {
    std::str::from_utf8(bytes)
        .map(Box::from)
        .map_err(|_| DecodeError::new("wal2json name", key.at() as u64, DecodeErrorKind::Encoding))
}
