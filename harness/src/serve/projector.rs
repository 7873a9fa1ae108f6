//! The dump thread: shows a stretch of film to a client, as fast as the socket takes it or at a given rate, with the faults
//! that are scheduled, and then sends heartbeats for as long as the client stays.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use protocol::mysql::packet::{self, HEADER_LENGTH};

use super::fault::{Action, Fault};
use super::film::Film;
use super::plan::{self, Plan, Session};
use super::wire::Wire;
use super::{Rate, Shared};

/// What one write takes: large enough that the system's share per byte is small, small enough to stay in the cache.
const CHUNK: usize = 512 << 10;

/// At a limited rate one write takes what is due in this time.
const PACE: Duration = Duration::from_millis(10);

/// Why a dump ended.
pub(super) enum Ended {
    /// The client closed, or the dump was asked to end at the end.
    Peacefully,
    /// A scheduled fault: break the connection.
    Cut,
}

/// How a dump was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    pub(super) session: Session,
    /// End with EOF instead of waiting.
    pub(super) ends: bool,
    /// Heartbeats of version 2.
    pub(super) wide_heartbeats: bool,
    /// Time between heartbeats; none where the client asked for none.
    pub(super) heartbeat: Option<Duration>,
}

/// Sends everything that `plan` says over `wire`.
pub(super) async fn project(
    shared: &Shared,
    wire: &mut Wire,
    plan: Plan,
    show: Show,
) -> io::Result<Ended> {
    let mut projector = Projector {
        shared,
        wire,
        buffer: Vec::with_capacity(CHUNK + (64 << 10)),
        started: crate::clock::now(),
        sent: 0,
        shown: 0,
        singly: 0,
    };
    for event in &plan.prefix {
        projector.frame(|out| out.extend_from_slice(event));
    }
    let film = &shared.film;
    for index in plan.stretches.iter().cloned().flatten() {
        if let Some(ended) = projector.show(film, index).await? {
            return Ok(ended);
        }
    }
    projector.flush().await?;
    projector.stay(film, show).await
}

struct Projector<'a> {
    shared: &'a Shared,
    wire: &'a mut Wire,
    /// Framed packets that are not written yet.
    buffer: Vec<u8>,
    started: Instant,
    /// Bytes written.
    sent: u64,
    /// Changes framed.
    shown: u64,
    /// Bytes that are still to be sent one by one.
    singly: u64,
}

impl Projector<'_> {
    /// Frames one event. An event of 16 MiB and more is put together first, for it is split.
    fn frame(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEADER_LENGTH + 1]);
        append(&mut self.buffer);
        let length = self.buffer.len() - start - HEADER_LENGTH;
        if length < protocol::limits::MYSQL_PACKET_MAX {
            let [a, b, c, ..] = length.to_le_bytes();
            self.buffer[start..start + HEADER_LENGTH].copy_from_slice(&[
                a,
                b,
                c,
                self.wire.sequence,
            ]);
            self.wire.sequence = self.wire.sequence.wrapping_add(1);
        } else {
            let payload = self.buffer.split_off(start + HEADER_LENGTH);
            self.buffer.truncate(start);
            packet::write(&mut self.buffer, &mut self.wire.sequence, &payload);
        }
    }

    async fn show(&mut self, film: &Film, index: u64) -> io::Result<Option<Ended>> {
        let shot = film.shot(index);
        let first = self.buffer.len() + HEADER_LENGTH + 1;
        self.frame(|out| film.append(index, out));
        self.shown += u64::from(shot.changes);
        if self.shared.has_faults() {
            let place = film.place(index);
            let changes = shot.changes_before..shot.changes_before + u64::from(shot.changes);
            let mut written = 0;
            while let Some((fault, inside)) =
                self.shared
                    .take_fault(place, u64::from(shot.length), &changes)
            {
                // What an earlier fault in this event made us write is no longer in the buffer.
                let at = (first + inside as usize).saturating_sub(written);
                let at = at.min(self.buffer.len().saturating_sub(1));
                match self.suffer(fault, at).await? {
                    Some(bytes) => written += bytes,
                    None => return Ok(Some(Ended::Cut)),
                }
            }
        }
        if self.singly > 0 {
            self.write_singly().await?;
        }
        let chunk = match self.shared.rate {
            None => CHUNK,
            Some(_) => 0,
        };
        if self.buffer.len() > chunk {
            self.pace().await?;
        }
        Ok(None)
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
            self.wire.write(std::slice::from_ref(byte)).await?;
        }
        self.sent += single as u64;
        self.singly -= single as u64;
        Ok(())
    }

    /// Writes when it is due by the rate.
    async fn pace(&mut self) -> io::Result<()> {
        let Some(rate) = self.shared.rate else {
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
        } else if self.buffer.len() > CHUNK {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.shared.statistics.first_byte();
        self.wire.write(&self.buffer).await?;
        self.sent += self.buffer.len() as u64;
        (self.shared.statistics.bytes).fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        self.buffer.clear();
        Ok(())
    }

    /// The end of the film: EOF where that was asked for, otherwise heartbeats until the client leaves.
    async fn stay(&mut self, film: &Film, show: Show) -> io::Result<Ended> {
        self.shared.statistics.ends.fetch_add(1, Ordering::Relaxed);
        if show.ends {
            let mut eof = Vec::new();
            protocol::mysql::resultset::encode_eof(&mut eof);
            self.wire.send(&eof).await?;
            return Ok(Ended::Peacefully);
        }
        loop {
            let pause = show.heartbeat.unwrap_or(Duration::from_secs(3600));
            tokio::select! {
                () = self.wire.closed() => return Ok(Ended::Peacefully),
                () = tokio::time::sleep(pause) => {}
            }
            if show.heartbeat.is_some() {
                let session = Session {
                    checksum: film.checksum,
                    ..show.session
                };
                let beat = plan::heartbeat(
                    &film.end.file,
                    film.end.offset,
                    show.wide_heartbeats,
                    session,
                );
                self.frame(|out| out.extend_from_slice(&beat));
                self.flush().await?;
            }
        }
    }
}
