//! The way a stream leaves: framed events gather in a buffer and are written as fast as the socket takes them, or at a given
//! rate, with the faults that are scheduled at their place.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fault::{Action, Fault};
use super::stage::Stage;
use super::{Rate, Writes};

/// What one write takes: large enough that the system's share per byte is small, small enough to stay in the cache.
const CHUNK: usize = 512 << 10;

/// At a limited rate one write takes what is due in this time.
const PACE: Duration = Duration::from_millis(10);

/// Where framed bytes go.
pub(super) trait Sink {
    /// Writes all of `bytes` through to the socket.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

/// An event that was framed.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Place of its first byte in the buffer.
    pub(super) first: usize,
    /// Where it stands in the stream of events.
    pub(super) place: u64,
    /// Bytes, framing excluded.
    pub(super) length: u64,
    /// Bytes at its start in which no row stands.
    pub(super) head: u64,
    /// Its row changes.
    pub(super) changes: Range<u64>,
}

/// A scheduled fault says: break the connection.
#[derive(Debug)]
pub(super) struct Broken;

/// One connection's stream on its way out.
pub(super) struct Outlet<'a, S> {
    stage: &'a Stage,
    pub(super) sink: &'a mut S,
    /// Framed events that are not written yet.
    pub(super) buffer: Vec<u8>,
    started: Instant,
    /// Bytes written.
    sent: u64,
    /// Changes framed.
    shown: u64,
    /// Bytes that are still to be sent one by one.
    singly: u64,
}

impl<'a, S: Sink + Send> Outlet<'a, S> {
    pub(super) fn new(stage: &'a Stage, sink: &'a mut S) -> Self {
        Self {
            stage,
            sink,
            buffer: Vec::with_capacity(CHUNK + (64 << 10)),
            started: crate::clock::now(),
            sent: 0,
            shown: 0,
            singly: 0,
        }
    }

    /// The event at the buffer's end was framed: lets its faults happen and writes when it is due.
    pub(super) async fn framed(&mut self, event: Event) -> io::Result<Result<(), Broken>> {
        self.shown += event.changes.end - event.changes.start;
        if self.stage.has_faults() {
            let mut written = 0;
            while let Some((fault, inside)) = self.stage.take_fault(&event) {
                // What an earlier fault in this event made us write is no longer in the buffer.
                let at = (event.first + inside as usize).saturating_sub(written);
                let at = at.min(self.buffer.len().saturating_sub(1));
                match self.suffer(fault, at).await? {
                    Some(bytes) => written += bytes,
                    None => return Ok(Err(Broken)),
                }
            }
        }
        if self.singly > 0 {
            self.write_singly().await?;
        }
        let options = &self.stage.options;
        let chunk = match (options.rate, options.writes) {
            (None, Writes::Large) => CHUNK,
            _ => 0,
        };
        if self.buffer.len() > chunk {
            self.pace().await?;
        }
        Ok(Ok(()))
    }

    /// Whether events are sent as they are, as fast as possible, so that they need not be looked at one by one.
    pub(super) fn is_plain(&self) -> bool {
        let options = &self.stage.options;
        let is_free = options.rate.is_none() && options.writes == Writes::Large;
        is_free && !self.stage.has_faults() && self.singly == 0
    }

    /// Writes framed events past the buffer, together with their neighbours: only where [`Outlet::is_plain`].
    pub(super) async fn write(&mut self, events: &[u8], changes: u64) -> io::Result<()> {
        self.shown += changes;
        self.buffer.extend_from_slice(events);
        match self.buffer.len() > CHUNK {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Lets `fault` happen at `at` of the buffer; how many bytes were written, `None` when the connection must break.
    async fn suffer(&mut self, fault: Fault, at: usize) -> io::Result<Option<usize>> {
        tracing::info!(?fault, "fault");
        match fault.action {
            Action::Corrupt(mask) => {
                self.buffer[at] ^= mask;
                return Ok(Some(0));
            }
            Action::Cut => {
                self.buffer.truncate(at);
                self.flush().await?;
                return Ok(None);
            }
            Action::Stall(pause) => {
                let rest = self.buffer.split_off(at);
                self.flush().await?;
                tokio::time::sleep(pause).await;
                self.buffer = rest;
            }
            Action::Split(bytes) => {
                let rest = self.buffer.split_off(at);
                self.flush().await?;
                self.buffer = rest;
                self.singly += bytes;
            }
        }
        Ok(Some(at))
    }

    /// Writes the buffer byte by byte, as far as that is asked for.
    async fn write_singly(&mut self) -> io::Result<()> {
        let single = self.buffer.len().min(self.singly as usize);
        let rest = self.buffer.split_off(single);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        for byte in &bytes {
            self.sink.write(std::slice::from_ref(byte)).await?;
        }
        self.sent += single as u64;
        self.singly -= single as u64;
        Ok(())
    }

    /// Writes when it is due by the rate.
    async fn pace(&mut self) -> io::Result<()> {
        let options = &self.stage.options;
        let Some(rate) = options.rate else {
            return self.flush().await;
        };
        let (done, per_second) = match rate {
            Rate::Changes(rate) => (self.shown, rate),
            Rate::Bytes(rate) => (self.sent + self.buffer.len() as u64, rate),
        };
        let due = Duration::from_secs_f64(done as f64 / per_second.max(1) as f64);
        let elapsed = self.started.elapsed();
        if due > elapsed + PACE {
            self.flush().await?;
            tokio::time::sleep(due - elapsed).await;
        } else if self.buffer.len() > CHUNK || options.writes == Writes::Each {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what the buffer holds.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let statistics = &self.stage.statistics;
        statistics.first_byte();
        self.sink.write(&self.buffer).await?;
        self.sent += self.buffer.len() as u64;
        (statistics.bytes).fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        self.buffer.clear();
        Ok(())
    }
}
