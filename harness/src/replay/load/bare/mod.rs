//! A reader that does nothing but note when a row came: what the server and the kernel take of the time from commit to reader.
//!
//! It reads as soon as something is there, and finds rows by code of its own.

mod mysql;
mod postgres;

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Failure;
use crate::servers::{Flavour, Server};

/// How long rows may take to come once all are committed.
const PATIENCE: Duration = Duration::from_secs(20);

/// When each row was read, by its id.
pub(super) type Seen = HashMap<u64, Instant>;

/// Room for so many rows is made beforehand.
const ROWS: usize = 1 << 20;

/// What a reader noted, and how its stream ended.
type Read = (Vec<(u64, Instant)>, Result<(), String>);

/// What has been read. A list, because a table that grows stops the reader for longer than what it measures.
#[derive(Debug, Default)]
struct Noted {
    rows: Vec<(u64, Instant)>,
    count: Arc<AtomicU64>,
}

impl Noted {
    fn row(&mut self, id: u64, at: Instant) {
        self.rows.push((id, at));
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// A thread that reads.
pub(super) struct Reader {
    stream: TcpStream,
    thread: JoinHandle<Read>,
    count: Arc<AtomicU64>,
}

impl Reader {
    /// Begins to read what is committed from now on, from PostgreSQL by `slot` and the publication of the same name; blocking until the
    /// server streams.
    pub(super) fn start(server: &Server, slot: &str) -> Result<Reader, Failure> {
        let mut noted = Noted {
            rows: Vec::with_capacity(ROWS),
            ..Noted::default()
        };
        let count = Arc::clone(&noted.count);
        let thread = thread::Builder::new().name("bare-reader".into());
        let (stream, thread) = match server.flavour() {
            Flavour::Postgres => {
                let (stream, received) = postgres::begin(&server.cdc_url(), slot)?;
                let reading = stream.try_clone()?;
                let read = move || {
                    let result = postgres::read(reading, received, &mut noted);
                    (noted.rows, result)
                };
                (stream, thread.spawn(read)?)
            }
            flavour => {
                let client = mysql::begin(&server.cdc_url(), flavour)?;
                let stream = client.socket()?;
                let read = move || {
                    let result = mysql::read(client, &mut noted);
                    (noted.rows, result)
                };
                (stream, thread.spawn(read)?)
            }
        };
        Ok(Reader {
            stream,
            thread,
            count,
        })
    }

    /// Waits until so many rows have been read; blocking.
    pub(super) fn finish(self, rows: u64) -> Result<Seen, Failure> {
        let deadline = crate::clock::now() + PATIENCE;
        let has_all = || self.count.load(Ordering::Acquire) >= rows;
        while !has_all() && !self.thread.is_finished() && crate::clock::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let complete = has_all();
        // Ends the thread's read.
        let _ = self.stream.shutdown(Shutdown::Both);
        let (read, result) = (self.thread.join()).map_err(|_| "the bare reader panicked")?;
        match result {
            Err(error) if !complete => Err(format!("the bare reader: {error}").into()),
            _ if !complete => {
                Err(format!("the bare reader got {} of {rows} rows", read.len()).into())
            }
            // How the connection ended is of no interest any more.
            _ => Ok(read.into_iter().collect()),
        }
    }
}
