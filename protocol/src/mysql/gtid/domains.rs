//! MariaDB's GTIDs: `domain-server-sequence`, and a position as the last one of each domain.

use std::fmt;
use std::str::FromStr;

use super::InvalidGtid;

/// The name of one MariaDB transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainGtid {
    /// Replication domain (`gtid_domain_id`).
    pub domain: u32,
    /// The server that committed it first (`server_id`).
    pub server: u32,
    /// Number within the domain.
    pub sequence: u64,
}

impl fmt::Display for DomainGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for DomainGtid {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        let mut parts = text.trim().split('-');
        let mut next = || match parts.next() {
            Some(part) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => Ok(part),
            _ => Err(InvalidGtid),
        };
        let (domain, server, sequence) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(InvalidGtid);
        }
        Ok(Self {
            domain: domain.parse().map_err(|_| InvalidGtid)?,
            server: server.parse().map_err(|_| InvalidGtid)?,
            sequence: sequence.parse().map_err(|_| InvalidGtid)?,
        })
    }
}

/// A MariaDB position: the last transaction of each domain, in the order of domains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DomainSet {
    last: Vec<DomainGtid>,
}

impl DomainSet {
    /// Whether there is no domain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// The last transaction of each domain, in the order of domains.
    #[must_use]
    pub fn domains(&self) -> &[DomainGtid] {
        &self.last
    }

    /// The last transaction of `domain`.
    #[must_use]
    pub fn last(&self, domain: u32) -> Option<DomainGtid> {
        let at = self.find(domain).ok()?;
        self.last.get(at).copied()
    }

    /// Makes `gtid` its domain's last transaction, unless a later one (higher sequence) is there.
    pub fn add(&mut self, gtid: DomainGtid) {
        match self.find(gtid.domain) {
            Ok(at) => {
                if let Some(last) = self.last.get_mut(at)
                    && last.sequence <= gtid.sequence
                {
                    *last = gtid;
                }
            }
            Err(at) => self.last.insert(at, gtid),
        }
    }

    /// Adds the domains of `other`.
    pub fn merge(&mut self, other: &Self) {
        for gtid in &other.last {
            self.add(*gtid);
        }
    }

    /// Whether its domain has come at least as far.
    #[must_use]
    pub fn contains(&self, gtid: DomainGtid) -> bool {
        self.last(gtid.domain)
            .is_some_and(|last| gtid.sequence <= last.sequence)
    }

    /// Whether every domain has come at least as far in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.last.iter().all(|gtid| other.contains(*gtid))
    }

    fn find(&self, domain: u32) -> Result<usize, usize> {
        self.last.binary_search_by_key(&domain, |gtid| gtid.domain)
    }
}

impl fmt::Display for DomainSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.last.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            gtid.fmt(f)?;
        }
        Ok(())
    }
}

/// A domain that is named twice is an error: such a text (`@@gtid_binlog_state`) is not a position.
impl FromStr for DomainSet {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        let mut set = Self::default();
        if text.trim().is_empty() {
            return Ok(set);
        }
        for part in text.split(',') {
            let gtid: DomainGtid = part.parse()?;
            let at = set.find(gtid.domain).err().ok_or(InvalidGtid)?;
            set.last.insert(at, gtid);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_the_last_of_each_domain() {
        let mut set: DomainSet = "1-1-7, 0-1-5".parse().unwrap();
        assert_eq!(set.to_string(), "0-1-5,1-1-7");
        set.add("0-2-6".parse().unwrap());
        set.add("0-1-4".parse().unwrap());
        assert_eq!(set.to_string(), "0-2-6,1-1-7");
        assert!(set.contains("0-9-6".parse().unwrap()));
        assert!(!set.contains("2-1-1".parse().unwrap()));
        assert!("0-1-6".parse::<DomainSet>().unwrap().is_subset(&set));
        assert!(!set.is_subset(&"0-1-6".parse().unwrap()));
        assert!("0-1-5,0-2-6".parse::<DomainSet>().is_err());
        assert!("0-1-5,".parse::<DomainSet>().is_err());
        assert!("+0-1-5".parse::<DomainSet>().is_err());
    }

    proptest! {
        #[test]
        fn text_round_trip(gtids in proptest::collection::vec((0u32..5, any::<u32>(), any::<u64>()), 0..12)) {
            let mut set = DomainSet::default();
            for (domain, server, sequence) in gtids {
                set.add(DomainGtid { domain, server, sequence });
            }
            prop_assert_eq!(set.to_string().parse::<DomainSet>().unwrap(), set);
        }
    }
}
