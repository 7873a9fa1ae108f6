//! PostgreSQL: pgoutput's rows as the walsender sends them, found without decoding more than their first column.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Instant;

use super::super::Failure;
use super::Noted;
use crate::record::postgres::client::{Client, refused};
use crate::seed::postgres::config;

/// Bytes of one read.
const GULP: usize = 256 << 10;
/// Tag and length of CopyData, then `w` with three times 8 bytes: what stands before pgoutput's message.
const PAYLOAD: usize = 30;

/// Begins the stream of `slot`, whose publication has the same name; the socket and what came along.
pub(super) fn begin(url: &str, slot: &str) -> Result<(TcpStream, Vec<u8>), Failure> {
    let mut client = Client::connect(&config(url)?, true)?;
    client.command(&format!(
        "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{slot}')"
    ))?;
    let first = client.message()?;
    if first.first() != Some(&b'W') {
        return Err(refused(first).into());
    }
    Ok(client.into_parts())
}

/// Reads to the end of the connection.
pub(super) fn read(
    mut stream: TcpStream,
    mut received: Vec<u8>,
    noted: &mut Noted,
) -> Result<(), String> {
    let mut gulp = vec![0; GULP];
    loop {
        let length = stream.read(&mut gulp).map_err(|error| error.to_string())?;
        let now = crate::clock::now();
        if length == 0 {
            return Ok(());
        }
        received.extend_from_slice(&gulp[..length]);
        note(&mut received, now, noted);
    }
}

/// Takes whole messages off the front, and notes the first column of every inserted row.
fn note(received: &mut Vec<u8>, now: Instant, noted: &mut Noted) {
    let mut at = 0;
    while let Some(header) = received[at..].first_chunk::<5>() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
        let Some(message) = received[at..].get(..length.max(5)) else {
            break;
        };
        if message.starts_with(b"d") && message.get(5) == Some(&b'w') {
            let id = message.get(PAYLOAD..).and_then(inserted);
            if let Some(id) = id {
                noted.row(id, now);
            }
        }
        at += message.len();
    }
    received.drain(..at);
}

/// The first column of an Insert.
///
/// ```text
/// I relation:4 N columns:2 t length:4 text …
/// ```
fn inserted(message: &[u8]) -> Option<u64> {
    let tuple = message.strip_prefix(b"I")?.get(4..)?;
    let column = tuple.strip_prefix(b"N")?.get(2..)?.strip_prefix(b"t")?;
    let (length, text) = column.split_first_chunk::<4>()?;
    let text = text.get(..u32::from_be_bytes(*length) as usize)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_are_noted_with_the_read_that_completed_their_message() {
        let message = |payload: &[u8]| {
            let body = [b"w".as_slice(), &[0; 24], payload].concat();
            let length = (body.len() as u32 + 4).to_be_bytes();
            [b"d".as_slice(), &length, &body].concat()
        };
        let insert = |id: &str| {
            let length = (id.len() as u32).to_be_bytes();
            let row = [b"I\0\0\x40\x01N\0\x02t", &length[..], id.as_bytes(), b"n"].concat();
            message(&row)
        };
        let all = [
            message(b"B"),
            insert("17"),
            insert("9000000000"),
            message(b"C"),
        ]
        .concat();
        let start = crate::clock::now();
        let later = start + Duration::from_secs(1);
        for cut in 0..=all.len() {
            let mut received = all[..cut].to_vec();
            let mut noted = Noted::default();
            note(&mut received, start, &mut noted);
            received.extend_from_slice(&all[cut..]);
            note(&mut received, later, &mut noted);
            assert!(received.is_empty(), "{cut}");
            let first_end = message(b"B").len() + insert("17").len();
            let expected = if cut >= first_end { start } else { later };
            assert_eq!(noted.rows[0].1, expected, "{cut}");
            assert_eq!(noted.rows.len(), 2);
        }
    }
}
