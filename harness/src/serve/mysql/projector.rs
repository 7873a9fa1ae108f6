//! The dump thread: shows a stretch of film to a client and then sends heartbeats for as long as the client stays.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::mysql::packet::{self, HEADER_LENGTH};

use super::Shared;
use super::film::Film;
use super::plan::{self, Plan, Session};
use super::wire::Wire;

use crate::serve::outlet::{Broken, Event, Outlet};
use crate::serve::stage::Statistics;

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
        statistics: &shared.stage.statistics,
        out: Outlet::new(&shared.stage, wire),
    };
    for event in &plan.prefix {
        projector.frame(|out| out.extend_from_slice(event));
    }
    let film = &shared.film;
    for index in plan.stretches.iter().cloned().flatten() {
        if let Err(Broken) = projector.show(film, index).await? {
            return Ok(Ended::Cut);
        }
    }
    projector.out.flush().await?;
    projector.stay(film, show).await
}

struct Projector<'a> {
    statistics: &'a Statistics,
    out: Outlet<'a, Wire>,
}

impl Projector<'_> {
    /// Frames one event. An event of 16 MiB and more is put together first, for it is split.
    fn frame(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.buffer.len();
        self.out.buffer.extend_from_slice(&[0; HEADER_LENGTH + 1]);
        append(&mut self.out.buffer);
        let length = self.out.buffer.len() - start - HEADER_LENGTH;
        if length < protocol::limits::MYSQL_PACKET_MAX {
            let [a, b, c, ..] = length.to_le_bytes();
            self.out.buffer[start..start + HEADER_LENGTH].copy_from_slice(&[
                a,
                b,
                c,
                self.out.sink.sequence,
            ]);
            self.out.sink.sequence = self.out.sink.sequence.wrapping_add(1);
        } else {
            let payload = self.out.buffer.split_off(start + HEADER_LENGTH);
            self.out.buffer.truncate(start);
            packet::write(&mut self.out.buffer, &mut self.out.sink.sequence, &payload);
        }
    }

    async fn show(&mut self, film: &Film, index: u64) -> io::Result<Result<(), Broken>> {
        let shot = film.shot(index);
        let first = self.out.buffer.len() + HEADER_LENGTH + 1;
        self.frame(|out| film.append(index, out));
        let changes = shot.changes_before..shot.changes_before + u64::from(shot.changes);
        let length = u64::from(shot.length);
        let event = Event {
            first,
            place: film.place(index),
            length,
            head: length / 8,
            changes,
        };
        self.out.framed(event).await
    }

    /// The end of the film: EOF where that was asked for, otherwise heartbeats until the client leaves.
    async fn stay(&mut self, film: &Film, show: Show) -> io::Result<Ended> {
        self.statistics.ends.fetch_add(1, Ordering::Relaxed);
        if show.ends {
            let mut eof = Vec::new();
            protocol::mysql::resultset::encode_eof(&mut eof);
            self.out.sink.send(&eof).await?;
            return Ok(Ended::Peacefully);
        }
        loop {
            let pause = show.heartbeat.unwrap_or(Duration::from_secs(3600));
            tokio::select! {
                () = self.out.sink.closed() => return Ok(Ended::Peacefully),
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
                self.out.flush().await?;
            }
        }
    }
}
