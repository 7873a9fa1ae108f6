//! Counts the row changes of a stream that are committed: not those that were rolled back after they had been sent.

use std::collections::HashMap;

/// What stands between the messages that come.
#[derive(Debug, Default, PartialEq, Eq)]
enum Inside {
    /// A transaction that is sent whole, or nothing.
    #[default]
    Whole,
    /// Stream Start and Stream Stop, of this transaction.
    Piece(u32),
    /// Begin Prepare and Prepare, with so many rows so far.
    Prepare(u64),
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Counter {
    inside: Inside,
    /// Rows of open transactions by their parts.
    pieces: HashMap<u32, HashMap<u32, u64>>,
    prepared: HashMap<u32, u64>,
    /// Committed row changes.
    pub(super) changes: u64,
}

impl Counter {
    /// Takes a message of wal2json.
    pub(super) fn json(&mut self, message: &[u8]) {
        let kind = (message.strip_prefix(b"{\"action\":\"")).and_then(<[u8]>::first);
        self.changes += u64::from(matches!(kind, Some(b'I' | b'U' | b'D')));
    }

    /// Takes a message of pgoutput.
    ///
    /// ```text
    /// S xid 4 …   c xid 4 …   A xid 4 part 4 …   I|U|D xid 4 … (in a piece)
    /// b 24 bytes, xid 4 …   P|p|K 25 bytes, xid 4 …   r 33 bytes, xid 4 …
    /// ```
    pub(super) fn pgoutput(&mut self, message: &[u8]) {
        let Some((kind, body)) = message.split_first() else {
            return;
        };
        let number = |at: usize| {
            let bytes = body.get(at..).and_then(<[u8]>::first_chunk);
            bytes.copied().map(u32::from_be_bytes).unwrap_or_default()
        };
        match kind {
            b'S' => self.inside = Inside::Piece(number(0)),
            b'E' => self.inside = Inside::Whole,
            b'b' => self.inside = Inside::Prepare(0),
            b'I' | b'U' | b'D' => match &mut self.inside {
                Inside::Whole => self.changes += 1,
                Inside::Prepare(rows) => *rows += 1,
                Inside::Piece(xid) => {
                    let parts = self.pieces.entry(*xid).or_default();
                    *parts.entry(number(0)).or_default() += 1;
                }
            },
            b'A' if number(0) == number(4) => drop(self.pieces.remove(&number(0))),
            b'A' => {
                if let Some(parts) = self.pieces.get_mut(&number(0)) {
                    parts.remove(&number(4));
                }
            }
            b'c' => self.changes += self.whole(number(0)),
            b'p' => {
                let rows = self.whole(number(25));
                self.prepared.insert(number(25), rows);
            }
            b'P' => {
                if let Inside::Prepare(rows) = std::mem::take(&mut self.inside) {
                    self.prepared.insert(number(25), rows);
                }
            }
            b'K' => self.changes += self.prepared.remove(&number(25)).unwrap_or_default(),
            b'r' => drop(self.prepared.remove(&number(33))),
            _ => {}
        }
    }

    /// All rows of a transaction that came in pieces.
    fn whole(&mut self, xid: u32) -> u64 {
        let parts = self.pieces.remove(&xid).unwrap_or_default();
        parts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_committed_counts() {
        let mut counter = Counter::default();
        let xid = |xid: u32| xid.to_be_bytes();
        let mut send = |parts: &[&[u8]]| counter.pgoutput(&parts.concat());
        send(&[b"B", &[0; 20]]);
        send(&[b"I", &[0; 9]]);
        send(&[b"C", &[0; 25]]);
        for (part, rows) in [(7, 2), (8, 3), (9, 4)] {
            send(&[b"S", &xid(7), &[0]]);
            for _ in 0..rows {
                send(&[b"U", &xid(part), &[0; 9]]);
            }
            send(&[b"E"]);
        }
        send(&[b"A", &xid(7), &xid(8)]);
        send(&[b"c", &xid(7), &[0; 25]]);
        for (gid, decided) in [(20, &b"K"[..]), (21, b"r")] {
            send(&[b"b", &[0; 24], &xid(gid), b"g\0"]);
            (0..10).for_each(|_| send(&[b"D", &[0; 9]]));
            send(&[b"P", &[0; 25], &xid(gid), b"g\0"]);
            let before = if gid == 20 { 25 } else { 33 };
            send(&[decided, &vec![0; before], &xid(gid), b"g\0"]);
        }
        assert_eq!(counter.changes, 1 + 2 + 4 + 10);
    }
}
