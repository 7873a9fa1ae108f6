//! Commands of the replication protocol (section "Streaming Replication Protocol"), as text of a simple query.

use std::fmt::Write as _;

use super::Lsn;
use super::packet;

/// Appends a simple query.
pub fn write_query(out: &mut Vec<u8>, statement: &str) {
    packet::write(out, b'Q', |out| packet::write_text(out, statement));
}

/// Appends a CopyDone: the client ends a stream.
pub fn write_copy_done(out: &mut Vec<u8>) {
    packet::write(out, b'c', |_| {});
}

/// Appends a Terminate.
pub fn write_terminate(out: &mut Vec<u8>) {
    packet::write(out, b'X', |_| {});
}

/// Which cluster this is, on which timeline, and where its log stands: `systemid`, `timeline`, `xlogpos`, `dbname`.
pub const IDENTIFY_SYSTEM: &str = "IDENTIFY_SYSTEM";

/// How a timeline came to be: `filename`, `content`.
#[must_use]
pub fn timeline_history(timeline: u32) -> String {
    format!("TIMELINE_HISTORY {timeline}")
}

/// A logical slot to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateSlot<'a> {
    /// Its name.
    pub name: &'a str,
    /// What decodes for it.
    pub plugin: &'a str,
    /// Whether it goes with the session.
    pub temporary: bool,
    /// Whether standbys keep it, too (17 and later).
    pub failover: bool,
}

impl CreateSlot<'_> {
    /// The command, without exporting a snapshot: in the form with options in parentheses from version 15 on, in the older one before.
    #[must_use]
    pub fn text(&self, major: u32) -> String {
        let mut text = format!("CREATE_REPLICATION_SLOT {}", quoted(self.name));
        if self.temporary {
            text.push_str(" TEMPORARY");
        }
        let _ = write!(text, " LOGICAL {}", quoted(self.plugin));
        match major {
            15.. => {
                text.push_str(" (SNAPSHOT 'nothing'");
                if self.failover && major >= 17 {
                    text.push_str(", FAILOVER true");
                }
                text.push(')');
            }
            _ => text.push_str(" NOEXPORT_SNAPSHOT"),
        }
        text
    }
}

/// The stream of a slot from `start` on, with the plugin's options.
#[must_use]
pub fn start_replication(slot: &str, start: Lsn, options: &[(&str, String)]) -> String {
    let mut text = format!("START_REPLICATION SLOT {} LOGICAL {start}", quoted(slot));
    for (n, (name, value)) in options.iter().enumerate() {
        let before = if n == 0 { " (" } else { ", " };
        let _ = write!(text, "{before}{} {}", quoted(name), literal(value));
    }
    if !options.is_empty() {
        text.push(')');
    }
    text
}

/// A quoted identifier.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant of the replication grammar, which knows no escapes but doubled quotes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_the_manuals() {
        let slot = CreateSlot {
            name: "walbrook_shop",
            plugin: "pgoutput",
            temporary: true,
            failover: true,
        };
        let begin = "CREATE_REPLICATION_SLOT \"walbrook_shop\" TEMPORARY LOGICAL \"pgoutput\"";
        assert_eq!(slot.text(14), format!("{begin} NOEXPORT_SNAPSHOT"));
        assert_eq!(slot.text(15), format!("{begin} (SNAPSHOT 'nothing')"));
        assert_eq!(
            slot.text(17),
            format!("{begin} (SNAPSHOT 'nothing', FAILOVER true)")
        );
        assert_eq!(
            start_replication(
                "s",
                Lsn(27),
                &[
                    ("proto_version", "1".into()),
                    ("publication_names", "\"it's\"".into())
                ]
            ),
            "START_REPLICATION SLOT \"s\" LOGICAL 0/1B (\"proto_version\" '1', \"publication_names\" '\"it''s\"')"
        );
        assert_eq!(
            start_replication("s", Lsn(27), &[]),
            "START_REPLICATION SLOT \"s\" LOGICAL 0/1B"
        );
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        let mut out = Vec::new();
        write_query(&mut out, "SELECT 1");
        assert_eq!(out, *b"Q\0\0\0\x0dSELECT 1\0");
    }
}
