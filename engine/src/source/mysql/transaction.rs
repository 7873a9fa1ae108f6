//! Where the stream stands, and the transaction that is being read.

use std::sync::Arc;

use protocol::mysql::BinlogPosition;
use protocol::mysql::event::Header;
use protocol::mysql::gtid::{Gtid, GtidSet};

/// A place in the server's binary log, with all 64 bits of the offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn new(position: &BinlogPosition) -> Self {
        Self {
            file: Arc::clone(&position.file),
            offset: position.offset,
        }
    }

    pub(super) fn to_position(&self) -> BinlogPosition {
        BinlogPosition {
            file: Arc::clone(&self.file),
            offset: self.offset,
        }
    }

    /// Moves past an event and returns the offset of its first byte. Events that stand in no file move nothing.
    ///
    /// The header has the low 32 bits of the offset after the event. Servers leave out what the replica has already, but say so
    /// by a heartbeat, so that the place never jumps by 4 GiB unseen.
    #[inline]
    pub(super) fn advance(&mut self, header: &Header) -> u64 {
        if header.next_position == 0 || header.is_artificial() {
            return self.offset;
        }
        self.widen(header.next_position);
        self.offset.saturating_sub(u64::from(header.length))
    }

    /// After [`Place::advance`] past an event that does not stand before offset `least` of the file: moves behind it where that went
    /// wrong for lack of the offset's other bits, and returns the offset of its first byte then.
    pub(super) fn advance_behind(&mut self, least: u64, header: &Header) -> Option<u64> {
        if self.offset >= least || header.next_position == 0 || header.is_artificial() {
            return None;
        }
        let forward = header.next_position.wrapping_sub(least as u32);
        self.offset = least + u64::from(forward);
        Some(self.offset.saturating_sub(u64::from(header.length)))
    }

    /// Moves on to the next offset whose low 32 bits are `low`; not at all when that is more than 2 GiB away, because then it lies
    /// behind.
    #[inline]
    pub(super) fn widen(&mut self, low: u32) {
        let forward = low.wrapping_sub(self.offset as u32);
        if forward < 1 << 31 {
            self.offset += u64::from(forward);
        }
    }

    /// Moves to `offset` of `file`.
    pub(super) fn jump(&mut self, file: &str, offset: u64) {
        if &*self.file != file {
            self.file = file.into();
        }
        self.offset = offset;
    }
}

/// A place between two transactions, and the GTIDs executed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) place: Place,
    /// `None` without GTIDs, or when the stream began at a place whose GTIDs nobody knows.
    pub(super) gtids: Option<GtidSet>,
}

/// The transaction being read.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// Its first event.
    pub(super) first: Place,
    /// Its identity; `None` for anonymous ones.
    pub(super) gtid: Option<Gtid>,
    /// Microseconds since 1970 of its original commit.
    pub(super) commit_us: Option<u64>,
    /// The session that wrote it.
    pub(super) thread: Option<u32>,
    /// Whether BEGIN (or what stands for it) was read: only a commit ends it then.
    pub(super) begun: bool,
    /// Rows read so far, of all tables.
    pub(super) rows: u64,
    /// Rows of captured tables among them: what cannot be taken back.
    pub(super) captured: u64,
    /// Where the transaction stands in the present batch: the batch's number, and its index there.
    pub(super) slot: Option<(u64, u32)>,
}

impl Open {
    pub(super) fn new(first: Place) -> Self {
        Self {
            first,
            gtid: None,
            commit_us: None,
            thread: None,
            begun: false,
            rows: 0,
            captured: 0,
            slot: None,
        }
    }

    /// What finds this transaction again on a new connection.
    pub(super) fn id(&self) -> TransactionId {
        match self.gtid {
            Some(gtid) => TransactionId::Gtid(gtid),
            None => TransactionId::Place(self.first.clone()),
        }
    }
}

/// What names a transaction across connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TransactionId {
    /// By GTID, on every server.
    Gtid(Gtid),
    /// By place, on the same server.
    Place(Place),
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gtid(gtid) => gtid.fmt(f),
            Self::Place(place) => place.to_position().fmt(f),
        }
    }
}

/// Rows of a transaction that were handed out before the connection was lost: they come again and are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) transaction: TransactionId,
    pub(super) rows: u64,
}

#[cfg(test)]
mod tests {
    use protocol::mysql::event::Kind;

    use super::*;

    fn header(length: u32, next_position: u32, flags: u16) -> Header {
        Header {
            timestamp_s: 0,
            kind: Kind::XID,
            server_id: 1,
            length,
            next_position,
            flags,
        }
    }

    #[test]
    fn offsets_go_on_beyond_32_bits() {
        let mut place = Place {
            file: "b.1".into(),
            offset: 0xffff_ff00,
        };
        assert_eq!(place.advance(&header(0x80, 0xffff_ff80, 0)), 0xffff_ff00);
        assert_eq!(place.advance(&header(0x100, 0x80, 0)), 0xffff_ff80);
        assert_eq!(place.offset, 0x1_0000_0080);
        assert_eq!(place.advance(&header(50, 0, 0)), 0x1_0000_0080);
        assert_eq!(place.advance(&header(50, 4711, 0x20)), 0x1_0000_0080);
        assert_eq!(place.offset, 0x1_0000_0080);
        // What the server left out is jumped over.
        assert_eq!(place.advance(&header(0x10, 0x1000, 0)), 0x1_0000_0ff0);
        // Unless it is known not to be there: from the start of the file, 5 GiB and 3 GiB may be left out.
        for behind in [5_u64 << 30, 3 << 30] {
            let mut place = Place {
                file: "b.1".into(),
                offset: 4,
            };
            let header = header(0x10, (behind + 0x20) as u32, 0);
            assert_ne!(place.advance(&header), behind + 0x10);
            assert_eq!(place.advance_behind(behind, &header), Some(behind + 0x10));
            assert_eq!(place.offset, behind + 0x20);
            assert_eq!(place.advance_behind(behind, &header), None);
        }
        // A heartbeat about what was read already moves nothing.
        place.widen(0xff0);
        assert_eq!(place.offset, 0x1_0000_1000);
    }
}
