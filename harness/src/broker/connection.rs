//! Listeners and connections: frames in, one request after the other, answers out in the same order.
//!
//! A produce request of a megabyte is read straight into one buffer of its size, and the batches in it are stored as slices of
//! that buffer. Answers leave through a queue of their own, so that a delayed one does not hold up the next request.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::apis::{self, Request};
use super::cluster::{Entrance, Link};
use super::faults::{Drop, Fate};
use super::sasl::Session;
use super::{Error, REQUEST_MAX, Shared, records};
use crate::clock;

/// Answers of one connection that may wait to be sent.
const QUEUED_MAX: usize = 64;

/// Serves `socket` as a node until the broker ends.
pub(super) fn listen(shared: &Arc<Shared>, by: Entrance, socket: TcpListener) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let node = &shared.nodes[by.node];
        let mut link = node.link();
        let mut socket = Some(socket);
        loop {
            let state = *link.borrow_and_update();
            match state {
                Link::Ended => return,
                Link::Down => socket = None,
                Link::Up { .. } if socket.is_none() => socket = node.reopen(by.is_observer).await,
                Link::Up { .. } => {}
            }
            let Some(listener) = &socket else {
                let retry = tokio::time::sleep(std::time::Duration::from_millis(20));
                tokio::select! {
                    changed = link.changed() => if changed.is_err() { return },
                    () = retry, if matches!(state, Link::Up { .. }) => {}
                }
                continue;
            };
            tokio::select! {
                changed = link.changed() => if changed.is_err() { return },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => { tokio::spawn(connect(Arc::clone(&shared), by, stream)); }
                    // Out of descriptors: others may be closed meanwhile.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                },
            }
        }
    });
}

async fn connect(shared: Arc<Shared>, by: Entrance, stream: TcpStream) {
    let id = by.node;
    let mut link = shared.nodes[id].link();
    if !matches!(*link.borrow_and_update(), Link::Up { .. }) {
        return;
    }
    let _ = stream.set_nodelay(true);
    let peer = stream
        .peer_addr()
        .map(|peer| peer.to_string())
        .unwrap_or_default();
    let serve = async {
        match shared.nodes[id].tls() {
            Some(tls) => {
                let stream = tls.accept(stream).await?;
                let (reader, writer) = tokio::io::split(stream);
                serve(&shared, by, reader, writer).await
            }
            None => {
                let (reader, writer) = stream.into_split();
                serve(&shared, by, reader, writer).await
            }
        }
    };
    let ended = tokio::select! {
        ended = serve => ended,
        _ = link.changed() => Ok(()),
    };
    if let Err(error @ Error::Answer(_)) = &ended {
        tracing::error!(node = id, peer, %error, "connection ended");
    } else if let Err(error) = ended {
        tracing::debug!(node = id, peer, %error, "connection ended");
    }
}

async fn serve<R, W>(shared: &Arc<Shared>, by: Entrance, reader: R, writer: W) -> Result<(), Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (answers, queue) = mpsc::channel(QUEUED_MAX);
    // Where the reader ends in order, what is queued is still sent; where the connection is dropped, both end here.
    let (read, wrote) = tokio::join!(read(shared, by, reader, answers), write(writer, queue));
    match read {
        Ok(()) => wrote.map_err(Error::from),
        Err(error) => Err(error),
    }
}

/// What waits to be sent: when, and what; `None` drops the connection without sending what comes after.
type Answer = (Option<Instant>, Option<Bytes>);

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Answer>,
) -> std::io::Result<()> {
    while let Some((due, bytes)) = queue.recv().await {
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        let Some(bytes) = bytes else {
            return Ok(());
        };
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

async fn read<R: AsyncRead + Unpin>(
    shared: &Arc<Shared>,
    by: Entrance,
    mut reader: R,
    answers: mpsc::Sender<Answer>,
) -> Result<(), Error> {
    let mut session = Session::new(shared.nodes[by.node].sasl);
    while let Some(frame) = read_frame(&mut reader).await? {
        if let Some(answer) = session.raw(&shared.credentials, &frame)? {
            if answers.send((None, Some(answer))).await.is_err() {
                break;
            }
            continue;
        }
        let request = Request::parse(frame)?;
        let fate = shared.faults.fate(request.api);
        if fate.drop.is_some() {
            shared.faults.dropped(answers.capacity() < QUEUED_MAX);
        }
        if fate.drop == Some(Drop::Before) {
            let _ = answers.send((None, None)).await;
            break;
        }
        let (api, client) = (request.api, request.client_id.clone());
        let answer = answer(shared, by, &mut session, request, fate).await?;
        tracing::trace!(
            node = by.node,
            ?api,
            client,
            bytes = answer.as_ref().map(Bytes::len),
            "answered"
        );
        let due = (!fate.delay.is_zero()).then(|| clock::now() + fate.delay);
        let sent = match answer {
            _ if fate.drop == Some(Drop::After) => {
                let _ = answers.send((None, None)).await;
                break;
            }
            Some(bytes) => answers.send((due, Some(bytes))).await,
            None => continue,
        };
        if sent.is_err() {
            break;
        }
    }
    Ok(())
}

/// The next frame without its length; `None` where the client has closed.
async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<Bytes>, Error> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let claimed = i32::from_be_bytes(length);
    let length = usize::try_from(claimed)
        .ok()
        .filter(|length| *length <= REQUEST_MAX)
        .ok_or_else(|| {
            Error::Protocol(format!(
                "a request of {claimed} bytes; the limit is {REQUEST_MAX}"
            ))
        })?;
    // The memory is reserved at once, within the limit, and not touched before bytes arrive.
    let mut frame = BytesMut::with_capacity(length);
    while frame.len() < length {
        let left = (length - frame.len()) as u64;
        if (&mut *reader).take(left).read_buf(&mut frame).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Some(frame.freeze()))
}

/// The answer to a request; `None` where none is due (acks=0).
async fn answer(
    shared: &Arc<Shared>,
    by: Entrance,
    session: &mut Session,
    request: Request,
    fate: Fate,
) -> Result<Option<Bytes>, Error> {
    let Request {
        api,
        version,
        correlation_id,
        body,
        client_id,
    } = request;
    let node = by.node as i32;
    let reply = Reply {
        version,
        correlation_id,
    };
    let Some(body) = body else {
        // An ApiVersions request from the future: the layout of version 0 is the one that every client reads.
        let unsupported = kafka_protocol::ResponseError::UnsupportedVersion.code();
        return apis::frame(&apis::versions(unsupported), 0, correlation_id).map(Some);
    };
    if !session.may_ask(api) {
        return Err(Error::Protocol(format!("{api:?} before it logged in")));
    }
    let error = fate.error;
    let framed = match body {
        RequestKind::Produce(request) => {
            let acks = request.acks;
            let response = records::produce(shared, node, version, request, error);
            if acks == 0 {
                return Ok(None);
            }
            reply.frame(&response)
        }
        RequestKind::Fetch(request) => {
            reply.frame(&records::fetch(shared, node, request, error).await)
        }
        RequestKind::ListOffsets(request) => {
            reply.frame(&super::offsets::list(shared, node, version, request, error))
        }
        RequestKind::OffsetForLeaderEpoch(request) => reply.frame(
            &super::offsets::for_leader_epoch(shared, node, request, error),
        ),
        RequestKind::ApiVersions(_) => reply.frame(&apis::versions(error.map_or(0, |e| e.code()))),
        RequestKind::Metadata(request) => reply.frame(&super::cluster::metadata(
            shared, by, version, request, error,
        )),
        RequestKind::CreateTopics(request) => {
            reply.frame(&super::cluster::create_topics(shared, request, error))
        }
        RequestKind::DeleteTopics(request) => {
            reply.frame(&super::cluster::delete_topics(shared, request, error))
        }
        RequestKind::DescribeConfigs(request) => {
            reply.frame(&super::configs::describe(shared, request, error))
        }
        RequestKind::InitProducerId(request) => {
            reply.frame(&super::cluster::init_producer_id(shared, request, error))
        }
        RequestKind::FindCoordinator(request) => reply.frame(&super::cluster::find_coordinator(
            shared, by, request, error,
        )),
        RequestKind::JoinGroup(request) => reply.frame(
            &shared
                .groups
                .join(version, &client_id, request, error)
                .await,
        ),
        RequestKind::SyncGroup(request) => reply.frame(&shared.groups.sync(request, error).await),
        RequestKind::Heartbeat(request) => reply.frame(&shared.groups.heartbeat(&request, error)),
        RequestKind::LeaveGroup(request) => {
            reply.frame(&shared.groups.leave(version, request, error))
        }
        RequestKind::OffsetCommit(request) => reply.frame(&shared.groups.commit(request, error)),
        RequestKind::OffsetFetch(request) => {
            reply.frame(&shared.groups.committed(version, request, error))
        }
        RequestKind::SaslHandshake(request) => reply.frame(&session.handshake(version, &request)),
        RequestKind::SaslAuthenticate(request) => {
            reply.frame(&session.authenticate(&shared.credentials, &request.auth_bytes))
        }
        _ => Err(Error::Protocol(format!("{api:?}, which is not served"))),
    };
    framed.map(Some)
}

struct Reply {
    version: i16,
    correlation_id: i32,
}

impl Reply {
    fn frame<R: Encodable + HeaderVersion>(&self, response: &R) -> Result<Bytes, Error> {
        apis::frame(response, self.version, self.correlation_id)
    }
}

/// What a node's listener and connections watch.
pub(super) type LinkReceiver = watch::Receiver<Link>;

/// APIs that a client may use before it has logged in.
pub(super) const BEFORE_LOGIN: [ApiKey; 3] = [
    ApiKey::ApiVersions,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
];
