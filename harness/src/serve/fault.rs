//! What goes wrong with a served stream, and where.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A place in a recording's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Inside the event that holds this row change (counted from 0 over the whole stream).
    Changes(u64),
    /// At this byte of the stream of events (the recording's bytes, without packet headers).
    Bytes(u64),
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The connection breaks: everything before the place was sent, nothing after it.
    Cut,
    /// The stream stops for a while and goes on.
    Stall(Duration),
    /// So many bytes from the place on are sent one by one.
    Split(u64),
    /// The byte at the place is xored with this.
    Corrupt(u8),
}

/// A fault: once, the first time the place is sent; on a later connection the same place passes unharmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Place,
    /// What.
    pub action: Action,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changes(at) => write!(f, "{at}"),
            Self::Bytes(at) => write!(f, "{at}b"),
        }
    }
}

/// As it is read.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.action {
            Action::Cut => write!(f, "cut@{at}"),
            Action::Stall(pause) => write!(f, "stall@{at}+{}ms", pause.as_millis()),
            Action::Split(bytes) => write!(f, "split@{at}+{bytes}"),
            Action::Corrupt(_) => write!(f, "corrupt@{at}"),
        }
    }
}

/// A text that is no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidFault(String);

impl fmt::Display for InvalidFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: expected cut@PLACE, stall@PLACE+MSms, split@PLACE+BYTES or corrupt@PLACE, where PLACE is a number of changes (400000) or bytes (1024b)",
            self.0
        )
    }
}

impl std::error::Error for InvalidFault {}

impl FromStr for Place {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let number = |text: &str| {
            text.replace('_', "")
                .parse()
                .map_err(|_| InvalidFault(text.into()))
        };
        match text.strip_suffix('b') {
            Some(bytes) => number(bytes).map(Self::Bytes),
            None => number(text).map(Self::Changes),
        }
    }
}

/// `cut@400000`, `stall@1024b+500ms`, `split@0b+4096`, `corrupt@77b`.
impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let wrong = || InvalidFault(text.to_owned());
        let (action, rest) = text.split_once('@').ok_or_else(wrong)?;
        let (place, amount) = match rest.split_once('+') {
            Some((place, amount)) => (place, Some(amount)),
            None => (rest, None),
        };
        let number = |text: Option<&str>| text.and_then(|t| t.parse().ok()).ok_or_else(wrong);
        let action = match (action, amount) {
            ("cut", None) => Action::Cut,
            ("corrupt", None) => Action::Corrupt(0x01),
            ("stall", Some(amount)) => {
                Action::Stall(Duration::from_millis(number(amount.strip_suffix("ms"))?))
            }
            ("split", amount) => Action::Split(number(amount)?),
            _ => return Err(wrong()),
        };
        let at = place.parse()?;
        Ok(Self { at, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let fault = |text: &str| text.parse::<Fault>().map(|f| (f.at, f.action));
        assert_eq!(
            fault("cut@400_000"),
            Ok((Place::Changes(400_000), Action::Cut))
        );
        let stall = Action::Stall(Duration::from_millis(500));
        assert_eq!(fault("stall@1024b+500ms"), Ok((Place::Bytes(1024), stall)));
        assert_eq!(fault("split@0b+9"), Ok((Place::Bytes(0), Action::Split(9))));
        assert_eq!(
            fault("corrupt@7"),
            Ok((Place::Changes(7), Action::Corrupt(1)))
        );
        for text in ["cut@400000", "stall@1024b+500ms", "split@0b+9", "corrupt@7"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for text in ["cut", "cut@x", "stall@1", "split@1", "burn@1", "cut@1+2"] {
            assert!(fault(text).is_err(), "{text}");
        }
    }
}
