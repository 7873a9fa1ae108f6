//! DECIMAL in the server's packed form (`strings/decimal.c`, `decimal2bin`): base-10⁹ groups, big-endian, the sign bit inverted.

/// A packed DECIMAL and its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal<'a> {
    /// Packed bytes, as in the row image.
    pub bytes: &'a [u8],
    /// Digits in all.
    pub precision: u8,
    /// Digits after the point.
    pub scale: u8,
}
