//! Answers to simple queries, and errors (sections "Simple Query", "Error and Notice Message Fields").
//!
//! ```text
//! T RowDescription | count 2 | name 0 | table 4 | attribute 2 | type 4 | size 2 | modifier 4 | format 2 | …
//! D DataRow        | count 2 | length 4 (−1: NULL) | bytes | …
//! C CommandComplete ─ next statement's answer … ─ Z ReadyForQuery
//! E ErrorResponse  | field type 1 | text 0 | … | 0
//! ```

use std::fmt;

use crate::cursor::Cursor;
use crate::error::DecodeError;

/// A server's error or notice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or `WARNING` … , never translated.
    pub severity: String,
    /// SQLSTATE (appendix A).
    pub code: String,
    /// What happened.
    pub message: String,
    /// More about it; empty without.
    pub detail: String,
    /// What to do about it; empty without.
    pub hint: String,
}

impl ServerError {
    /// Reads an ErrorResponse's or NoticeResponse's body.
    ///
    /// # Errors
    /// Truncated input.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body);
        let mut error = Self::default();
        let mut translated = String::new();
        loop {
            let kind = cursor.u8("error field")?;
            if kind == 0 {
                break;
            }
            let text = text(cursor.until_nul("error field")?);
            match kind {
                b'S' => translated = text,
                b'V' => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                b'H' => error.hint = text,
                _ => {}
            }
        }
        // Servers before 9.6 have the translated one only.
        if error.severity.is_empty() {
            error.severity = translated;
        }
        Ok(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server error {}: {}", self.code, self.message)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// The rows of one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Cells as text; `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// What CommandComplete said, e.g. `SELECT 1`.
    pub tag: String,
}

impl ResultSet {
    /// Begins anew with a RowDescription's body.
    ///
    /// # Errors
    /// Truncated input.
    pub fn describe(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(body);
        self.columns.clear();
        self.rows.clear();
        for _ in 0..cursor.u16_be("RowDescription columns")? {
            self.columns
                .push(text(cursor.until_nul("RowDescription name")?));
            cursor.skip(18, "RowDescription column")?;
        }
        cursor.finish("RowDescription")
    }

    /// Adds a DataRow's body.
    ///
    /// # Errors
    /// Truncated input.
    pub fn row(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(body);
        let mut row = Vec::new();
        for _ in 0..cursor.u16_be("DataRow columns")? {
            row.push(match cursor.i32_be("DataRow length")? {
                -1 => None,
                length => {
                    let length = usize::try_from(length)
                        .map_err(|_| cursor.invalid("DataRow length", length as u64))?;
                    Some(text(cursor.take(length, "DataRow value")?))
                }
            });
        }
        cursor.finish("DataRow")?;
        self.rows.push(row);
        Ok(())
    }
}

/// Text of a body that is text and a NUL.
#[must_use]
pub fn tag(body: &[u8]) -> String {
    text(body.strip_suffix(&[0]).unwrap_or(body))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_fields() {
        let body =
            b"SFEHLER\0VFATAL\0C28P01\0Mpassword authentication failed\0Hread the log\0Fauth.c\0\0";
        let error = ServerError::decode(body).unwrap();
        assert_eq!((&*error.severity, &*error.code), ("FATAL", "28P01"));
        assert_eq!(
            error.to_string(),
            "server error 28P01: password authentication failed; read the log"
        );
        for cut in 0..body.len() {
            assert!(ServerError::decode(&body[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn rows_are_text_or_null() {
        let mut set = ResultSet::default();
        let mut description = b"\0\x02".to_vec();
        for name in [&b"id\0"[..], b"name\0"] {
            description.extend_from_slice(name);
            description.extend_from_slice(&[0; 18]);
        }
        set.describe(&description).unwrap();
        set.row(b"\0\x02\0\0\0\x0242\xff\xff\xff\xff").unwrap();
        assert_eq!(set.columns, ["id", "name"]);
        assert_eq!(set.rows, [[Some("42".to_owned()), None]]);
        assert!(set.row(b"\0\x01\0\0\0\x0542").is_err());
        assert!(set.row(b"\0\x01\x80\0\0\0").is_err());
        assert!(set.describe(&description[..20]).is_err());
        assert_eq!(tag(b"SELECT 1\0"), "SELECT 1");
    }
}
