//! Serves one broker: connects when there is something to send, writes produce requests, reads their answers, starts over when the
//! connection breaks.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Buf;
use kafka_protocol::messages::MetadataRequest;
use protocol::Cursor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::clock;

use super::backoff::Backoff;
use super::connection::{Connection, Fault, REQUEST_TIMEOUT, RESPONSE_MAX, read_frame};
use super::dispatch::{PartResult, PartitionKey};
use super::error::ProducerError;
use super::metadata::differs;
use super::native::Shared;
use super::produce;
use super::response::{Metadata, Produced};

/// The pauses between attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Looks in a row that may find nothing moved while an answer is due.
const STILL_MAX: u32 = (REQUEST_TIMEOUT.as_millis() / WATCH_EVERY.as_millis()) as u32;

/// Looks in a row with nothing moved, two seconds, after which a broker counts as silent: nobody waits for it, and others are asked who leads
/// what. Its connection stays, because it may only be slow, until its partitions have moved or [`STILL_MAX`] is over.
const SILENT_FROM: u32 = 4;

/// Answers are some dozens of bytes per partition.
const READ_BUFFER: usize = 16 << 10;

/// A request whose answer is awaited; answers come in the order of requests.
struct Awaited {
    correlation: i32,
    request: u64,
}

/// Tells a broker that is silent from a line that is thin: a large request takes its time.
#[derive(Default)]
struct Watch {
    seen: u64,
    still: u32,
}

impl Watch {
    /// A look at whether answers are due and at what has moved so far; whether nothing has for too long.
    fn is_still(&mut self, is_due: bool, moved: u64) -> bool {
        if !is_due || moved != self.seen {
            self.seen = moved;
            self.still = 0;
            return false;
        }
        self.still += 1;
        self.still > STILL_MAX
    }

    /// Whether nothing has moved for so long that others are not to wait.
    fn is_silent(&self) -> bool {
        self.still >= SILENT_FROM
    }
}

/// How a connection ended.
enum End {
    /// By a fault.
    Fault(Fault),
    /// In order: another one, and the version of Produce that it speaks, takes its place.
    Replaced(Connection, i16),
}

/// One connection's life.
struct Session<'a> {
    shared: &'a Shared,
    id: i32,
    broker: Arc<str>,
    version: i16,
    wake: &'a Notify,
    awaited: Mutex<VecDeque<Awaited>>,
    answers: AtomicU64,
    /// Counts answers, and how often the socket took more of a request than it did at first.
    moved: AtomicU64,
    /// Another connection waits for the last answers of this one.
    is_replaced: AtomicBool,
    /// An answer has come.
    answered: Notify,
    /// Until when the broker reads no further request, as its last answer said.
    throttled_until: Mutex<Option<Instant>>,
}

/// Serves broker `id` until the producer fails or is dropped. The first connection is made at once, so that the first records find it
/// open; where it fails, or ends without having been needed, the next is made when there is something to send.
pub(super) async fn serve(shared: Arc<Shared>, id: i32, wake: Arc<Notify>) {
    let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
    let mut early = true;
    let mut open = None;
    loop {
        while !early && open.is_none() && !shared.with(|dispatch| dispatch.has_work(id)) {
            if shared.with(|dispatch| dispatch.failure().is_some()) {
                return;
            }
            wake.notified().await;
        }
        let connected = match open.take() {
            Some(open) => Ok(open),
            // The first time metadata have just said where it is.
            None => connect(&shared, id, !early).await,
        };
        let fault = match connected {
            Ok((connection, version)) => {
                if backoff.attempts() > 0 {
                    info!(broker = %connection.broker, "connected again");
                } else {
                    debug!(broker = %connection.broker, "connected");
                }
                let (end, useful) = run(&shared, id, connection, version, &wake).await;
                shared.with(|dispatch| dispatch.lost(id, clock::now()));
                if useful {
                    backoff.reset();
                }
                match end {
                    End::Fault(fault) => fault,
                    End::Replaced(connection, version) => {
                        debug!(broker = %connection.broker, "the session ends soon, going on over a new connection");
                        open = Some((connection, version));
                        early = false;
                        backoff.reset();
                        continue;
                    }
                }
            }
            Err(fault) => fault,
        };
        let was_early = std::mem::take(&mut early);
        match fault {
            Fault::Lasting(error)
                if was_early && !shared.with(|dispatch| dispatch.has_work(id)) =>
            {
                debug!(broker = id, %error, "cannot be connected; nothing is to be sent there yet");
            }
            Fault::Lasting(error) => {
                shared.with(|dispatch| dispatch.fail(error));
                return;
            }
            Fault::Passing(reason) => {
                if !shared.with(|dispatch| dispatch.has_work(id)) {
                    debug!(broker = id, %reason, "connection ended while nothing was to be sent");
                    continue;
                }
                if backoff.attempts() == 0 {
                    warn!(broker = id, %reason, "connection lost, reconnecting until it is back or its partitions have moved");
                }
                shared.with(|dispatch| dispatch.unreachable(id));
                // Meanwhile everything that leads elsewhere goes on; what leads here waits, or moves with new metadata.
                sleep(backoff.pause()).await;
            }
        }
    }
}

/// Connects to broker `id`. Where it `may_differ`, it is asked first which cluster it belongs to: the name may lead to another one by now.
async fn connect(shared: &Shared, id: i32, may_differ: bool) -> Result<(Connection, i16), Fault> {
    let endpoint = shared
        .endpoint(id)
        .ok_or_else(|| Fault::Passing("metadata do not say where it listens".to_owned()))?;
    let mut connection = shared.connector.connect(&endpoint).await?;
    if may_differ {
        let nothing = MetadataRequest::default().with_topics(Some(Vec::new()));
        let Metadata { cluster_id, .. } = connection.call::<Metadata>(&nothing).await?;
        let begun = shared.cluster_id.as_deref();
        if let Some(other) = differs(&connection.broker, begun, cluster_id.as_deref()) {
            // Said once for all brokers, and not in place of why the connection before was lost.
            if !shared.is_elsewhere.swap(true, Ordering::Relaxed) {
                warn!(broker = id, reason = %other, "nothing is written there");
            }
            return Err(Fault::Passing(other));
        }
        shared.is_elsewhere.store(false, Ordering::Relaxed);
    }
    let version = connection.version(produce::KEY, "Produce", produce::VERSIONS)?;
    shared.with(|dispatch| dispatch.metrics().connections += 1);
    Ok((connection, version))
}

/// Runs a connection to its end; answers why it ended, and whether it got an answer before.
async fn run(
    shared: &Shared,
    id: i32,
    connection: Connection,
    version: i16,
    wake: &Notify,
) -> (End, bool) {
    let session = Session {
        shared,
        id,
        broker: Arc::clone(&connection.broker),
        version,
        wake,
        awaited: Mutex::default(),
        answers: AtomicU64::default(),
        moved: AtomicU64::default(),
        is_replaced: AtomicBool::default(),
        answered: Notify::new(),
        throttled_until: Mutex::default(),
    };
    let replace_at = connection.replace_at();
    let (reader, writer) = tokio::io::split(connection.into_stream());
    let end = tokio::select! {
        fault = session.write(writer) => End::Fault(fault),
        fault = session.read(BufReader::with_capacity(READ_BUFFER, reader)) => End::Fault(fault),
        fault = session.watch() => End::Fault(fault),
        end = session.replace(replace_at) => end,
    };
    (end, session.answers.load(Ordering::Relaxed) > 0)
}

/// Writes `frame` and counts in `moved` whatever the socket did not take at once.
async fn pass(
    writer: &mut (impl AsyncWrite + Unpin),
    frame: &mut impl Buf,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut is_first = true;
    while frame.has_remaining() {
        if writer.write_buf(frame).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if !std::mem::take(&mut is_first) {
            moved.fetch_add(1, Ordering::Relaxed);
        }
    }
    writer.flush().await
}

impl Session<'_> {
    async fn write(&self, mut writer: impl AsyncWrite + Unpin) -> Fault {
        let mut correlation = 0_i32;
        loop {
            if self.is_replaced.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let request = self
                .shared
                .with(|dispatch| dispatch.next_request(self.id, clock::now()));
            let Some(request) = request else {
                self.wake.notified().await;
                continue;
            };
            correlation = correlation.wrapping_add(1);
            let mut frame = produce::frame(&request, self.version, correlation, |topic_id| {
                self.shared.name(topic_id)
            });
            let bytes = frame.remaining() as u64;
            self.shared
                .with(|dispatch| dispatch.metrics().bytes_sent += bytes);
            self.awaited().push_back(Awaited {
                correlation,
                request: request.id,
            });
            drop(request);
            if let Err(error) = pass(&mut writer, &mut frame, &self.moved).await {
                return error.into();
            }
        }
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) -> Fault {
        loop {
            let frame = match read_frame(&mut reader, RESPONSE_MAX, &self.broker, None).await {
                Ok(frame) => frame,
                Err(fault) => return fault,
            };
            if let Err(reason) = self.answer(&frame) {
                return Fault::Lasting(ProducerError::broker(&self.broker, reason));
            }
        }
    }

    fn answer(&self, frame: &[u8]) -> Result<(), String> {
        let mut cursor = Cursor::new(frame);
        let correlation = cursor
            .i32_be("correlation id")
            .map_err(|error| error.to_string())?;
        let awaited = self.awaited().pop_front();
        let awaited = awaited
            .ok_or_else(|| format!("answers request {correlation}, but nothing was asked"))?;
        if awaited.correlation != correlation {
            return Err(format!(
                "answers request {correlation}, but {} was asked first",
                awaited.correlation
            ));
        }
        let produced = Produced::read(&mut cursor, self.version)
            .and_then(|produced| cursor.finish("Produce response").map(|()| produced))
            .map_err(|error| format!("its answer cannot be read: {error}"))?;
        // Almost never: no clock is read for the others.
        if !produced.throttle.is_zero() {
            *self.throttled_until() = clock::now().checked_add(produced.throttle);
        }
        let results = produced
            .parts
            .into_iter()
            .filter_map(|part| {
                Some(PartResult {
                    key: PartitionKey {
                        topic_id: self.shared.topic_id(&part.topic)?,
                        partition: part.partition,
                    },
                    code: part.code,
                    base_offset: part.base_offset,
                    message: part.message,
                })
            })
            .collect();
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.shared
            .with(|dispatch| dispatch.response(self.id, awaited.request, results, clock::now()));
        self.answered.notify_one();
        Ok(())
    }

    /// Makes another connection at that time, before the broker ends this one's session, and lets it take this one's place once everything
    /// here is answered: two at a time could put batches out of their sequence.
    async fn replace(&self, at: Option<Instant>) -> End {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        sleep_until(at.into()).await;
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
        let (connection, version) = loop {
            match connect(self.shared, self.id, true).await {
                Ok(open) => break open,
                // This one may do for a while yet.
                Err(Fault::Passing(reason)) => {
                    debug!(broker = %self.broker, %reason, "no new connection yet");
                    sleep(backoff.pause()).await;
                }
                Err(lasting) => return End::Fault(lasting),
            }
        };
        self.is_replaced.store(true, Ordering::Relaxed);
        while !self.awaited().is_empty() {
            self.answered.notified().await;
        }
        End::Replaced(connection, version)
    }

    /// Ends the connection of a broker that is silent for too long, be it while we write or while we wait.
    async fn watch(&self) -> Fault {
        let mut watch = Watch::default();
        loop {
            sleep(WATCH_EVERY).await;
            let is_due = !self.awaited().is_empty() && !self.is_throttled();
            if watch.is_still(is_due, self.moved.load(Ordering::Relaxed)) {
                return Fault::Passing(format!("no answer within {REQUEST_TIMEOUT:?}"));
            }
            if watch.is_silent() && self.shared.with(|dispatch| dispatch.silent(self.id)) {
                warn!(broker = %self.broker, "silent, going on with those that lead its partitions by now");
                let reason = "silent, and others lead its partitions";
                return Fault::Passing(reason.to_owned());
            }
        }
    }

    /// Whether the broker has said that it will be silent for now.
    fn is_throttled(&self) -> bool {
        self.throttled_until()
            .is_some_and(|until| clock::now() < until)
    }

    fn throttled_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let until = self.throttled_until.lock();
        until.unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> std::sync::MutexGuard<'_, VecDeque<Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn who_is_silent_is_told_from_who_is_slow() {
        let mut watch = Watch::default();
        let mut moved = 0;
        for look in 0..10 * STILL_MAX {
            // Something moves now and then, and seldom enough.
            moved += u64::from(look % STILL_MAX == 0);
            assert!(!watch.is_still(true, moved), "look {look}");
        }
        for look in 0..10 * STILL_MAX {
            assert!(!watch.is_still(false, moved), "look {look}, nothing is due");
        }
        for look in 0..STILL_MAX {
            assert!(!watch.is_still(true, moved), "look {look}, it is early");
        }
        assert!(watch.is_still(true, moved));
    }

    /// What a line takes bit by bit moves all the time, however long it takes; what fits into the socket tells nothing of the line.
    #[tokio::test]
    async fn a_large_request_moves_as_long_as_it_is_taken() {
        let (mut writer, mut line) = tokio::io::duplex(1 << 10);
        let moved = AtomicU64::default();
        let mut small = &[1; 1000][..];
        pass(&mut writer, &mut small, &moved).await.unwrap();
        assert_eq!(moved.load(Ordering::Relaxed), 0, "a small one");

        let mut large = &[2; 1 << 20][..];
        let thin = async {
            let mut watch = Watch::default();
            let mut piece = [0; 512];
            for look in 0..20 * STILL_MAX {
                line.read_exact(&mut piece).await.unwrap();
                // Let the other side see that there is room again.
                tokio::task::yield_now().await;
                assert!(
                    !watch.is_still(true, moved.load(Ordering::Relaxed)),
                    "look {look}"
                );
            }
            // The line takes nothing any more.
            let mut looks = 0;
            while !watch.is_still(true, moved.load(Ordering::Relaxed)) {
                looks += 1;
                assert!(looks <= STILL_MAX + 1);
            }
        };
        tokio::select! {
            written = pass(&mut writer, &mut large, &moved) => panic!("{written:?}"),
            () = thin => {}
        }
        assert!(large.len() > 1 << 18, "{} are left", large.len());
    }
}
