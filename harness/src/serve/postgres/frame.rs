//! As much of a recorded message as its place in the film depends on: where transactions begin and end, which table a row is of.
//!
//! Written apart from the decoders of `protocol`, which read the same bytes in the engine: what they get wrong together would not be
//! seen. Nothing here is on a socket's way; a recording that does not fit is an error when it is loaded.

use protocol::postgres::Lsn;

/// Bytes before a plugin's message: tag, length, 'w', start, end, clock.
pub(super) const PAYLOAD: usize = 5 + 1 + 8 + 8 + 8;

/// A recorded CopyData message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// XLogData.
    Data {
        /// Its LSN; of a commit the end of the commit record.
        start: Lsn,
        /// The plugin's message.
        payload: &'a [u8],
    },
    /// A keepalive.
    Keepalive {
        /// How far the server has read.
        end: Lsn,
    },
}

/// What a plugin's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// A transaction begins; its commit record's LSN where the message tells.
    Begin { commit: Option<Lsn> },
    /// A transaction ends.
    Commit { commit: Option<Lsn>, end: Lsn },
    /// A streamed transaction's piece begins.
    StreamStart { xid: u32 },
    /// … and ends.
    StreamStop,
    /// A part of a streamed transaction is rolled back, which does not end it.
    StreamPart { xid: u32 },
    /// A streamed transaction ends, by commit, prepare or abort.
    StreamEnd { xid: u32, end: Option<Lsn> },
    /// A table's definition.
    Relation { table: u32 },
    /// A type's name, before the definitions that need it.
    Type,
    /// A row of a table.
    Row { table: u32 },
    /// Tables emptied; the first of them.
    Truncate { table: u32 },
    /// A message that is written at once, whatever becomes of the transaction.
    Loose { at: Lsn },
    /// Anything else.
    Other,
}

/// Reads big-endian numbers, as far as there are bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*head)
    }

    fn int(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, String> {
        self.take().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }
}

/// The message at the start of `bytes` and its length with the header.
pub(super) fn next(bytes: &[u8]) -> Result<(Frame<'_>, usize), String> {
    let mut fields = Fields(bytes);
    let [tag] = fields.take()?;
    let length = fields.int()? as usize + 1;
    let body = bytes.get(5..length).ok_or("it is cut short")?;
    if tag != b'd' {
        return Err(format!("{:?} where CopyData is expected", tag as char));
    }
    let mut fields = Fields(body);
    let frame = match fields.take()? {
        [b'w'] => Frame::Data {
            start: fields.lsn()?,
            payload: body.get(PAYLOAD - 5..).ok_or("it is cut short")?,
        },
        [b'k'] => Frame::Keepalive { end: fields.lsn()? },
        [other] => return Err(format!("CopyData of unknown kind {:?}", other as char)),
    };
    Ok((frame, length))
}

/// What the message is. `streamed`: inside a piece of a streamed transaction, where changes carry the transaction's number.
pub(super) fn note(frame: &Frame<'_>, streamed: bool) -> Result<Note, String> {
    match frame {
        Frame::Keepalive { .. } => Ok(Note::Other),
        Frame::Data { payload, start } if payload.first() == Some(&b'{') => {
            wal2json(payload, *start)
        }
        Frame::Data { payload, .. } => pgoutput(payload, streamed),
    }
}

fn pgoutput(payload: &[u8], streamed: bool) -> Result<Note, String> {
    let mut fields = Fields(payload);
    let [tag] = fields.take()?;
    if streamed && b"RYIUDTM".contains(&tag) {
        fields.int()?;
    }
    Ok(match tag {
        b'B' | b'b' => Note::Begin {
            commit: Some(fields.lsn()?),
        },
        b'C' | b'P' | b'K' => {
            fields.take::<1>()?;
            Note::Commit {
                commit: Some(fields.lsn()?),
                end: fields.lsn()?,
            }
        }
        b'r' => {
            let _ = (fields.take::<1>()?, fields.lsn()?);
            Note::Commit {
                commit: None,
                end: fields.lsn()?,
            }
        }
        b'S' => Note::StreamStart { xid: fields.int()? },
        b'E' => Note::StreamStop,
        b'c' => {
            let xid = fields.int()?;
            let _ = (fields.take::<1>()?, fields.lsn()?);
            Note::StreamEnd {
                xid,
                end: Some(fields.lsn()?),
            }
        }
        b'p' => {
            let _ = (fields.take::<1>()?, fields.lsn()?);
            let (end, _) = (fields.lsn()?, fields.lsn()?);
            Note::StreamEnd {
                xid: fields.int()?,
                end: Some(end),
            }
        }
        b'A' => {
            let (xid, part) = (fields.int()?, fields.int()?);
            match xid == part {
                true => Note::StreamEnd { xid, end: None },
                false => Note::StreamPart { xid },
            }
        }
        b'R' => Note::Relation {
            table: fields.int()?,
        },
        b'Y' => Note::Type,
        b'I' | b'U' | b'D' => Note::Row {
            table: fields.int()?,
        },
        b'T' => {
            let _ = (fields.int()?, fields.take::<1>()?);
            Note::Truncate {
                table: fields.int()?,
            }
        }
        b'M' => {
            let [flags] = fields.take()?;
            match flags & 1 {
                0 => Note::Loose { at: fields.lsn()? },
                _ => Note::Other,
            }
        }
        b'O' => Note::Other,
        other => return Err(format!("{:?} is no message of pgoutput", other as char)),
    })
}

fn wal2json(payload: &[u8], start: Lsn) -> Result<Note, String> {
    const HEAD: &[u8] = b"{\"action\":\"";
    let action = payload.strip_prefix(HEAD).and_then(<[u8]>::first);
    let field = |name: &str| -> Result<Option<serde_json::Value>, String> {
        let value: serde_json::Value =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        Ok(value.get(name).cloned())
    };
    let commit = || -> Result<Option<Lsn>, String> {
        let lsn = field("lsn")?;
        Ok(lsn.and_then(|lsn| lsn.as_str()?.parse().ok()))
    };
    Ok(match action {
        Some(b'B') => Note::Begin { commit: commit()? },
        Some(b'C') => Note::Commit {
            commit: commit()?,
            end: start,
        },
        Some(b'I' | b'U' | b'D') => Note::Row { table: 0 },
        Some(b'M') if field("transactional")? == Some(false.into()) => Note::Loose { at: start },
        Some(b'T' | b'M') => Note::Other,
        _ => return Err("no message of wal2json's format 2".into()),
    })
}

/// Whether the whole message at the start of `bytes`, outside of streamed transactions, is a row: what a sender counts.
pub(super) fn is_row(message: &[u8]) -> bool {
    match message.get(5..) {
        Some([b'w', ..]) => match message.get(PAYLOAD..) {
            Some([b'I' | b'U' | b'D', ..]) => true,
            Some([b'{', ..]) => matches!(message.get(PAYLOAD + 11), Some(b'I' | b'U' | b'D')),
            _ => false,
        },
        _ => false,
    }
}

/// Writes where an XLogData message stands.
pub(super) fn place(message: &mut [u8], start: Lsn, end: Lsn) {
    if let Some(places) = message.get_mut(6..22) {
        places[..8].copy_from_slice(&start.0.to_be_bytes());
        places[8..].copy_from_slice(&end.0.to_be_bytes());
    }
}

/// Schema and name in a Relation message, outside of streamed transactions.
pub(super) fn table_name(payload: &[u8]) -> Option<(String, String)> {
    let mut parts = payload.get(5..)?.split(|byte| *byte == 0);
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let schema = match parts.next()? {
        // pgoutput leaves the name of the system's own schema out.
        b"" => "pg_catalog".to_owned(),
        schema => text(schema),
    };
    Some((schema, text(parts.next()?)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An XLogData message as a server frames it.
    pub(in super::super) fn data(at: u64, payload: &[u8]) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.extend([at.to_be_bytes(), at.to_be_bytes(), [0; 8]].concat());
        body.extend(payload);
        let mut message = vec![b'd'];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        message
    }

    #[test]
    fn messages_are_known_by_their_heads() {
        let note = |payload: &[u8], streamed| {
            let message = data(9, payload);
            let (frame, length) = next(&message).unwrap();
            assert_eq!(length, message.len());
            super::note(&frame, streamed)
        };
        let begin = [b"B".as_slice(), &[0, 0, 0, 0, 0, 0, 1, 2]].concat();
        let commit = Some(Lsn(0x102));
        assert_eq!(note(&begin, false), Ok(Note::Begin { commit }));
        assert_eq!(note(b"I\0\0\0\x07N", false), Ok(Note::Row { table: 7 }));
        assert_eq!(
            note(b"I\0\0\0\x01\0\0\0\x07N", true),
            Ok(Note::Row { table: 7 })
        );
        let json = b"{\"action\":\"B\",\"lsn\":\"0/102\"}";
        assert_eq!(note(json, false), Ok(Note::Begin { commit }));
        let end = Lsn(9);
        assert_eq!(
            note(b"{\"action\":\"C\"}", false),
            Ok(Note::Commit { commit: None, end })
        );
        for (wrong, at) in [
            ("I\0", 0),
            ("?", 0),
            ("{\"action\":\"X\"}", 0),
            ("B\0\0", 0),
        ] {
            assert!(note(wrong.as_bytes(), at == 1).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_cut_or_foreign_is_an_error() {
        let message = data(9, b"Y");
        for length in 0..message.len() {
            assert!(next(&message[..length]).is_err(), "{length}");
        }
        assert!(next(b"c\0\0\0\x04").is_err());
        assert!(next(b"d\0\0\0\x05?").is_err());
        assert!(!is_row(b"d"));
    }
}
