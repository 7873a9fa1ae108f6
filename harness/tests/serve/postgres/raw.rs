//! A client of a few lines: what it reads is looked at byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use harness::serve::Server;

/// A message: tag and body.
pub(super) type Message = (u8, Vec<u8>);

pub(super) struct Raw {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// START_REPLICATION for the recordings of pgoutput.
pub(super) fn start_at(lsn: &str) -> String {
    format!(
        "START_REPLICATION SLOT \"walbrook\" LOGICAL {lsn} (\"proto_version\" '1', \"publication_names\" '\"walbrook\"')"
    )
}

/// A field of an ErrorResponse.
pub(super) fn field(message: &Message, name: u8) -> Option<String> {
    let fields = message.1.split(|byte| *byte == 0);
    let found = fields.filter(|field| field.first() == Some(&name));
    found
        .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
        .next()
}

/// SQLSTATE and message of an error among `messages`.
pub(super) fn error(messages: &[Message]) -> (String, String) {
    let error = messages.iter().find(|(tag, _)| *tag == b'E');
    let error = error.unwrap_or_else(|| panic!("no error in {messages:?}"));
    (field(error, b'C').unwrap(), field(error, b'M').unwrap())
}

pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub(super) fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    let half = |half| u64::from_str_radix(half, 16).unwrap();
    half(high) << 32 | half(low)
}

pub(super) fn shown(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

impl Raw {
    /// In a session, with these parameters besides the user.
    pub(super) fn connect(server: &Server, parameters: &[(&str, &str)]) -> Self {
        let (raw, messages) = Self::greet(server, parameters);
        assert_eq!(
            messages.last().map(|(tag, _)| *tag),
            Some(b'Z'),
            "{messages:?}"
        );
        raw
    }

    /// In a session that replicates.
    pub(super) fn replicating(server: &Server) -> Self {
        Self::connect(
            server,
            &[("database", "walbrook"), ("replication", "database")],
        )
    }

    /// Everything up to ReadyForQuery, or to the end.
    pub(super) fn greet(server: &Server, parameters: &[(&str, &str)]) -> (Self, Vec<Message>) {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut raw = Self {
            stream,
            bytes: Vec::new(),
        };
        let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
        for (name, value) in [("user", "cdc")].iter().chain(parameters) {
            packet.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        packet.push(0);
        let length = (packet.len() as u32).to_be_bytes();
        packet[..4].copy_from_slice(&length);
        raw.stream.write_all(&packet).unwrap();
        let messages = raw.until(b'Z');
        (raw, messages)
    }

    pub(super) fn send(&mut self, tag: u8, body: &[u8]) {
        let mut message = vec![tag];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        self.stream.write_all(&message).unwrap();
    }

    /// The answer to a simple query, with ReadyForQuery.
    pub(super) fn query(&mut self, text: &str) -> Vec<Message> {
        self.send(b'Q', format!("{text}\0").as_bytes());
        self.until(b'Z')
    }

    /// Rows of the answer to a simple query.
    pub(super) fn rows(&mut self, text: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.query(text);
        assert!(
            messages.iter().all(|(tag, _)| *tag != b'E'),
            "{text}: {:?}",
            error(&messages)
        );
        messages
            .iter()
            .filter(|(tag, _)| *tag == b'D')
            .map(|(_, body)| row(body))
            .collect()
    }

    /// Begins to stream; the next messages are the stream's.
    pub(super) fn start(&mut self, statement: &str) {
        self.send(b'Q', format!("{statement}\0").as_bytes());
        let (tag, body) = self.next().unwrap();
        assert_eq!(
            (tag, body.as_slice()),
            (b'W', [0, 0, 0].as_slice()),
            "{}",
            String::from_utf8_lossy(&body)
        );
    }

    /// A standby status update.
    pub(super) fn confirm(&mut self, written: u64, flushed: u64, reply: bool) {
        let mut body = vec![b'r'];
        body.extend([written, flushed, 0, 0].map(u64::to_be_bytes).concat());
        body.push(u8::from(reply));
        self.send(b'd', &body);
    }

    /// The next message; `None` at the connection's end.
    pub(super) fn next(&mut self) -> Option<Message> {
        loop {
            if let [tag, length @ ..] = self.bytes.as_slice()
                && let Some(length) = length.first_chunk::<4>()
            {
                let end = u32::from_be_bytes(*length) as usize + 1;
                if self.bytes.len() >= end {
                    let message = (*tag, self.bytes[5..end].to_vec());
                    self.bytes.drain(..end);
                    return Some(message);
                }
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.bytes.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Everything up to the first message with this tag, or to the end.
    pub(super) fn until(&mut self, last: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            let is_last = message.0 == last;
            messages.push(message);
            if is_last {
                break;
            }
        }
        messages
    }

    /// The stream up to the keepalive at `end`, without keepalives: bodies of CopyData from 'w' on.
    pub(super) fn stream_until(&mut self, end: u64) -> Vec<Vec<u8>> {
        let mut stream = Vec::new();
        loop {
            match self.next() {
                Some((b'd', body)) if body[0] == b'k' && number(&body[1..9]) == end => {
                    return stream;
                }
                Some((b'd', body)) if body[0] == b'k' => {}
                Some((b'd', body)) => stream.push(body),
                Some(other) => panic!("{:?}", error(&[other])),
                None => panic!("closed after {} messages", stream.len()),
            }
        }
    }

    /// Every byte up to the end of the connection.
    pub(super) fn rest(mut self) -> Vec<u8> {
        // A broken connection ends with an error.
        let _ = self.stream.read_to_end(&mut self.bytes);
        self.bytes
    }
}

fn row(body: &[u8]) -> Vec<Option<String>> {
    let (mut rest, mut cells) = (&body[2..], Vec::new());
    while let Some(length) = rest.first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let end = 4 + usize::try_from(length).unwrap_or(0);
        let text = String::from_utf8_lossy(&rest[4..end]).into_owned();
        cells.push((length >= 0).then_some(text));
        rest = &rest[end..];
    }
    cells
}
