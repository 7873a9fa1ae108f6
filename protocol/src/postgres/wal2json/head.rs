//! What a row's head has in common with the row's before.
//!
//! ```text
//! {"action":"I","xid":731,"timestamp":"2026-11-21 14:47:46.114922+00","lsn":"0/195F760","schema":"shop","table":"t","columns":[…
//!            ^  before                                                     ^^^^^^^^^  behind                         ^ row
//! ```
//! Within a transaction the rows of a table differ in their action and their place only, so that both literals are compared and nothing
//! is read but the place. What differs in anything else is for [`Message::decode`] to read.

use super::scan::{leading_lsn, starts_with};
use super::{Action, Lsn, Message};

/// What each head begins with, up to the action's letter.
const ACTION: &[u8] = b"{\"action\":\"";
/// Longest part of a head that is remembered.
const PART_MAX: usize = 4096;

/// The head of the last row that was read whole.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    /// From behind the action's letter up to the place's first digit.
    before: Vec<u8>,
    /// From behind the place's last digit up to the row. Empty: nothing is remembered.
    behind: Vec<u8>,
}

/// A head that differs from the remembered one in nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// What it is about: a row.
    pub action: Action,
    /// As [`Message::lsn`].
    pub lsn: Lsn,
    /// As [`Message::row_at`].
    pub row_at: usize,
}

impl Heads {
    /// Reads the head of `bytes`, one message, if only its action and its place are others than those of the head that was remembered.
    /// `None` says nothing about the message: [`Message::decode`] reads it.
    #[must_use]
    #[inline]
    pub fn again(&self, bytes: &[u8]) -> Option<Again> {
        if self.behind.is_empty() {
            return None;
        }
        let (letter, rest) = bytes.strip_prefix(ACTION)?.split_first()?;
        let action = match letter {
            b'I' => Action::Insert,
            b'U' => Action::Update,
            b'D' => Action::Delete,
            _ => return None,
        };
        if !starts_with(rest, &self.before) {
            return None;
        }
        let rest = rest.get(self.before.len()..)?;
        let (lsn, length) = leading_lsn(rest)?;
        let rest = rest.get(length..)?;
        if !starts_with(rest, &self.behind) {
            return None;
        }
        let row = rest.get(self.behind.len()..)?;
        (row.starts_with(b"\"columns\":") || row.starts_with(b"\"identity\":")).then(|| Again {
            action,
            lsn,
            row_at: bytes.len() - row.len(),
        })
    }

    /// Remembers the head of `bytes`, which [`Message::decode`] made `message` of; nothing where that is no row with a place.
    pub fn remember(&mut self, bytes: &[u8], message: &Message<'_>) {
        self.before.clear();
        self.behind.clear();
        if !matches!(
            message.action,
            Action::Insert | Action::Update | Action::Delete
        ) {
            return;
        }
        let Some(place) = &message.lsn_text else {
            return;
        };
        let (start, end) = (place.at(), place.at() + place.raw().len());
        let parts = (
            bytes.get(ACTION.len() + 1..start),
            bytes.get(end..message.row_at),
        );
        // Anything but the plugin's own writing of the action is read whole each time.
        if let (Some(before), Some(behind)) = parts
            && bytes.starts_with(ACTION)
            && before.first() == Some(&b'"')
            && before.len().max(behind.len()) <= PART_MAX
        {
            self.before.extend_from_slice(before);
            self.behind.extend_from_slice(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What [`Message::decode`] says of a head that is like `of`'s in everything but action and place.
    fn like<'a>(message: &Message<'a>, of: &Message<'_>) -> bool {
        let text = |of: Option<super::super::JsonText<'_>>| of.map(|it| it.raw().to_vec());
        let names = |of: &Message<'_>| (of.schema.raw().to_vec(), of.table.raw().to_vec());
        (message.xid, text(message.timestamp), names(message))
            == (of.xid, text(of.timestamp), names(of))
            && (message.next_lsn, message.transactional) == (of.next_lsn, of.transactional)
    }

    /// Reads `messages` one after the other as the engine does, and compares what is read in short with what is read whole. How many were
    /// read in short.
    fn read(messages: &[Vec<u8>]) -> usize {
        let mut heads = Heads::default();
        let mut last = None;
        let mut short = 0;
        for bytes in messages {
            let whole = Message::decode(bytes);
            match (heads.again(bytes), whole) {
                (None, Ok(message)) => {
                    heads.remember(bytes, &message);
                    last = Some(message);
                }
                (None, Err(_)) => {}
                (Some(again), whole) => {
                    let whole = whole.expect("what is read in short can be read whole");
                    assert_eq!(
                        (again.action, Some(again.lsn), again.row_at),
                        (whole.action, whole.lsn, whole.row_at)
                    );
                    assert!(like(&whole, &last.expect("one was remembered")));
                    short += 1;
                }
            }
        }
        short
    }

    fn head(action: &str, xid: &str, lsn: &str, schema: &str, table: &str, row: &str) -> Vec<u8> {
        format!(
            r#"{{"action":"{action}","xid":{xid},"timestamp":"2026-11-21 14:47:46.114922+00","lsn":{lsn},"schema":"{schema}","table":"{table}",{row}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn rows_of_a_table_in_a_transaction_are_read_in_short() {
        let (columns, identity) = (r#""columns":[]"#, r#""identity":[]"#);
        let first = head("I", "7", r#""0/9""#, "s", "t", columns);
        for (message, is_like) in [
            (head("I", "7", r#""0/9""#, "s", "t", columns), true),
            (head("U", "7", r#""16/B374D848""#, "s", "t", columns), true),
            (head("D", "7", r#""FFFFFFFF/ab""#, "s", "t", identity), true),
            (head("B", "7", r#""0/9""#, "s", "t", columns), false),
            (head("I", "8", r#""0/9""#, "s", "t", columns), false),
            (head("I", "7", r#""0/9""#, "s", "u", columns), false),
            (head("I", "7", r#""0/9""#, "r", "t", columns), false),
            (head("I", "7", r#""0/9""#, "s", "t", r#""pk":[]"#), false),
            (head("I", "7", r#""0/9""#, "s", "t", r#""new":1"#), false),
            (head("I", "7", r#""0/9""#, "s", "t\\u0021", columns), false),
            (head("I", "7", "null", "s", "t", columns), false),
            (head("I", "7", r#""0/""#, "s", "t", columns), false),
            (head("I", "7", r#""/9""#, "s", "t", columns), false),
            (head("I", "7", r#""0/9/9""#, "s", "t", columns), false),
            (head("I", "7", r#""0/123456789""#, "s", "t", columns), false),
            (head("I", "7", r#""0/9g""#, "s", "t", columns), false),
        ] {
            let text = String::from_utf8_lossy(&message).into_owned();
            let is_read = read(&[first.clone(), message]) == 1;
            assert_eq!(is_read, is_like, "{text}");
        }
        // Nothing is remembered at first, of anything but rows, and without a place.
        assert_eq!(Heads::default().again(&first), None);
        let silent = head("I", "7", "null", "s", "t", columns);
        assert_eq!(read(&[silent.clone(), silent]), 0);
        let truncate = head("T", "7", r#""0/9""#, "s", "t", r#""x":1"#);
        assert_eq!(read(&[first.clone(), truncate, first.clone()]), 0);
        // The last place of two counts, in short as well.
        let twice = |lsn| head("I", "7", r#""0/1","lsn":"0/2""#, lsn, "t", columns);
        assert_eq!(read(&[twice("s"), twice("s")]), 1);
    }

    #[test]
    fn cut_or_damaged_it_is_read_as_if_it_were_the_first() {
        let row = r#""columns":[{"name":"id","type":"bigint","value":1}]"#;
        let first = head("I", "7", r#""16/B374D848""#, "shop", "events", row);
        for cut in 0..first.len() {
            read(&[first.clone(), first[..cut].to_vec()]);
        }
        for at in 0..first.len() {
            for flip in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40, 0x80, 0xff] {
                let mut damaged = first.clone();
                damaged[at] ^= flip;
                read(&[first.clone(), damaged.clone(), first.clone(), damaged]);
            }
        }
    }

    /// A member of a head, written as plugins might.
    fn member() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..3).prop_map(|xid| format!(r#""xid":{xid}"#)),
            Just(r#""xid" : null"#.to_owned()),
            (0..3).prop_map(|us| format!(r#""timestamp":"2026-11-21 14:47:46.11492{us}+00""#)),
            "[0-9A-Fa-f]{1,9}/[0-9A-Fa-f]{1,9}".prop_map(|lsn| format!(r#""lsn":"{lsn}""#)),
            "[0-9A-F]{1,2}/[0-9A-F]{1,8}".prop_map(|lsn| format!(r#""lsn":"{lsn}""#)),
            Just(r#""nextlsn":"0/1""#.to_owned()),
            "[st]|\\\\u0073".prop_map(|schema| format!(r#""schema":"{schema}""#)),
            "[st]|lsn".prop_map(|table| format!(r#""table":"{table}""#)),
            Just(r#""columns":[]"#.to_owned()),
            Just(r#""identity":[]"#.to_owned()),
            Just(r#""note":{"lsn":"0/1"}"#.to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn any_heads_are_read_in_short_as_whole(
            members in prop::collection::vec(member(), 2..7),
            messages in prop::collection::vec(
                ("[BIUDT]", "[0-9A-F]{1,9}", prop::option::weighted(0.3, (0_usize..7, member())), " {0,1}", "columns|identity|pk"),
                1..8,
            ),
        ) {
            // Mostly the same members, each time another place.
            let messages: Vec<Vec<u8>> = messages.iter().map(|(action, lsn, other, blank, row)| {
                let mut members = members.clone();
                if let Some((at, other)) = other {
                    let at = at % members.len();
                    members[at] = other.clone();
                }
                let members = members.join(&format!("{blank},"));
                format!(
                    r#"{{"action":"{action}",{members},"lsn":"0/{lsn}","schema":"s","table":"t","{row}":[]}}"#
                ).into_bytes()
            }).collect();
            read(&messages);
        }
    }
}
