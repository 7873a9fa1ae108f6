//! Commands of the replication protocol.
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use protocol::postgres::Lsn;

use super::error::Failure;
use super::lexer::{Token, tokens};

/// Name and value of an option; without a value it is switched on.
pub(super) type Options = Vec<(String, Option<String>)>;

/// A command that is no SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    IdentifySystem,
    TimelineHistory(u32),
    CreateSlot {
        name: String,
        temporary: bool,
        plugin: String,
        options: Options,
    },
    DropSlot(String),
    ReadSlot(String),
    Start {
        slot: String,
        at: Lsn,
        options: Options,
    },
}

const KEYWORDS: [&str; 6] = [
    "identify_system",
    "timeline_history",
    "create_replication_slot",
    "drop_replication_slot",
    "read_replication_slot",
    "start_replication",
];

/// Reads `statement`; `None` when it is no command of this protocol, but SQL perhaps.
pub(super) fn parse(statement: &str) -> Result<Option<Command>, Failure> {
    let Some(tokens) = tokens(statement) else {
        return Ok(None);
    };
    let first = tokens.first().and_then(Token::name).unwrap_or_default();
    if !KEYWORDS.contains(&first) {
        return Ok(None);
    }
    let mut rest = Rest(&tokens[1..]);
    let command = match first {
        "identify_system" => Command::IdentifySystem,
        "timeline_history" => {
            let number = rest.value()?;
            Command::TimelineHistory(number.parse().map_err(|_| rest.wrong())?)
        }
        "create_replication_slot" => {
            let name = rest.name()?;
            let temporary = rest.keyword("temporary");
            rest.logical()?;
            let plugin = rest.name()?;
            let mut options = rest.options()?;
            // Before 15 options stood one after the other, without parentheses.
            while let Some(option) = rest.0.first().and_then(Token::name) {
                options.push((option.to_owned(), None));
                rest.0 = &rest.0[1..];
            }
            Command::CreateSlot {
                name,
                temporary,
                plugin,
                options,
            }
        }
        "drop_replication_slot" => {
            let name = rest.name()?;
            // A replay server's sessions do not wait for each other.
            rest.keyword("wait");
            Command::DropSlot(name)
        }
        "read_replication_slot" => Command::ReadSlot(rest.name()?),
        _ => {
            if !rest.keyword("slot") {
                return Err(physical());
            }
            let slot = rest.name()?;
            rest.logical()?;
            Command::Start {
                slot,
                at: rest.lsn()?,
                options: rest.options()?,
            }
        }
    };
    match rest.0 {
        [] => Ok(Some(command)),
        _ => Err(rest.wrong()),
    }
}

fn physical() -> Failure {
    Failure::new("0A000", "a replay server knows no physical replication")
}

/// What is still to be read.
struct Rest<'t>(&'t [Token]);

impl Rest<'_> {
    fn wrong(&self) -> Failure {
        let near = match self.0.first() {
            None => "end of input".to_owned(),
            Some(Token::Symbol(c)) => format!("near \"{c}\""),
            Some(token) => format!("near \"{}\"", token.value().unwrap_or_default()),
        };
        let near = near.replace("near \"", "or near \"");
        Failure::new("42601", format!("syntax error at {near}"))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let is_there = self.0.first().is_some_and(|token| token.is(keyword));
        if is_there {
            self.0 = &self.0[1..];
        }
        is_there
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let is_there = self.0.first() == Some(&Token::Symbol(symbol));
        if is_there {
            self.0 = &self.0[1..];
        }
        is_there
    }

    fn logical(&mut self) -> Result<(), Failure> {
        match self.keyword("logical") {
            true => Ok(()),
            false if self.0.first().is_some_and(|token| token.is("physical")) => Err(physical()),
            false => Err(self.wrong()),
        }
    }

    fn name(&mut self) -> Result<String, Failure> {
        let name = self.0.first().and_then(Token::name).map(str::to_owned);
        let name = name.ok_or_else(|| self.wrong())?;
        self.0 = &self.0[1..];
        Ok(name)
    }

    fn value(&mut self) -> Result<String, Failure> {
        let value = self.0.first().and_then(Token::value).map(str::to_owned);
        let value = value.ok_or_else(|| self.wrong())?;
        self.0 = &self.0[1..];
        Ok(value)
    }

    fn lsn(&mut self) -> Result<Lsn, Failure> {
        let high = self.name()?;
        let low = match self.symbol('/') {
            true => self.name()?,
            false => return Err(self.wrong()),
        };
        format!("{high}/{low}").parse().map_err(|_| self.wrong())
    }

    /// `(name value, name, …)`, or nothing.
    fn options(&mut self) -> Result<Options, Failure> {
        let mut options = Vec::new();
        if !self.symbol('(') {
            return Ok(options);
        }
        if self.symbol(')') {
            return Ok(options);
        }
        loop {
            let name = self.name()?;
            let value = match self.0.first() {
                Some(Token::Symbol(_)) | None => None,
                Some(_) => Some(self.value()?),
            };
            options.push((name, value));
            if self.symbol(')') {
                return Ok(options);
            }
            if !self.symbol(',') {
                return Err(self.wrong());
            }
        }
    }
}

/// What an option's value means where it is a switch.
pub(super) fn is_on(value: Option<&str>) -> Option<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "on" | "yes" | "1" | "t" | "y") => Some(true),
        Some("false" | "off" | "no" | "0" | "f" | "n") => Some(false),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_several_clients() {
        let start = parse(
            "START_REPLICATION SLOT \"s\" LOGICAL 16/B374D848 (\"proto_version\" '1', publication_names '\"a\",b', binary)",
        );
        let option = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let expected = Command::Start {
            slot: "s".into(),
            at: Lsn(0x16_b374_d848),
            options: vec![
                option("proto_version", "1"),
                option("publication_names", "\"a\",b"),
                ("binary".into(), None),
            ],
        };
        assert_eq!(start, Ok(Some(expected)));
        for text in [
            "CREATE_REPLICATION_SLOT t TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')",
            "CREATE_REPLICATION_SLOT t TEMPORARY LOGICAL \"pgoutput\" NOEXPORT_SNAPSHOT",
        ] {
            let Ok(Some(Command::CreateSlot {
                temporary: true,
                plugin,
                options,
                ..
            })) = parse(text)
            else {
                panic!("{text}");
            };
            assert_eq!((plugin.as_str(), options.len()), ("pgoutput", 1));
        }
        assert_eq!(
            parse("DROP_REPLICATION_SLOT x WAIT"),
            Ok(Some(Command::DropSlot("x".into())))
        );
        assert_eq!(parse("SHOW wal_level"), Ok(None));
    }

    #[test]
    fn what_is_no_command_says_where() {
        let error = |text: &str| parse(text).unwrap_err().message;
        assert_eq!(
            error("START_REPLICATION SLOT s LOGICAL 0"),
            "syntax error at end of input"
        );
        assert_eq!(error("IDENTIFY_SYSTEM x"), "syntax error at or near \"x\"");
        assert_eq!(
            error("START_REPLICATION SLOT s LOGICAL 0/0 (a 'b' c)"),
            "syntax error at or near \"c\""
        );
        assert!(error("START_REPLICATION 0/0").contains("physical"));
    }
}
