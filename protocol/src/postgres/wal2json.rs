//! wal2json, format 2: one JSON object per message.
//!
//! ```text
//! {"action":"B","xid":731,"timestamp":"2026-11-21 14:47:46.114922+00","lsn":"0/195FB78","nextlsn":"0/195FBA8"}         C alike
//! {"action":"I","xid":…,"timestamp":…,"lsn":"0/195F760","schema":"shop","table":"t","columns":[{"name":"id","type":"bigint","value":1},…],"pk":[…]}
//! {"action":"U",…,"columns":[…],"identity":[{"name":"id","type":"bigint","value":1}],"pk":[{"name":"id","type":"bigint"}]}
//! {"action":"D",…,"identity":[…],"pk":[…]}
//! {"action":"T",…,"schema":"shop","table":"t"}                                                           one per emptied table
//! {"action":"M","xid":null,…,"transactional":false,"prefix":"p","content":"…"}
//! ```
//! Which members there are is for the session's options to say; others than these are passed over. Members that describe the change stand
//! before the row, as the plugin writes them: [`Message::decode`] reads them and stops there, so that the row is read once, by
//! [`Shape::rewrite`], which knows the table's columns and makes of it what pgoutput would have sent.
//!
//! The plugin writes type names that begin with a quote as they are, not as JSON strings (`"type":"My Schema"."Type"`, which no JSON
//! parser reads, and `"type":"char"` for the type `"char"`). They are read here as what was meant.
//! Source: `wal2json.c` (github.com/eulerto/wal2json), `pg_decode_write_change`.

use super::position::Lsn;
use super::temporal::{self, Bounded};
use crate::error::{DecodeError, DecodeErrorKind};
use scan::{Scan, leading_lsn};

pub use head::{Again, Heads};
pub use row::{Described, DescribedColumn, Mismatch, MismatchKind, RowError, RowTuples, Shape};
pub use scan::JsonText;

mod head;
mod row;
mod scan;

#[cfg(test)]
mod tests;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `B`: a transaction begins.
    Begin,
    /// `C`: it ends.
    Commit,
    /// `I`: a new row.
    Insert,
    /// `U`: a changed row.
    Update,
    /// `D`: a removed row.
    Delete,
    /// `T`: an emptied table.
    Truncate,
    /// `M`: what `pg_logical_emit_message` wrote.
    Message,
}

/// A message up to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is about.
    pub action: Action,
    /// The transaction (`include-xids`).
    pub xid: Option<u32>,
    /// When the transaction was committed, as the server writes a `timestamptz` (`include-timestamp`): see [`Message::committed_us`].
    pub timestamp: Option<JsonText<'a>>,
    /// Of a change, where it stands; of a begin or commit, where the commit stands (`include-lsn`).
    pub lsn: Option<Lsn>,
    /// Of a begin or commit: one past the commit (`include-lsn`).
    pub next_lsn: Option<Lsn>,
    /// Schema of the table, for rows and truncates.
    pub schema: JsonText<'a>,
    /// Name of the table, for rows and truncates.
    pub table: JsonText<'a>,
    /// Whether a message of an application belongs to the open transaction.
    pub transactional: bool,
    /// Where `lsn` was read, for [`Heads`].
    lsn_text: Option<JsonText<'a>>,
    /// Where the row begins, for [`Shape::rewrite`] and [`Described::read`]; the message's end for anything but rows.
    pub row_at: usize,
}

impl<'a> Message<'a> {
    /// Reads one message, the whole data of an XLogData, up to its row.
    ///
    /// # Errors
    /// What is not the plugin's JSON: offsets count from the message's first byte.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut scan = Scan::new(bytes);
        scan.expect(b'{', "wal2json message")?;
        let key = scan.string("wal2json action")?;
        scan.expect(b':', "wal2json action")?;
        if key.raw() != b"action" {
            return Err(scan.invalid_at(key.at(), "wal2json action"));
        }
        let mut message = Message {
            action: action(&mut scan)?,
            xid: None,
            timestamp: None,
            lsn: None,
            next_lsn: None,
            schema: JsonText::EMPTY,
            table: JsonText::EMPTY,
            transactional: false,
            lsn_text: None,
            row_at: bytes.len(),
        };
        let is_row = matches!(
            message.action,
            Action::Insert | Action::Update | Action::Delete
        );
        while scan.comma_or(b'}', "wal2json message")? {
            let key = scan.string("wal2json member")?;
            if is_row && matches!(key.raw(), b"columns" | b"identity" | b"pk") {
                message.row_at = key.at() - 1;
                return message.checked(&scan);
            }
            scan.expect(b':', "wal2json member")?;
            message.member(key, &mut scan)?;
        }
        scan.finish("wal2json message")?;
        if is_row {
            return Err(scan.invalid_at(bytes.len(), "wal2json row"));
        }
        message.checked(&scan)
    }

    #[inline]
    fn member(&mut self, key: JsonText<'a>, scan: &mut Scan<'a>) -> Result<(), DecodeError> {
        match key.raw() {
            b"xid" => self.xid = scan.number_or_null("wal2json xid")?,
            b"timestamp" => self.timestamp = scan.string_or_null("wal2json timestamp")?,
            b"lsn" => (self.lsn, self.lsn_text) = lsn(scan)?,
            b"nextlsn" => (self.next_lsn, _) = lsn(scan)?,
            b"schema" => self.schema = scan.string("wal2json schema")?,
            b"table" => self.table = scan.string("wal2json table")?,
            b"transactional" => self.transactional = scan.boolean("wal2json transactional")?,
            _ => scan.skip_value("wal2json member")?,
        }
        Ok(())
    }

    /// Tables have names, and without a schema nobody knows which is meant.
    #[inline]
    fn checked(self, scan: &Scan<'_>) -> Result<Self, DecodeError> {
        let has_table = !matches!(
            self.action,
            Action::Begin | Action::Commit | Action::Message
        );
        if has_table && (self.schema.raw().is_empty() || self.table.raw().is_empty()) {
            return Err(scan.invalid_at(self.row_at, "wal2json schema and table"));
        }
        Ok(self)
    }

    /// When the transaction was committed, in microseconds since 1970 UTC; `None` without `include-timestamp`.
    ///
    /// # Errors
    /// A text that is no time.
    pub fn committed_us(&self) -> Result<Option<i64>, DecodeError> {
        let Some(text) = self.timestamp else {
            return Ok(None);
        };
        let wrong = |kind| DecodeError::new("wal2json timestamp", text.at() as u64, kind);
        match temporal::timestamp_tz(&text.unescaped()) {
            Ok(Bounded::Finite(time)) => Ok(Some(time.unix_us())),
            Ok(_) => Err(wrong(DecodeErrorKind::Invalid { value: 0 })),
            Err(error) => Err(wrong(error.kind)),
        }
    }
}

#[inline]
fn action(scan: &mut Scan<'_>) -> Result<Action, DecodeError> {
    let text = scan.string("wal2json action")?;
    Ok(match text.raw() {
        b"B" => Action::Begin,
        b"C" => Action::Commit,
        b"I" => Action::Insert,
        b"U" => Action::Update,
        b"D" => Action::Delete,
        b"T" => Action::Truncate,
        b"M" => Action::Message,
        _ => return Err(scan.invalid_at(text.at(), "wal2json action")),
    })
}

/// As [`Lsn`]'s `FromStr`, without the detour over text, and where it stands; nothing for null.
#[inline]
fn lsn<'a>(scan: &mut Scan<'a>) -> Result<(Option<Lsn>, Option<JsonText<'a>>), DecodeError> {
    let Some(text) = scan.string_or_null("wal2json lsn")? else {
        return Ok((None, None));
    };
    match leading_lsn(text.raw()) {
        Some((lsn, length)) if length == text.raw().len() => Ok((Some(lsn), Some(text))),
        _ => Err(scan.invalid_at(text.at(), "wal2json lsn")),
    }
}
