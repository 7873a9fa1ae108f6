//! The way to a live server, which stays where it is: a relay on an emulated host, to which the link leads, and from there past all links
//! to the server on this machine's loopback.
//!
//! ```text
//! engine ─ [link.source] ─ passage on the host ─ loopback ─ live server
//! ```
//! What is shaped is the passage's own TCP connection with the engine. The server sees the link by what the passage takes from it: it can be
//! ahead by what the passage's sockets hold.

use std::net::SocketAddr;
use std::time::Duration;

use netem::Door;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::listen;

/// Until the next connection is awaited where one could not be had.
const RETRY: Duration = Duration::from_millis(10);
/// What one write takes.
const PIECE: usize = 64 << 10;

/// An open way; it is closed, with its connections, when this is dropped.
#[derive(Debug)]
pub struct Passage(Option<JoinHandle<()>>);

impl Passage {
    /// Has `door` lead to `service` on this machine's loopback.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn open(door: &Door, service: SocketAddr) -> std::io::Result<Self> {
        // Without a namespace the host is this machine, and the link's own relay can lead there.
        if door.host().namespace().is_none() {
            door.lead_to(service);
            return Ok(Self(None));
        }
        let listener = listen(Some(door.host()), door.listen()).await?;
        Ok(Self(Some(tokio::spawn(serve(listener, service)))))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn serve(listener: TcpListener, service: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(pass(client, service));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to a live server was not accepted");
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes everything on until both ends have ended, or one of them broke: then the other is closed, too.
async fn pass(mut client: TcpStream, service: SocketAddr) {
    let joined = async {
        let mut server = TcpStream::connect(service).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy_bidirectional_with_sizes(&mut client, &mut server, PIECE, PIECE).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "a connection to a live server broke");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use netem::{Backend, LinkPlan, Network, Plan};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Two hosts, by whichever way is possible here; `None` where namespaces are not.
    pub(in crate::links) fn network(backend: Backend) -> Option<Network> {
        let plan = Plan {
            hosts: vec!["engine".to_owned(), "source".to_owned()],
            links: vec![LinkPlan {
                one: "engine".to_owned(),
                other: "source".to_owned(),
                forth: "delay 1ms".parse().unwrap(),
                back: "delay 1ms".parse().unwrap(),
            }],
            seed: 1,
        };
        match Network::open(&plan, Some(backend)) {
            Ok(network) => Some(network),
            Err(error) => {
                assert!(
                    backend != Backend::Proxy && !crate::is_ci(),
                    "required in CI: {error}"
                );
                eprintln!("SKIPPED a link by {backend}: {error}");
                None
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_passage_leads_to_loopback_and_ends_with_its_connections() {
        for backend in [Backend::Tun, Backend::Proxy] {
            let Some(network) = network(backend) else {
                continue;
            };
            let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let door = network.door("engine", "source", 3306).unwrap();
            let address = service.local_addr().unwrap();
            let passage = Passage::open(&door, address).await.unwrap();
            let engine = network.host("engine").unwrap();
            let connect = || tokio::task::block_in_place(|| engine.connect(door.address()));
            let client = connect().unwrap();
            client.set_nonblocking(true).unwrap();
            let mut client = TcpStream::from_std(client).unwrap();
            let (mut server, _) = service.accept().await.unwrap();
            client.write_all(b"SELECT").await.unwrap();
            let mut said = [0; 6];
            server.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"SELECT");
            server.write_all(b"1").await.unwrap();
            client.read_exact(&mut said[..1]).await.unwrap();
            assert_eq!(said[0], b'1');
            // The server's end is passed on.
            drop(server);
            assert_eq!(client.read(&mut said).await.unwrap(), 0, "{backend}");
            drop((client, passage));
            // A task that is aborted ends soon, not at once.
            let deadline = crate::clock::now() + Duration::from_secs(60);
            while backend == Backend::Tun && connect().is_ok() {
                let late = crate::clock::now() > deadline;
                assert!(!late, "the passage is still open");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
