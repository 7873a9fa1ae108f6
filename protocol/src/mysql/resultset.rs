//! What a server answers: OK, ERR and EOF packets, and result sets as text.
//!
//! ```text
//! OK   | 00 (fe where EOF is deprecated) | affected rows: lenenc | last insert id: lenenc | status: 2 | warnings: 2 | info … |
//! ERR  | ff | code: 2 | # state: 5 | message |
//! EOF  | fe | warnings: 2 | status: 2 |
//! result set: column count, definition × columns, [EOF], row × rows, EOF (or OK with fe)
//! row: per column a lenenc string, or fb for NULL
//! ```
//! Source: MySQL internals manual, "Generic Response Packets" and "ProtocolText::Resultset".

use std::fmt;

use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::COLUMNS_MAX;
use crate::mysql::lenenc;
use crate::mysql::packet;

/// An ERR packet: what the server refused, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// Error number, e.g. 1045, 1236.
    pub code: u16,
    /// SQLSTATE, e.g. `28000`; empty where the server sends none (before the handshake is over).
    pub state: String,
    /// Message.
    pub message: String,
}

impl ServerError {
    /// An error of the server half.
    #[must_use]
    pub fn new(code: u16, state: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            state: state.to_owned(),
            message: message.into(),
        }
    }

    /// Reads a payload that starts with 0xff.
    ///
    /// # Errors
    /// Truncated input or another first byte.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let first = cursor.u8("ERR packet")?;
        if first != 0xff {
            return Err(cursor.invalid("ERR packet", first.into()));
        }
        let code = cursor.u16_le("ERR code")?;
        let mut state = &b""[..];
        if cursor.peek() == Some(b'#') {
            cursor.skip(1, "ERR state")?;
            state = cursor.take(5, "ERR state")?;
        }
        Ok(Self {
            code,
            state: text(state),
            message: text(cursor.rest()),
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(0xff);
        out.extend_from_slice(&self.code.to_le_bytes());
        if self.state.len() == 5 {
            out.push(b'#');
            out.extend_from_slice(self.state.as_bytes());
        }
        out.extend_from_slice(self.message.as_bytes());
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server error {}", self.code)?;
        if !self.state.is_empty() {
            write!(f, " ({})", self.state)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ServerError {}

/// Status flag: another result set follows.
const MORE_RESULTS: u16 = 0x0008;

/// Appends an OK packet's payload with `header` 0x00, or 0xfe at the end of a result set where EOF is deprecated.
pub fn encode_ok(out: &mut Vec<u8>, header: u8) {
    // No rows, no id, status autocommit, no warnings.
    out.extend_from_slice(&[header, 0, 0, 2, 0, 0, 0]);
}

/// Appends an EOF packet's payload.
pub fn encode_eof(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xfe, 0, 0, 2, 0]);
}

/// Whether a payload is an EOF packet (or an OK packet in its place) rather than a row.
#[must_use]
pub fn is_eof(payload: &[u8], deprecate_eof: bool) -> bool {
    // A row may start with fe too, but then holds a string of over 16 MiB.
    let length_max = if deprecate_eof {
        packet::HEADER_LENGTH + 0xff_ffff
    } else {
        9
    };
    payload.first() == Some(&0xfe) && payload.len() < length_max
}

/// A result set of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultSet {
    /// Column names, as the statement calls them.
    pub columns: Vec<String>,
    /// Rows of as many values as there are columns; `None` is NULL.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

impl ResultSet {
    /// Appends the whole answer as packets from `sequence` on.
    pub fn encode(&self, deprecate_eof: bool, out: &mut Vec<u8>, sequence: &mut u8) {
        let mut payload = Vec::new();
        lenenc::write_integer(&mut payload, self.columns.len() as u64);
        packet::write(out, sequence, &payload);
        for name in &self.columns {
            payload.clear();
            encode_column(&mut payload, name);
            packet::write(out, sequence, &payload);
        }
        if !deprecate_eof {
            payload.clear();
            encode_eof(&mut payload);
            packet::write(out, sequence, &payload);
        }
        for row in &self.rows {
            payload.clear();
            for value in row {
                match value {
                    Some(value) => lenenc::write_string(&mut payload, value),
                    None => payload.push(0xfb),
                }
            }
            packet::write(out, sequence, &payload);
        }
        payload.clear();
        match deprecate_eof {
            true => encode_ok(&mut payload, 0xfe),
            false => encode_eof(&mut payload),
        }
        packet::write(out, sequence, &payload);
    }
}

/// A column of type VAR_STRING in utf8mb4.
fn encode_column(out: &mut Vec<u8>, name: &str) {
    for text in [&b"def"[..], b"", b"", b"", name.as_bytes(), b""] {
        lenenc::write_string(out, text);
    }
    out.extend_from_slice(&[0x0c, 45, 0, 0xff, 0xff, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
}

/// What a statement brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// OK without rows.
    Done,
    /// Rows.
    Rows(ResultSet),
    /// The server's refusal.
    Refused(ServerError),
}

/// Reads the answer to COM_QUERY, packet by packet.
#[derive(Debug)]
pub struct AnswerReader {
    deprecate_eof: bool,
    state: State,
    columns: usize,
    result: ResultSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Columns,
    ColumnsEnd,
    Rows,
}

impl AnswerReader {
    /// A reader before the first packet of an answer; `deprecate_eof` as the connection's capabilities say.
    #[must_use]
    pub fn new(deprecate_eof: bool) -> Self {
        Self {
            deprecate_eof,
            state: State::Start,
            columns: 0,
            result: ResultSet::default(),
        }
    }

    /// Reads the next packet's payload; the answer once it is complete, after which the reader must not be used.
    ///
    /// # Errors
    /// Malformed packets, more columns than a table can have, several results, or a request for a local file, which we do
    /// not serve.
    pub fn packet(&mut self, payload: &[u8]) -> Result<Option<Answer>, DecodeError> {
        if payload.first() == Some(&0xff) {
            return ServerError::decode(payload).map(|error| Some(Answer::Refused(error)));
        }
        match self.state {
            State::Start => return self.start(payload),
            State::Columns => {
                self.result.columns.push(column_name(payload)?);
                if self.result.columns.len() == self.columns {
                    self.state = match self.deprecate_eof {
                        true => State::Rows,
                        false => State::ColumnsEnd,
                    };
                }
            }
            State::ColumnsEnd if is_eof(payload, false) => self.state = State::Rows,
            State::ColumnsEnd => return Err(invalid("EOF after columns", payload)),
            State::Rows if is_eof(payload, self.deprecate_eof) => {
                let result = std::mem::take(&mut self.result);
                return match self.has_more(payload)? {
                    false => Ok(Some(Answer::Rows(result))),
                    true => Err(several_results()),
                };
            }
            State::Rows => {
                let row = self.row(payload)?;
                self.result.rows.push(row);
            }
        }
        Ok(None)
    }

    fn start(&mut self, payload: &[u8]) -> Result<Option<Answer>, DecodeError> {
        let mut cursor = Cursor::new(payload);
        if cursor.peek() == Some(0) {
            return match self.has_more(payload)? {
                false => Ok(Some(Answer::Done)),
                true => Err(several_results()),
            };
        }
        // 0xfb asks for a local file: no integer, so refused here.
        let columns = lenenc::integer(&mut cursor, "result set column count")?;
        cursor.finish("result set column count")?;
        if columns == 0 || columns > COLUMNS_MAX as u64 {
            return Err(DecodeError::new(
                "result set column count",
                0,
                DecodeErrorKind::TooLong {
                    length: columns,
                    limit: COLUMNS_MAX as u64,
                },
            ));
        }
        self.columns = columns as usize;
        self.state = State::Columns;
        Ok(None)
    }

    fn has_more(&self, payload: &[u8]) -> Result<bool, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let header = cursor.u8("OK packet")?;
        if header == 0xfe && !self.deprecate_eof {
            cursor.skip(2, "EOF warnings")?;
        } else {
            lenenc::integer(&mut cursor, "OK affected rows")?;
            lenenc::integer(&mut cursor, "OK last insert id")?;
        }
        // What follows (info, session state) is for people and for clients that track sessions.
        Ok(cursor.u16_le("OK status")? & MORE_RESULTS != 0)
    }

    fn row(&self, payload: &[u8]) -> Result<Vec<Option<Vec<u8>>>, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let mut row = Vec::with_capacity(self.columns);
        for _ in 0..self.columns {
            if cursor.peek() == Some(0xfb) {
                cursor.skip(1, "NULL")?;
                row.push(None);
            } else {
                row.push(Some(lenenc::string(&mut cursor, "row value")?.to_vec()));
            }
        }
        cursor.finish("row")?;
        Ok(row)
    }
}

fn column_name(payload: &[u8]) -> Result<String, DecodeError> {
    let mut cursor = Cursor::new(payload);
    for what in [
        "column catalog",
        "column schema",
        "column table",
        "column table",
    ] {
        lenenc::string(&mut cursor, what)?;
    }
    // Type, length and charset follow: values are read as bytes.
    lenenc::string(&mut cursor, "column name").map(text)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn invalid(what: &'static str, payload: &[u8]) -> DecodeError {
    let value = payload.first().copied().unwrap_or_default().into();
    DecodeError::new(what, 0, DecodeErrorKind::Invalid { value })
}

const fn several_results() -> DecodeError {
    DecodeError::new(
        "status flag of several results",
        0,
        DecodeErrorKind::Unsupported {
            value: MORE_RESULTS as u64,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::packet::Frames;

    fn sample() -> ResultSet {
        ResultSet {
            columns: vec!["Variable_name".into(), "Value".into()],
            rows: vec![
                vec![Some(b"log_bin".to_vec()), Some(b"ON".to_vec())],
                vec![Some(vec![b'x'; 300]), None],
                vec![Some(Vec::new()), Some(vec![0xfe; 20])],
            ],
        }
    }

    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut frames, mut at, mut all) = (Frames::starting_at(1), 0, Vec::new());
        while let Some(frame) = frames.next(&bytes[at..]).unwrap() {
            all.push(bytes[at..][frame.payload()].to_vec());
            at += frame.wire_length;
        }
        assert_eq!(at, bytes.len());
        all
    }

    #[test]
    fn result_sets_both_ways() {
        for deprecate_eof in [false, true] {
            for set in [
                sample(),
                ResultSet {
                    columns: vec!["a".into()],
                    rows: vec![],
                },
            ] {
                let (mut bytes, mut sequence) = (Vec::new(), 1);
                set.encode(deprecate_eof, &mut bytes, &mut sequence);
                let mut reader = AnswerReader::new(deprecate_eof);
                let mut answers: Vec<_> = payloads(&bytes)
                    .iter()
                    .map(|p| reader.packet(p).unwrap())
                    .collect();
                assert_eq!(answers.pop(), Some(Some(Answer::Rows(set))));
                assert!(answers.iter().all(Option::is_none));
            }
        }
    }

    #[test]
    fn every_cut_of_a_packet_is_an_error_or_another_answer() {
        let (mut bytes, mut sequence) = (Vec::new(), 1);
        sample().encode(true, &mut bytes, &mut sequence);
        let all = payloads(&bytes);
        for (i, payload) in all.iter().enumerate() {
            for cut in 0..payload.len() {
                let mut reader = AnswerReader::new(true);
                for before in &all[..i] {
                    reader.packet(before).unwrap();
                }
                // A definition may be cut after the name, which is all that is read of it.
                let _ = reader.packet(&payload[..cut]);
            }
        }
    }

    #[test]
    fn refusals_keep_code_and_message() {
        let error = ServerError::new(
            1236,
            "HY000",
            "Could not find first log file name in binary log index file",
        );
        let mut payload = Vec::new();
        error.encode(&mut payload);
        assert_eq!(ServerError::decode(&payload).as_ref(), Ok(&error));
        let answer = AnswerReader::new(true).packet(&payload);
        assert_eq!(answer, Ok(Some(Answer::Refused(error.clone()))));
        assert_eq!(
            error.to_string(),
            "server error 1236 (HY000): Could not find first log file name in binary log index file"
        );
        let early = ServerError::decode(b"\xff\x10\x04Too many connections").unwrap();
        assert_eq!((early.code, early.state.as_str()), (1040, ""));
    }

    #[test]
    fn ok_and_hostile_starts() {
        let mut ok = Vec::new();
        encode_ok(&mut ok, 0);
        assert_eq!(AnswerReader::new(true).packet(&ok), Ok(Some(Answer::Done)));
        for hostile in [
            &b"\xfbfile"[..],
            b"\xfd\xff\xff\xff",
            b"",
            b"\x00\x00\x00\x08\x00\x00\x00",
        ] {
            assert!(
                AnswerReader::new(true).packet(hostile).is_err(),
                "{hostile:?}"
            );
        }
    }
}
