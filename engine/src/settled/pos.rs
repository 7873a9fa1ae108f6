//! The text of the `pos` header.

use std::fmt;
use std::str::FromStr;

use protocol::postgres::Lsn;

/// `<file>:<offset>/<row>`, e.g. `binlog.000002:1234/5`; PostgreSQL: `<commit LSN>/<row>`, e.g. `16/B374D848/5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pos<'a> {
    /// Binlog file of the transaction's first event; empty where an LSN is the place.
    pub file: &'a str,
    /// Offset of that event, or the LSN.
    pub offset: u64,
    /// Number of the row in its transaction, from 0.
    pub row: u64,
}

/// A text that is no `pos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPos;

impl fmt::Display for InvalidPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected FILE:OFFSET/ROW or LSN/ROW, for example binlog.000002:1234/5 or 16/B374D848/5")
    }
}

impl std::error::Error for InvalidPos {}

impl fmt::Display for Pos<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            "" => write!(f, "{}/{}", Lsn(self.offset), self.row),
            file => write!(f, "{file}:{}/{}", self.offset, self.row),
        }
    }
}

impl<'a> Pos<'a> {
    /// Reads a header's value.
    ///
    /// # Errors
    /// [`InvalidPos`] for anything that we do not write.
    pub fn parse(value: &'a [u8]) -> Result<Self, InvalidPos> {
        let text = std::str::from_utf8(value).map_err(|_| InvalidPos)?;
        let (transaction, row) = text.rsplit_once('/').ok_or(InvalidPos)?;
        let Some((file, offset)) = transaction.rsplit_once(':') else {
            let Lsn(offset) = transaction.parse().map_err(|_| InvalidPos)?;
            return Ok(Self {
                file: "",
                offset,
                row: number(row)?,
            });
        };
        if file.is_empty() {
            return Err(InvalidPos);
        }
        Ok(Self {
            file,
            offset: number(offset)?,
            row: number(row)?,
        })
    }
}

fn number(text: &str) -> Result<u64, InvalidPos> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidPos);
    }
    u64::from_str(text).map_err(|_| InvalidPos)
}

/// A row's place in the WAL (file number 0), or among the binlog files of one base name: compared part by part as numbers, because `binlog.1000000` follows
/// `binlog.999999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) offset: u64,
    pub(super) row: u64,
}

/// `binlog.000002` is `("binlog", 2)`; a name without a number is all base, number 0.
pub(crate) fn split_file(file: &str) -> (&str, u64) {
    file.rsplit_once('.')
        .and_then(|(base, digits)| Some((base, number(digits).ok()?)))
        .unwrap_or((file, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        let pos = Pos {
            file: "my:odd/bin.000002",
            offset: u64::MAX,
            row: 0,
        };
        assert_eq!(Pos::parse(pos.to_string().as_bytes()), Ok(pos));
        let lsn = Pos {
            file: "",
            offset: 0x16_b374_d848,
            row: 5,
        };
        assert_eq!(lsn.to_string(), "16/B374D848/5");
        assert_eq!(Pos::parse(b"16/B374D848/5"), Ok(lsn));
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "/",
            "a.1:5",
            "a.1/5",
            "1/5",
            "1/G/5",
            ":1/2",
            "a.1:/2",
            "a.1:1/",
            "a.1:+1/2",
            "a.1:1/18446744073709551616",
        ] {
            assert_eq!(Pos::parse(text.as_bytes()), Err(InvalidPos), "{text}");
        }
        assert_eq!(Pos::parse(b"\xff.1:1/2"), Err(InvalidPos));
    }

    #[test]
    fn orders_files_as_numbers() {
        assert_eq!(split_file("binlog.000002"), ("binlog", 2));
        assert_eq!(split_file("a.b.1000000"), ("a.b", 1_000_000));
        assert_eq!(split_file("plain"), ("plain", 0));
        assert_eq!(split_file("plain.txt"), ("plain.txt", 0));
        let place = |number, offset, row| Place {
            number,
            offset,
            row,
        };
        assert!(place(999_999, 9, 9) < place(1_000_000, 4, 0));
        assert!(place(1, 9, 9) < place(1, 10, 0));
    }
}
