//! What a walsender gives at best: a reader that only counts, and reads in gulps while the server is busy.
//!
//! A walsender sends once per change, and each becomes a segment of its own while the connection's window is open. So this reader has a
//! small window and leaves it closed most of the time: it waits until the server has put much together, reads all of that, and waits again.

use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use crate::record::postgres::client::{Client, refused};
use crate::seed::postgres::config;

/// Receive buffer asked for; the kernel's window is between this and twice as large.
const WINDOW: usize = 32 << 10;
/// A read that brings less has emptied the server's send queue.
const DRY: usize = WINDOW / 2;
const PAUSE: Duration = Duration::from_millis(8);
/// A server that sends nothing for so long sends nothing any more.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// What one read takes.
const GULP: usize = 1 << 20;
/// Bytes before a plugin's message: tag, length, kind, start, end, clock.
const PAYLOAD: usize = 30;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Reads `rows` changes of `slot` and answers how many came per second; blocking.
pub(super) fn read(
    url: &str,
    slot: &str,
    publication: &str,
    plugin: &str,
    rows: u64,
) -> Result<f64, Failure> {
    let mut client = Client::connect(&config(url)?, true)?;
    let options = match plugin {
        "wal2json" => "\"format-version\" '2', \"include-lsn\" 'true', \"include-pk\" 'true', \"include-timestamp\" 'true', \"include-xids\" 'true'".to_owned(),
        _ => format!("proto_version '1', publication_names '{publication}'"),
    };
    let started = crate::clock::now();
    client.command(&format!(
        "START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})"
    ))?;
    let first = client.message()?;
    if first.first() != Some(&b'W') {
        return Err(refused(first).into());
    }
    let (mut stream, mut received) = client.into_parts();
    socket2::SockRef::from(&stream).set_recv_buffer_size(WINDOW)?;
    // Not even a read that waits: it would be woken by the first small segment, and open the window by it.
    stream.set_nonblocking(true)?;
    let (mut counted, mut silent) = (0, Duration::ZERO);
    let mut gulp = vec![0; GULP];
    loop {
        counted += count(&mut received);
        if counted >= rows {
            let seconds = started.elapsed().as_secs_f64();
            return Ok(counted as f64 / seconds);
        }
        match stream.read(&mut gulp) {
            Ok(0) => {
                return Err(format!(
                    "the server ends slot {slot} after {counted} of {rows} changes"
                )
                .into());
            }
            Ok(length) => {
                silent = Duration::ZERO;
                received.extend_from_slice(&gulp[..length]);
                if length < DRY {
                    std::thread::sleep(PAUSE);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                silent += PAUSE;
                if silent > SILENCE_MAX {
                    return Err(format!(
                        "the server sends nothing of slot {slot} after {counted} of {rows} changes"
                    )
                    .into());
                }
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes whole messages off the front; how many of them are row changes.
fn count(received: &mut Vec<u8>) -> u64 {
    let (mut at, mut rows) = (0, 0);
    while let Some(header) = received[at..].first_chunk::<5>() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
        let Some(message) = received[at..].get(..length.max(5)) else {
            break;
        };
        let data = message
            .get(PAYLOAD..)
            .filter(|_| message.starts_with(b"d") && message[5] == b'w');
        let kind = match data {
            Some([b'{', ..]) => message.get(PAYLOAD + 11),
            Some(data) => data.first(),
            None => None,
        };
        rows += u64::from(matches!(kind, Some(b'I' | b'U' | b'D')));
        at += message.len();
    }
    received.drain(..at);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_across_reads() {
        let message = |payload: &[u8]| {
            let body = [b"w".as_slice(), &[0; 24], payload].concat();
            [
                b"d".as_slice(),
                &(body.len() as u32 + 4).to_be_bytes(),
                &body,
            ]
            .concat()
        };
        let all = [
            message(b"B"),
            message(b"I12"),
            message(b"{\"action\":\"U\"}"),
            message(b"C"),
        ]
        .concat();
        for cut in 0..all.len() {
            let mut received = all[..cut].to_vec();
            let before = count(&mut received);
            received.extend_from_slice(&all[cut..]);
            assert_eq!(before + count(&mut received), 2, "{cut}");
            assert!(received.is_empty());
        }
    }
}
