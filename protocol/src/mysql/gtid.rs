//! Global transaction identifiers: one transaction's name, and the sets that say what a replica already has.
//!
//! ```text
//! MySQL     uuid:gno            3e11fa47-71ca-11e1-9e33-c80aa9429562:23
//!           uuid:tag:gno        3e11fa47-71ca-11e1-9e33-c80aa9429562:backup:7          (8.3 and later)
//!   set     uuid:1-3:7:tag:1-2,uuid2:1                                                 intervals, per source and tag
//! MariaDB   domain-server-seq   0-1-5
//!   set     0-1-5,1-1-7                                                                the last one of each domain
//! ```
//! Sources: MySQL manual "GTID Format and Storage", MariaDB knowledge base "Global Transaction ID".

use std::fmt;
use std::str::FromStr;

pub use domains::{DomainGtid, DomainSet};
pub use intervals::{IntervalSet, SourceId, Tag, Uuid};

mod domains;
mod intervals;

/// Which of the two families of servers speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// MySQL, Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// The name of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gtid {
    /// MySQL: the source that committed it first, and its number there (from 1).
    MySql {
        /// Server UUID and optional tag.
        source: SourceId,
        /// Transaction number, from 1.
        number: u64,
    },
    /// MariaDB.
    MariaDb(DomainGtid),
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql { source, number } => write!(f, "{source}:{number}"),
            Self::MariaDb(gtid) => gtid.fmt(f),
        }
    }
}

impl FromStr for Gtid {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        if !text.contains(':') {
            return text.parse().map(Self::MariaDb);
        }
        let (source, number) = text.rsplit_once(':').ok_or(InvalidGtid)?;
        Ok(Self::MySql {
            source: source.parse()?,
            number: intervals::parse_number(number)?,
        })
    }
}

/// A text that is neither family's form of a GTID or a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidGtid;

impl fmt::Display for InvalidGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected GTIDs such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23 (MySQL) or 0-1-5 (MariaDB)")
    }
}

impl std::error::Error for InvalidGtid {}

/// The transactions that somebody has: what a replica sends to say where to go on, and what a checkpoint keeps.
///
/// Advancing by one transaction, the common case, touches one integer and allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GtidSet {
    /// MySQL: intervals per source and tag.
    MySql(IntervalSet),
    /// MariaDB: the last transaction of each domain.
    MariaDb(DomainSet),
}

impl GtidSet {
    /// The empty set.
    #[must_use]
    pub fn empty(flavour: Flavour) -> Self {
        match flavour {
            Flavour::MySql => Self::MySql(IntervalSet::default()),
            Flavour::MariaDb => Self::MariaDb(DomainSet::default()),
        }
    }

    /// Reads `text` in the form that servers of `flavour` write; blanks and line ends around parts are allowed, as there.
    ///
    /// # Errors
    /// [`InvalidGtid`] when it is not of that form.
    pub fn parse(flavour: Flavour, text: &str) -> Result<Self, InvalidGtid> {
        match flavour {
            Flavour::MySql => text.parse().map(Self::MySql),
            Flavour::MariaDb => text.parse().map(Self::MariaDb),
        }
    }

    /// Which family's transactions it holds.
    #[must_use]
    pub const fn flavour(&self) -> Flavour {
        match self {
            Self::MySql(_) => Flavour::MySql,
            Self::MariaDb(_) => Flavour::MariaDb,
        }
    }

    /// Whether no transaction is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(set) => set.is_empty(),
            Self::MariaDb(set) => set.is_empty(),
        }
    }

    /// Adds one transaction; `false` (and no change) when it is of the other family.
    pub fn add(&mut self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql { source, number }) => {
                set.add(source, *number);
                true
            }
            (Self::MariaDb(set), Gtid::MariaDb(gtid)) => {
                set.add(*gtid);
                true
            }
            _ => false,
        }
    }

    /// Adds every transaction of `other`; `false` (and no change) when it is of the other family and not empty.
    pub fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(set), Self::MySql(other)) => set.merge(other),
            (Self::MariaDb(set), Self::MariaDb(other)) => set.merge(other),
            (_, other) => return other.is_empty(),
        }
        true
    }

    /// Whether the transaction is in it. On MariaDB every transaction up to the last of its domain is.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql { source, number }) => set.contains(source, *number),
            (Self::MariaDb(set), Gtid::MariaDb(gtid)) => set.contains(*gtid),
            _ => false,
        }
    }

    /// Whether everything in it is in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(set), Self::MySql(other)) => set.is_subset(other),
            (Self::MariaDb(set), Self::MariaDb(other)) => set.is_subset(other),
            _ => self.is_empty(),
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => set.fmt(f),
            Self::MariaDb(set) => set.fmt(f),
        }
    }
}

/// Tells the families apart by their form (UUIDs have 32 digits); the empty text is MySQL's empty set.
impl FromStr for GtidSet {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        let flavour = match text.trim().is_empty() || text.contains(':') {
            true => Flavour::MySql,
            false => Flavour::MariaDb,
        };
        Self::parse(flavour, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_are_told_apart() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let set: GtidSet = format!("{uuid}:1-3").parse().unwrap();
        assert_eq!(set.flavour(), Flavour::MySql);
        let set: GtidSet = "0-1-5,1-1-7".parse().unwrap();
        assert_eq!(set.flavour(), Flavour::MariaDb);
        assert_eq!(GtidSet::from_str("x"), Err(InvalidGtid));
        let mut set = GtidSet::empty(Flavour::MySql);
        assert!(!set.add(&"0-1-5".parse().unwrap()));
        assert!(set.add(&format!("{uuid}:t:7").parse().unwrap()));
        assert_eq!(set.to_string(), format!("{uuid}:t:7"));
    }

    #[test]
    fn one_transaction_in_text() {
        for text in [
            "0-1-5",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:23",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:a_tag:9223372036854775806",
        ] {
            assert_eq!(text.parse::<Gtid>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "0-1",
            "0-1-2-3",
            "3e11fa47:1",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:0",
        ] {
            assert_eq!(text.parse::<Gtid>(), Err(InvalidGtid), "{text}");
        }
    }
}
