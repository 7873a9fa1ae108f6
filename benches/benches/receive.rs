//! Receiving a source's stream: `epoll` by tokio as MySQL's is read, `poll` on a thread as PostgreSQL's is (without its pauses), and
//! `uring`, a ring on a thread, which reads both.
//!
//! `cpu`: 64 MiB from a sender that always has more; processor time of all threads but the sender's, so bytes per processor second. On
//! loopback a part of receiving is done in the sender's system calls, for all of them alike.
//! `latency`: 64 bytes there, read, one byte back by the sender's own way; wall-clock time of a round trip.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use benches::built;
use benches::cpu_time::CpuTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::config::Io;
use engine::source::receive::Received;
use engine::source::ring;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::runtime::Runtime;

/// Bytes of one iteration.
const BYTES: usize = 64 << 20;
/// What one read of the runtime may bring, as the engine's,
const ROOM: usize = 256 << 10;
/// and one of a thread.
const ROOM_THREAD: usize = 128 << 10;
/// What the sender writes at once: several of a server's packets.
const WRITE: usize = 128 << 10;

/// A connection: the reading side, and the other one.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
    let (theirs, _) = listener.accept().expect("a connection");
    theirs.set_nodelay(true).expect("a socket");
    (ours, theirs)
}

/// The engine's runtime has two threads for sources and producers; here one is enough.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads")
}

/// What reads.
#[derive(Debug, Clone, Copy)]
enum Backend {
    /// The runtime.
    Tokio,
    /// A thread, by `poll` and `read` or by a ring.
    Thread(Io),
}

/// What reads `socket`.
fn reader(backend: Backend, socket: TcpStream) -> Box<dyn AsyncRead + Unpin + Send> {
    match backend {
        Backend::Tokio => {
            socket.set_nonblocking(true).expect("a socket");
            Box::new(tokio::net::TcpStream::from_std(socket).expect("a runtime"))
        }
        Backend::Thread(io) => {
            let received = Received::plain("receive", socket, ROOM_THREAD, io).expect("a thread");
            assert_eq!(received.io(), io, "another backend reads");
            Box::new(received)
        }
    }
}

fn backends() -> Vec<(&'static str, Backend)> {
    let mut backends = vec![
        ("epoll", Backend::Tokio),
        ("poll", Backend::Thread(Io::Epoll)),
    ];
    match ring::available(Io::Uring) {
        (Io::Uring, _) => backends.push(("uring", Backend::Thread(Io::Uring))),
        (Io::Epoll, why) => eprintln!("\n*** SKIPPED: no io_uring on this machine: {why:?}\n"),
    }
    backends
}

fn cpu(_: &mut Criterion) {
    for (name, backend) in backends() {
        let (ours, mut theirs) = pair();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let thread = nix::unistd::gettid().as_raw();
            tell.send(thread).expect("somebody to tell");
            let bytes = vec![7; WRITE];
            while theirs.write_all(&bytes).is_ok() {}
        });
        let sender = told.recv().expect("an id");
        let mut criterion = Criterion::default()
            .with_measurement(CpuTime::ProcessBut(sender))
            .configure_from_args();
        let mut group = criterion.benchmark_group("receive, cpu");
        group
            .throughput(Throughput::Bytes(BYTES as u64))
            .sample_size(20);
        let runtime = runtime();
        let reader = runtime.block_on(async { reader(backend, ours) });
        let mut state = Some((reader, Vec::with_capacity(ROOM)));
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut reader, mut buffer) = state.take().expect("the last iteration's");
                // Spawned, so that the runtime's own thread does it, as in the engine.
                let reading = runtime.spawn(async move {
                    let mut left = BYTES;
                    while left > 0 {
                        buffer.clear();
                        let read = reader.read_buf(&mut buffer).await.expect("bytes");
                        left = left.saturating_sub(read);
                    }
                    (reader, buffer)
                });
                state = Some(runtime.block_on(reading).expect("a task"));
            });
        });
        group.finish();
    }
}

fn latency(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive, latency");
    for (name, backend) in backends() {
        let (ours, mut theirs) = pair();
        let mut back = ours.try_clone().expect("a socket");
        let runtime = runtime();
        let mut reader = runtime.block_on(async { reader(backend, ours) });
        // Answers each message from the runtime's thread; a socket that a ring reads blocks, others take a byte at once.
        let task = runtime.spawn(async move {
            let mut message = [0; 64];
            while reader.read_exact(&mut message).await.is_ok() {
                if back.write_all(&[1]).is_err() {
                    return;
                }
            }
        });
        group.bench_function(name, |b| {
            b.iter(|| {
                theirs.write_all(&[7; 64]).expect("sent");
                theirs.read_exact(&mut [0]).expect("an answer");
            });
        });
        drop(theirs);
        runtime.block_on(task).expect("a task");
    }
    group.finish();
}

criterion_group!(benches, cpu, latency);
criterion_main!(built::begin, benches, built::end);
