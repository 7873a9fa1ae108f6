//! What travels inside CopyData while a server streams its log (section "Streaming Replication Protocol").
//!
//! ```text
//! server  w | start 8 | end 8 | clock 8 | message of the plugin …      XLogData
//!         k | end 8 | clock 8 | reply wanted 1                         primary keepalive
//! client  r | written 8 | flushed 8 | applied 8 | clock 8 | reply 1    standby status update
//! ```
//! Clocks are microseconds since 2000-01-01 UTC.

use super::Lsn;
use super::packet;
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// Bytes of an XLogData before the plugin's message.
pub const XLOG_DATA_HEADER: usize = 25;

/// One CopyData from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication<'a> {
    /// Log.
    XLogData(XLogData<'a>),
    /// A sign of life.
    Keepalive(Keepalive),
}

/// A piece of decoded log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XLogData<'a> {
    /// Where it stands in the log: a row's own LSN; of a commit, where the transaction ends.
    pub start: Lsn,
    /// Where the log ended then.
    pub end: Lsn,
    /// The server's clock.
    pub clock_us: i64,
    /// The plugin's message.
    pub message: &'a [u8],
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Everything before it has been sent, or is not for us.
    pub end: Lsn,
    /// The server's clock.
    pub clock_us: i64,
    /// Whether the server wants a status update at once.
    pub reply: bool,
}

impl<'a> Replication<'a> {
    /// Reads a CopyData's body.
    ///
    /// # Errors
    /// It ends too early or is of another kind.
    #[inline]
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body);
        match cursor.u8("replication message")? {
            b'w' => Ok(Self::XLogData(XLogData {
                start: Lsn(cursor.u64_be("XLogData start")?),
                end: Lsn(cursor.u64_be("XLogData end")?),
                clock_us: cursor.u64_be("XLogData clock")?.cast_signed(),
                message: cursor.rest(),
            })),
            b'k' => {
                let keepalive = Keepalive {
                    end: Lsn(cursor.u64_be("keepalive end")?),
                    clock_us: cursor.u64_be("keepalive clock")?.cast_signed(),
                    reply: cursor.u8("keepalive reply")? != 0,
                };
                cursor.finish("keepalive")?;
                Ok(Self::Keepalive(keepalive))
            }
            other => Err(cursor.invalid("replication message", other.into())),
        }
    }
}

/// How far the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusUpdate {
    /// Received.
    pub written: Lsn,
    /// Durable: the slot's `confirmed_flush_lsn`.
    pub flushed: Lsn,
    /// Visible.
    pub applied: Lsn,
    /// The client's clock.
    pub clock_us: i64,
    /// Whether the server is to answer with a keepalive at once.
    pub reply: bool,
}

impl StatusUpdate {
    /// Appends it as a CopyData message.
    pub fn write(&self, out: &mut Vec<u8>) {
        packet::write(out, b'd', |out| {
            out.push(b'r');
            for lsn in [self.written, self.flushed, self.applied] {
                out.extend_from_slice(&lsn.0.to_be_bytes());
            }
            out.extend_from_slice(&self.clock_us.to_be_bytes());
            out.push(self.reply.into());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_server_sent() {
        // From a real server: a Begin of 21 bytes at 0/49C7B750.
        let body =
            b"w\0\0\0\0\x49\xc7\xb7\x50\0\0\0\0\x49\xc7\xb7\x50\0\x03\x03\xc4\x52\x73\xb8\x5cB";
        let Replication::XLogData(data) = Replication::decode(body).unwrap() else {
            panic!("log");
        };
        assert_eq!(data.start.to_string(), "0/49C7B750");
        assert_eq!(
            (data.message, data.clock_us),
            (&b"B"[..], 848_566_661_920_860)
        );
        for cut in 0..XLOG_DATA_HEADER {
            assert!(Replication::decode(&body[..cut]).is_err());
        }
        let keepalive = b"k\0\0\0\0\0\0\0\x1b\0\0\0\0\0\0\0\x05\x01";
        let expected = Keepalive {
            end: Lsn(27),
            clock_us: 5,
            reply: true,
        };
        assert_eq!(
            Replication::decode(keepalive),
            Ok(Replication::Keepalive(expected))
        );
        assert!(Replication::decode(b"k\0\0\0\0\0\0\0\x1b\0\0\0\0\0\0\0\x05\x01\0").is_err());
        assert!(Replication::decode(b"x").is_err());
    }

    #[test]
    fn a_status_update_is_34_bytes_in_a_message() {
        let mut out = Vec::new();
        let update = StatusUpdate {
            written: Lsn(1),
            flushed: Lsn(2),
            applied: Lsn(3),
            clock_us: -1,
            reply: true,
        };
        update.write(&mut out);
        assert_eq!(
            out,
            *b"d\0\0\0\x26r\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        );
    }
}
