//! Character sets and collations by the ids that TABLE_MAP metadata and `information_schema` give.

/// A character set as the decoder needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset {
    /// Collation id (e.g. 255 for `utf8mb4_0900_ai_ci`); 63 is `binary`.
    pub collation: u16,
}
