//! Where a logical replication stream stands.

use std::fmt;
use std::str::FromStr;

/// A place in a server's write-ahead log, in bytes from its beginning (`pg_lsn`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// No place at all (`InvalidXLogRecPtr`): what messages without one of their own carry.
    pub const INVALID: Self = Self(0);
}

/// Two hexadecimal halves, as the server writes it: `16/B374D848`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A text that is not an LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLsn;

impl fmt::Display for InvalidLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected two hexadecimal numbers, for example 16/B374D848")
    }
}

impl std::error::Error for InvalidLsn {}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    /// Reads what the server writes, and as the server does, also lower case and fewer digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |text: &str| {
            let digits =
                (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            let number = u32::from_str_radix(text, 16).map_err(|_| InvalidLsn)?;
            digits.then_some(u64::from(number)).ok_or(InvalidLsn)
        };
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_the_server() {
        for (text, value) in [
            ("16/B374D848", 0x16_b374_d848),
            ("0/0", 0),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        assert_eq!("0/1b".parse(), Ok(Lsn(27)));
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/g",
            "0/+1",
            "1/123456789",
            "0/1 ",
            "0x1/2",
        ] {
            assert_eq!(text.parse::<Lsn>(), Err(InvalidLsn), "{text}");
        }
    }
}
