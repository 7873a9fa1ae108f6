//! Start-up and authentication: until the client is somebody, in a database, with settings of its own.

use std::collections::BTreeMap;
use std::io;

use tokio::io::AsyncWriteExt as _;

use super::error::Failure;
use super::scram::{self, Exchange, Refusal};
use super::wire::{self, Received, Wire, message, text};
use super::{AuthMethod, Shared};
use crate::serve::outlet::Sink as _;
use crate::serve::stream::Stream;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Which protocol of commands a session speaks besides SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replication {
    /// None: an ordinary session.
    No,
    /// `replication=database`.
    Database,
}

/// Who the client is.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) replication: Replication,
    /// Settings of the start-up packet and its `options`, names in lower case.
    pub(super) settings: BTreeMap<String, String>,
}

/// The client, let in, with its session open up to ReadyForQuery (which is not sent); `None` when it left or was refused.
pub(super) async fn shake_hands(
    shared: &Shared,
    mut stream: Stream,
    id: u32,
) -> io::Result<Option<(Client, Wire)>> {
    let Some((packet, secure)) = until_startup(shared, &mut stream).await? else {
        return Ok(None);
    };
    let mut wire = Wire::new(stream);
    match enter(shared, &mut wire, &packet, secure, id).await? {
        Ok(client) => Ok(Some((client, wire))),
        Err(None) => Ok(None),
        Err(Some(failure)) => {
            tracing::info!(%failure, "refused");
            let mut out = Vec::new();
            failure.encode(&mut out);
            wire.writer.write(&out).await?;
            Ok(None)
        }
    }
}

/// Answers requests for encryption; the first real start-up packet, and whether TLS is spoken.
async fn until_startup(
    shared: &Shared,
    stream: &mut Stream,
) -> io::Result<Option<(Vec<u8>, bool)>> {
    let mut secure = false;
    loop {
        let Some(packet) = wire::startup(stream).await? else {
            return Ok(None);
        };
        match code(&packet) {
            SSL_REQUEST => match shared.stage.tls_config().filter(|_| !secure) {
                Some(tls) => {
                    stream.write_all(b"S").await?;
                    stream.flush().await?;
                    stream.start_tls(tls).await?;
                    secure = true;
                }
                None => stream.write_all(b"N").await?,
            },
            GSS_REQUEST => stream.write_all(b"N").await?,
            // There is nothing that could be cancelled.
            CANCEL_REQUEST => return Ok(None),
            _ => return Ok(Some((packet, secure))),
        }
    }
}

fn code(packet: &[u8]) -> u32 {
    let head = packet.first_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(head)
}

/// A refusal; without words when the client left.
type Refused = Option<Failure>;

async fn enter(
    shared: &Shared,
    wire: &mut Wire,
    packet: &[u8],
    secure: bool,
    id: u32,
) -> io::Result<Result<Client, Refused>> {
    let (client, unknown) = match read(packet) {
        Ok(read) => read,
        Err(failure) => return Ok(Err(Some(failure))),
    };
    let mut out = Vec::new();
    if code(packet) & 0xffff != 0 || !unknown.is_empty() {
        // NegotiateProtocolVersion: 3.0 it is, without these options.
        message(&mut out, b'v', |out| {
            out.extend(0x0003_0000_u32.to_be_bytes());
            out.extend((unknown.len() as u32).to_be_bytes());
            unknown.iter().for_each(|name| text(out, name));
        });
        wire.writer.write(&out).await?;
    }
    if let Err(refused) = authenticate(shared, wire, &client.user, secure).await? {
        return Ok(Err(refused));
    }
    out.clear();
    request(&mut out, 0, b"");
    if let Err(failure) = admit(shared, &client) {
        failure.encode(&mut out);
        wire.writer.write(&out).await?;
        return Ok(Err(None));
    }
    for (name, value) in shared.parameters(&client) {
        message(&mut out, b'S', |out| {
            text(out, &name);
            text(out, &value);
        });
    }
    message(&mut out, b'K', |out| {
        out.extend(id.to_be_bytes());
        out.extend(rand::random::<[u8; 4]>());
    });
    wire.writer.write(&out).await?;
    Ok(Ok(client))
}

/// The start-up packet, with the names of protocol options that nobody knows.
fn read(packet: &[u8]) -> Result<(Client, Vec<String>), Failure> {
    let version = code(packet);
    if version >> 16 != 3 {
        let (major, minor) = (version >> 16, version & 0xffff);
        let what =
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
        return Err(Failure::fatal("0A000", what));
    }
    let broken = || {
        Failure::fatal(
            "08P01",
            "invalid startup packet layout: expected terminator as last byte",
        )
    };
    let parameters = packet[4..].strip_suffix(b"\0").ok_or_else(broken)?;
    let mut parts = parameters
        .split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned());
    let (mut settings, mut unknown) = (BTreeMap::new(), Vec::new());
    while let Some(name) = parts.next().filter(|name| !name.is_empty()) {
        let value = parts.next().ok_or_else(broken)?;
        match name.starts_with("_pq_.") {
            true => unknown.push(name),
            false => _ = settings.insert(name.to_ascii_lowercase(), value),
        }
    }
    let user = settings.remove("user").filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| {
        Failure::fatal(
            "28000",
            "no PostgreSQL user name specified in startup packet",
        )
    })?;
    let replication = match settings.remove("replication").as_deref() {
        None | Some("false" | "off" | "no" | "0") => Replication::No,
        Some("database") => Replication::Database,
        Some("true" | "on" | "yes" | "1") => {
            let what = "a replay server knows no physical replication: use replication=database";
            return Err(Failure::fatal("0A000", what));
        }
        Some(other) => {
            let mut failure = Failure::fatal(
                "22023",
                format!("invalid value for parameter \"replication\": \"{other}\""),
            );
            failure.hint =
                Some("Valid values are: \"false\", 0, \"true\", 1, \"database\".".into());
            return Err(failure);
        }
    };
    let database = settings.remove("database").filter(|name| !name.is_empty());
    for (name, value) in options(&settings.remove("options").unwrap_or_default())? {
        settings.insert(name, value);
    }
    let client = Client {
        database: database.unwrap_or_else(|| user.clone()),
        user,
        replication,
        settings,
    };
    Ok((client, unknown))
}

/// `-c name=value -cname=value --name=value`, a backslash before what is meant literally.
fn options(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let (mut words, mut word, mut characters) = (Vec::new(), None::<String>, text.chars());
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let (mut found, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        let assignment = match word.as_str() {
            "-c" => words.next().unwrap_or_default(),
            word if word.starts_with("--") => word[2..].to_owned(),
            word if word.starts_with("-c") => word[2..].to_owned(),
            word => {
                let what = format!("invalid command-line argument for server process: {word}");
                return Err(Failure::fatal("42601", what));
            }
        };
        let Some((name, value)) = assignment.split_once('=') else {
            let what = format!("-c {assignment} requires a value");
            return Err(Failure::fatal("42601", what));
        };
        let name = name.to_ascii_lowercase().replace('-', "_");
        found.push((name, value.to_owned()));
    }
    Ok(found)
}

/// What is looked at once the client is who it says.
fn admit(shared: &Shared, client: &Client) -> Result<(), Failure> {
    if client.replication == Replication::Database && !shared.may_replicate() {
        let what = "must be superuser or replication role to start walsender";
        return Err(Failure::fatal("42501", what));
    }
    if !shared.has_database(&client.database) {
        let what = format!("database \"{}\" does not exist", client.database);
        return Err(Failure::fatal("3D000", what));
    }
    let unknown = client
        .settings
        .keys()
        .find(|name| !shared.knows_setting(name));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let what = format!("unrecognized configuration parameter \"{name}\"");
            Err(Failure::fatal("42704", what))
        }
    }
}

/// An Authentication message.
fn request(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    message(out, b'R', |out| {
        out.extend(kind.to_be_bytes());
        out.extend(data);
    });
}

async fn ask(wire: &mut Wire, kind: u32, data: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    request(&mut out, kind, data);
    wire.writer.write(&out).await?;
    Ok(match wire.reader.receive().await? {
        Some(Received { tag: b'p', body }) => Some(body),
        _ => None,
    })
}

fn wrong_password(user: &str) -> Failure {
    let what = format!("password authentication failed for user \"{user}\"");
    Failure::fatal("28P01", what)
}

/// Lets the client prove who it is, without AuthenticationOk.
async fn authenticate(
    shared: &Shared,
    wire: &mut Wire,
    user: &str,
    secure: bool,
) -> io::Result<Result<(), Refused>> {
    let Some((name, password)) = &shared.stage.options.user else {
        return Ok(Ok(()));
    };
    // A user that is not there gets the same questions.
    let password = (name == user).then_some(password.as_str());
    let proven = match shared.stage.options.postgres.auth {
        AuthMethod::Password => ask(wire, 3, b"").await?.map(|answer| {
            let given = answer.strip_suffix(b"\0").unwrap_or(&answer);
            password.is_some_and(|password| password.as_bytes() == given)
        }),
        AuthMethod::Md5 => {
            let salt: [u8; 4] = rand::random();
            ask(wire, 5, &salt).await?.map(|answer| {
                let given = answer.strip_suffix(b"\0").unwrap_or(&answer);
                password.is_some_and(|password| {
                    let hash = postgres_protocol::authentication::md5_hash(
                        user.as_bytes(),
                        password.as_bytes(),
                        salt,
                    );
                    hash.as_bytes() == given
                })
            })
        }
        AuthMethod::ScramSha256 => return by_scram(shared, wire, user, password, secure).await,
    };
    Ok(match proven {
        Some(true) => Ok(()),
        Some(false) => Err(Some(wrong_password(user))),
        None => Err(None),
    })
}

async fn by_scram(
    shared: &Shared,
    wire: &mut Wire,
    user: &str,
    password: Option<&str>,
    secure: bool,
) -> io::Result<Result<(), Refused>> {
    let tls = shared.stage.tls.as_ref().filter(|_| secure);
    let end_point = tls.map(|tls| tls.end_point.as_slice());
    let mut mechanisms = Vec::new();
    if end_point.is_some() {
        text(&mut mechanisms, scram::PLUS);
    }
    text(&mut mechanisms, scram::PLAIN);
    mechanisms.push(0);
    let Some(first) = ask(wire, 10, &mechanisms).await? else {
        return Ok(Err(None));
    };
    // A password that nobody has, for a user that is not there.
    let random = password
        .is_none()
        .then(|| format!("{:032x}", rand::random::<u128>()));
    let password = password.or(random.as_deref()).unwrap_or_default();
    let exchange = match initial(&first) {
        Some((mechanism, data)) => Exchange::begin(password, mechanism, data, end_point),
        None => Err(Refusal::Protocol(
            "client selected an invalid SASL authentication mechanism",
        )),
    };
    let refuse = |refusal| match refusal {
        Refusal::Password => wrong_password(user),
        Refusal::Protocol(what) => Failure::fatal("08P01", what),
    };
    let exchange = match exchange {
        Ok(exchange) => exchange,
        Err(refusal) => return Ok(Err(Some(refuse(refusal)))),
    };
    let Some(last) = ask(wire, 11, exchange.server_first().as_bytes()).await? else {
        return Ok(Err(None));
    };
    match exchange.finish(&last) {
        Ok(server_final) => {
            let mut out = Vec::new();
            request(&mut out, 12, server_final.as_bytes());
            wire.writer.write(&out).await?;
            Ok(Ok(()))
        }
        Err(refusal) => Ok(Err(Some(refuse(refusal)))),
    }
}

/// SASLInitialResponse: mechanism 00 length:4 data.
fn initial(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let mechanism = std::str::from_utf8(&body[..end]).ok()?;
    let known = [scram::PLAIN, scram::PLUS].contains(&mechanism);
    let data = body.get(end + 5..)?;
    known.then_some((mechanism, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = 0x0003_0000_u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            text(&mut packet, name);
            text(&mut packet, value);
        }
        packet.push(0);
        packet
    }

    #[test]
    fn start_up_packets() {
        let all = packet(&[
            ("user", "cdc"),
            ("replication", "database"),
            ("_pq_.x", "1"),
            ("options", "-c datestyle=ISO --Work-Mem=1\\ MB -cx.y=2"),
        ]);
        let (client, unknown) = read(&all).unwrap();
        assert_eq!(
            (client.user.as_str(), client.database.as_str()),
            ("cdc", "cdc")
        );
        assert_eq!(client.replication, Replication::Database);
        assert_eq!(unknown, ["_pq_.x"]);
        let settings: Vec<_> = client
            .settings
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(settings, ["datestyle=ISO", "work_mem=1 MB", "x.y=2"]);
    }

    #[test]
    fn wrong_ones_are_refused() {
        let code = |packet: &[u8]| read(packet).map(|_| ()).unwrap_err().code;
        assert_eq!(code(&packet(&[("database", "x")])), "28000");
        assert_eq!(
            code(&packet(&[("user", "x"), ("replication", "maybe")])),
            "22023"
        );
        assert_eq!(code(&packet(&[("user", "x"), ("options", "-z")])), "42601");
        assert_eq!(code(&2_u32.to_be_bytes()), "0A000");
        assert_eq!(code(&packet(&[("user", "x")])[..8]), "08P01");
    }
}
