//! Character sets and collations by the ids that TABLE_MAP metadata and `information_schema` give.

use std::borrow::Cow;

use crate::{DecodeError, DecodeErrorKind};

/// A character set as the decoder needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset {
    /// Collation id (e.g. 255 for `utf8mb4_0900_ai_ci`); 63 is `binary`.
    pub collation: u16,
}

impl Charset {
    /// No character set known: the server did not say.
    pub const UNKNOWN: Self = Self { collation: 0 };
    /// Bytes.
    pub const BINARY: Self = Self { collation: 63 };
    /// `ascii_general_ci`.
    pub const ASCII: Self = Self { collation: 11 };
    /// `utf8mb4_general_ci`.
    pub const UTF8MB4: Self = Self { collation: 45 };

    /// The text of `bytes`, borrowed where they are UTF-8 already.
    ///
    /// # Errors
    /// Bytes that are no text in this character set, or a character set that we do not read.
    #[inline]
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>, DecodeError> {
        std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|_| DecodeError::new("text", 0, DecodeErrorKind::Encoding))
    }
}
