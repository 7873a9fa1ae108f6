//! Where a binlog stream stands.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A place in a server's binary log. The offset is 64 bits wide; the wire's is 32 (see the module's encoder of dump commands).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BinlogPosition {
    /// File name without path, e.g. `binlog.000002`.
    pub file: Arc<str>,
    /// Bytes from the start of the file.
    pub offset: u64,
}

impl fmt::Display for BinlogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// A text that is not `file:offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPosition;

impl fmt::Display for InvalidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected FILE:OFFSET, for example binlog.000002:4")
    }
}

impl std::error::Error for InvalidPosition {}

impl FromStr for BinlogPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, offset) = text.rsplit_once(':').ok_or(InvalidPosition)?;
        if file.is_empty() || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidPosition);
        }
        Ok(Self {
            file: file.into(),
            offset: offset.parse().map_err(|_| InvalidPosition)?,
        })
    }
}
