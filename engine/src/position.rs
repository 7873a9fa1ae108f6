//! Where a source stands, whatever the source is.

use std::fmt;
use std::str::FromStr;

use protocol::mysql::{BinlogPosition, GtidSet};
use protocol::postgres::Lsn;

/// A place between two transactions of a source's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// MySQL and MariaDB: file and offset, with the set of executed GTIDs where the server has them.
    MySql {
        /// Place in the server's own binary log. Its file is empty where only GTIDs are known ([`Position::unknown_binlog`]): what an
        /// operator typed, or what a source reports on another server than the one it last knew the place on.
        binlog: BinlogPosition,
        /// GTIDs executed up to here, in the server's own text form; `None` without GTIDs.
        gtids: Option<String>,
    },
    /// PostgreSQL: where the log stood after the last transaction's commit.
    Postgres {
        /// Everything that was committed before it is done with.
        lsn: Lsn,
    },
}

impl Position {
    /// The binlog place of a position that is known by its GTIDs alone.
    #[must_use]
    pub fn unknown_binlog() -> BinlogPosition {
        BinlogPosition {
            file: "".into(),
            offset: 0,
        }
    }
}

/// `16/B374D848`; `binlog.000002:1234`, or the GTID set where only that is known; `{:#}` gives both, separated by a blank. What either prints,
/// [`FromStr`] reads.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql { binlog, gtids } => match gtids {
                Some(gtids) if binlog.file.is_empty() => f.write_str(gtids),
                Some(gtids) if f.alternate() => write!(f, "{binlog} {gtids}"),
                _ => binlog.fmt(f),
            },
            Self::Postgres { lsn } => lsn.fmt(f),
        }
    }
}

/// A text that is no position of any source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPosition {
    text: Box<str>,
}

impl fmt::Display for InvalidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a position: expected FILE:OFFSET such as binlog.000002:1234, or a GTID set such as \
             3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23 (MySQL) or 0-1-5 (MariaDB), or an LSN such as 16/B374D848 (PostgreSQL)",
            self.text
        )
    }
}

impl std::error::Error for InvalidPosition {}

impl FromStr for Position {
    type Err = InvalidPosition;

    /// Reads an LSN, `FILE:OFFSET`, a GTID set, or both of these separated by a blank. The sets of both families are tried first: a UUID with a number
    /// has the form of a file with an offset, too.
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let text = text.trim();
        let invalid = || InvalidPosition { text: text.into() };
        if let Ok(lsn) = text.parse::<Lsn>() {
            return match lsn {
                Lsn::INVALID => Err(invalid()),
                lsn => Ok(Self::Postgres { lsn }),
            };
        }
        if let Some(gtids) = gtid_set(text) {
            return Ok(Self::MySql {
                binlog: Self::unknown_binlog(),
                gtids: Some(gtids),
            });
        }
        let (place, gtids) = match text.split_once(char::is_whitespace) {
            Some((place, rest)) => (place, Some(gtid_set(rest).ok_or_else(invalid)?)),
            None => (text, None),
        };
        let binlog: BinlogPosition = place.parse().map_err(|_| invalid())?;
        // Every binlog file ends in its number; an offset below 4 would point into the file's magic.
        let numbered = binlog.file.rsplit_once('.').is_some_and(|(base, number)| {
            !base.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        });
        if !numbered || binlog.offset < 4 || binlog.file.contains(char::is_whitespace) {
            return Err(invalid());
        }
        Ok(Self::MySql { binlog, gtids })
    }
}

/// `text` in the servers' own form when it is a set of GTIDs that is not empty.
fn gtid_set(text: &str) -> Option<String> {
    let set: GtidSet = text.trim().parse().ok()?;
    (!set.is_empty()).then(|| set.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn reads_what_operators_type() {
        let place: Position = " binlog.000002:1234 ".parse().unwrap();
        assert_eq!(place.to_string(), "binlog.000002:1234");
        let set: Position = format!("{UUID}:1-23").parse().unwrap();
        assert_eq!(set.to_string(), format!("{UUID}:1-23"));
        // One transaction only: would also pass for a file with an offset.
        let one: Position = format!("{UUID}:23").parse().unwrap();
        assert!(matches!(one, Position::MySql { gtids: Some(_), .. }));
        let maria: Position = "0-1-5,1-1-7".parse().unwrap();
        assert_eq!(maria.to_string(), "0-1-5,1-1-7");
        let both: Position = format!("mysqld-bin.000001:4 {UUID}:1-5").parse().unwrap();
        assert_eq!(format!("{both}"), "mysqld-bin.000001:4");
        assert_eq!(
            format!("{both:#}"),
            format!("mysqld-bin.000001:4 {UUID}:1-5")
        );
    }

    #[test]
    fn reads_an_lsn() {
        let position: Position = " 16/b374d848".parse().unwrap();
        assert_eq!(
            position,
            Position::Postgres {
                lsn: Lsn(0x16_b374_d848)
            }
        );
        assert_eq!(format!("{position:#}"), "16/B374D848");
    }

    #[test]
    fn refuses_the_rest_with_examples() {
        for text in [
            "",
            "binlog.000002",
            "binlog.000002:",
            "binlog:5",
            "binlog.000002:3",
            ".000002:5",
            "a b.000002:5",
            "now",
            "0-1",
            "0/0",
            "16/",
        ] {
            let error = text.parse::<Position>().unwrap_err().to_string();
            assert!(
                error.contains("such as binlog.000002:1234"),
                "{text}: {error}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn what_is_printed_is_read(base in "[a-z][a-z0-9.-]{0,12}", number in 1u32..9_999_999, offset in 4u64.., last in 1u64..1_000_000, with in any::<bool>()) {
            let position = Position::MySql {
                binlog: BinlogPosition { file: format!("{base}.{number:06}").into(), offset },
                gtids: with.then(|| format!("{UUID}:1-{}", last + 1)),
            };
            prop_assert_eq!(format!("{:#}", position).parse::<Position>().unwrap(), position);
        }
    }
}
