//! One client's connection: handshake, authentication, commands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::mysql::Flavour;
use protocol::mysql::auth::{Plugin, Request, Server as Authentication, ServerStep};
use protocol::mysql::command::{
    BinlogDump, BinlogDumpGtid, Command, DUMP_ANNOTATE_ROWS, DUMP_HEARTBEAT_V2, DUMP_NON_BLOCK,
    DUMP_THROUGH_GTID,
};
use protocol::mysql::compress::Algorithm;
use protocol::mysql::event::Checksum;
use protocol::mysql::gtid::GtidSet;
use protocol::mysql::handshake::{Answer as HandshakeAnswer, Greeting, Response, capability};
use protocol::mysql::resultset::{Answer, ServerError, encode_ok};

use super::Shared;
use super::answers::Answers;
use super::plan::{self, Plan, Session};
use super::projector::{Ended, Show, project};
use super::wire::Wire;

/// Serves one client until it leaves.
pub(super) async fn serve(
    shared: Arc<Shared>,
    mut wire: Wire,
    connection_id: u32,
) -> io::Result<()> {
    let Some(response) = shake_hands(&shared, &mut wire, connection_id).await? else {
        return Ok(());
    };
    let deprecate_eof = response.capabilities & capability::DEPRECATE_EOF != 0;
    let has = |bit| response.capabilities & bit != 0 && shared.capabilities() & bit != 0;
    if has(capability::ZSTD_COMPRESSION) {
        wire.compress(Algorithm::Zstd {
            level: response.zstd_level.clamp(1, 22),
        })?;
    } else if has(capability::COMPRESS) {
        wire.compress(Algorithm::Zlib)?;
    }
    let mut answers = Answers::new(
        &shared.sidecar,
        &shared.facts,
        &response.user,
        connection_id,
    );
    loop {
        wire.expect_command();
        let Some(payload) = wire.receive().await? else {
            return Ok(());
        };
        let command = match Command::decode(&payload) {
            Ok(command) => command,
            Err(error) => {
                let error = ServerError::new(
                    1835,
                    "HY000",
                    format!("Malformed communication packet: {error}"),
                );
                return send_error(&mut wire, &error).await;
            }
        };
        match command {
            Command::Quit => return Ok(()),
            Command::Ping | Command::InitDb(_) | Command::Reset | Command::RegisterReplica(_) => {
                send_ok(&mut wire).await?
            }
            Command::Query(statement) => {
                let statement = String::from_utf8_lossy(statement);
                let answer = answers.answer(&statement);
                tracing::debug!(connection_id, %statement, refused = matches!(answer, Answer::Refused(_)), "query");
                send_answer(&mut wire, answer, deprecate_eof).await?;
            }
            Command::BinlogDump(dump) => {
                let (plan, show) = dump_at(&shared, &answers, &dump);
                return show_film(&shared, wire, plan, show).await;
            }
            Command::BinlogDumpGtid(dump) => {
                let (plan, show) = dump_after(&shared, &answers, &dump);
                return show_film(&shared, wire, plan, show).await;
            }
            Command::Other(number) => {
                let error = ServerError::new(
                    1047,
                    "08S01",
                    format!(
                        "Unknown command {number:#04x} (a replay server answers text queries and dumps)"
                    ),
                );
                send_error(&mut wire, &error).await?;
            }
        }
    }
}

async fn show_film(
    shared: &Shared,
    mut wire: Wire,
    plan: Result<Plan, ServerError>,
    show: Show,
) -> io::Result<()> {
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            tracing::info!(%error, "dump refused");
            return send_error(&mut wire, &error).await;
        }
    };
    match project(shared, &mut wire, plan, show).await? {
        Ended::Cut => wire.reset(),
        Ended::Peacefully => {}
    }
    Ok(())
}

fn dump_at(
    shared: &Shared,
    answers: &Answers<'_>,
    dump: &BinlogDump<'_>,
) -> (Result<Plan, ServerError>, Show) {
    let show = show(shared, answers, dump.flags);
    let session = show.session;
    if let Err(error) = checksums_known(shared, answers) {
        return (Err(error), show);
    }
    let domains = answers.variables.get("slave_connect_state");
    let plan = match domains.filter(|_| shared.film.flavour == Flavour::MariaDb) {
        Some(state) => match GtidSet::parse(Flavour::MariaDb, state) {
            Ok(GtidSet::MariaDb(has)) => plan::after_domains(&shared.film, &has, session),
            _ => Err(ServerError::new(
                1236,
                "HY000",
                format!(
                    "Out of memory or malformed slave request when obtaining start position from GTID state '{state}'"
                ),
            )),
        },
        None => {
            let file = String::from_utf8_lossy(dump.file);
            plan::at_position(&shared.film, &file, dump.offset.into(), session)
        }
    };
    tracing::info!(
        offset = dump.offset,
        gtids = domains,
        flags = dump.flags,
        refused = plan.is_err(),
        "COM_BINLOG_DUMP"
    );
    (plan, show)
}

fn dump_after(
    shared: &Shared,
    answers: &Answers<'_>,
    dump: &BinlogDumpGtid<'_>,
) -> (Result<Plan, ServerError>, Show) {
    let show = show(shared, answers, dump.flags);
    let plan = checksums_known(shared, answers).and_then(|()| {
        // Without the flag file and offset count; several clients leave it out and mean the set all the same.
        if dump.flags & DUMP_THROUGH_GTID == 0 && !dump.file.is_empty() {
            let file = String::from_utf8_lossy(dump.file);
            return plan::at_position(&shared.film, &file, dump.offset, show.session);
        }
        plan::after_gtids(&shared.film, &dump.gtids, show.session)
    });
    tracing::info!(gtids = %dump.gtids, flags = dump.flags, refused = plan.is_err(), "COM_BINLOG_DUMP_GTID");
    (plan, show)
}

/// The checksum that the client said it can read: the session variable under its new name or its old.
fn client_checksum<'a>(answers: &'a Answers<'_>) -> Option<&'a str> {
    let named = |name: &str| answers.variables.get(name).map(String::as_str);
    named("source_binlog_checksum").or_else(|| named("master_binlog_checksum"))
}

fn checksums_known(shared: &Shared, answers: &Answers<'_>) -> Result<(), ServerError> {
    match (shared.film.checksum, client_checksum(answers)) {
        (Checksum::Crc32, None) => Err(ServerError::new(
            1236,
            "HY000",
            "Replica can not handle replication events with the checksum that source is configured to log; set @source_binlog_checksum",
        )),
        _ => Ok(()),
    }
}

fn show(shared: &Shared, answers: &Answers<'_>, flags: u16) -> Show {
    let is_mysql = shared.film.flavour == Flavour::MySql;
    let none = matches!(client_checksum(answers), None | Some("NONE" | "0" | ""));
    let period = ["source_heartbeat_period", "master_heartbeat_period"];
    let period = period
        .iter()
        .find_map(|name| answers.variables.get(*name)?.parse().ok());
    Show {
        session: Session {
            server_id: shared.server_id(),
            checksum: if none {
                Checksum::Off
            } else {
                shared.film.checksum
            },
            annotate: is_mysql || flags & DUMP_ANNOTATE_ROWS != 0,
        },
        ends: flags & DUMP_NON_BLOCK != 0,
        wide_heartbeats: is_mysql && flags & DUMP_HEARTBEAT_V2 != 0,
        // In nanoseconds; 0 is never.
        heartbeat: period.filter(|n| *n > 0).map(Duration::from_nanos),
    }
}

/// The client's response, accepted; `None` when it was refused or left.
async fn shake_hands(
    shared: &Shared,
    wire: &mut Wire,
    connection_id: u32,
) -> io::Result<Option<Response>> {
    let plugin = shared.stage.options.auth_plugin;
    // MariaDB greets with mysql_native_password whatever its users have, and then switches.
    let greets_with = match plugin {
        Plugin::ClientEd25519 => Plugin::MysqlNativePassword,
        plugin => plugin,
    };
    let nonce = nonce(greets_with);
    let greeting = Greeting {
        version: shared.greeting_version(),
        connection_id,
        nonce: nonce.clone(),
        capabilities: shared.capabilities(),
        charset: 45,
        status: 2,
        plugin: greets_with.name().to_owned(),
    };
    let mut payload = Vec::new();
    greeting.encode(&mut payload);
    wire.send(&payload).await?;
    let mut secure = false;
    let response = loop {
        let Some(payload) = wire.receive().await? else {
            return Ok(None);
        };
        match HandshakeAnswer::decode(&payload) {
            Ok(HandshakeAnswer::Ssl { .. }) => {
                let Some(tls) = shared.stage.tls_config().filter(|_| !secure) else {
                    return Ok(None);
                };
                wire.start_tls(tls).await?;
                secure = true;
            }
            Ok(HandshakeAnswer::Response(response)) => break response,
            Err(error) => {
                send_error(
                    wire,
                    &ServerError::new(1043, "08S01", format!("Bad handshake: {error}")),
                )
                .await?;
                return Ok(None);
            }
        }
    };
    let Some((user, password)) = &shared.stage.options.user else {
        send_ok(wire).await?;
        return Ok(Some(response));
    };
    let accepted = *user == response.user && {
        let switch = plugin != greets_with || response.plugin != plugin.name();
        authenticate(
            shared,
            wire,
            &response,
            password,
            switch.then_some(plugin),
            (greets_with, &nonce),
            secure,
        )
        .await?
    };
    if !accepted {
        let using = if response.auth_response.len() > 1 {
            "YES"
        } else {
            "NO"
        };
        let text = format!(
            "Access denied for user '{}'@'localhost' (using password: {using})",
            response.user
        );
        send_error(wire, &ServerError::new(1045, "28000", text)).await?;
        return Ok(None);
    }
    shared.remember(&response.user);
    send_ok(wire).await?;
    Ok(Some(response))
}

async fn authenticate(
    shared: &Shared,
    wire: &mut Wire,
    response: &Response,
    password: &str,
    switch_to: Option<Plugin>,
    (mut plugin, first_nonce): (Plugin, &[u8]),
    secure: bool,
) -> io::Result<bool> {
    let mut nonce = first_nonce.to_vec();
    let mut payload = response.auth_response.clone();
    if let Some(other) = switch_to {
        plugin = other;
        nonce = self::nonce(other);
        let mut switch = Vec::new();
        Request::Switch {
            plugin: other.name().as_bytes(),
            nonce: &nonce,
        }
        .encode(&mut switch);
        wire.send(&switch).await?;
        match wire.receive().await? {
            Some(answer) => payload = answer,
            None => return Ok(false),
        }
    }
    let cached = shared.remembers(&response.user);
    let mut server = Authentication::new(plugin, &nonce, password.as_bytes(), secure, cached);
    loop {
        // The key is only made when a client can ask for it.
        let key = (!secure).then(|| shared.key());
        let pem = key.map_or(&b""[..], |key| key.pem().as_bytes());
        match server.answer(&payload, pem, |block| {
            key.and_then(|key| key.decrypt(block))
        }) {
            ServerStep::Deny => return Ok(false),
            ServerStep::Accept(last) => {
                if let Some(last) = last {
                    wire.send(&last).await?;
                }
                return Ok(true);
            }
            ServerStep::Send(packet) => {
                wire.send(&packet).await?;
                match wire.receive().await? {
                    Some(answer) => payload = answer,
                    None => return Ok(false),
                }
            }
        }
    }
}

/// Random bytes without NUL, at which old clients end the nonce.
fn nonce(plugin: Plugin) -> Vec<u8> {
    (0..plugin.nonce_length())
        .map(|_| rand::random_range(1..=127))
        .collect()
}

async fn send_ok(wire: &mut Wire) -> io::Result<()> {
    let mut payload = Vec::new();
    encode_ok(&mut payload, 0);
    wire.send(&payload).await
}

async fn send_error(wire: &mut Wire, error: &ServerError) -> io::Result<()> {
    let mut payload = Vec::new();
    error.encode(&mut payload);
    wire.send(&payload).await
}

async fn send_answer(wire: &mut Wire, answer: Answer, deprecate_eof: bool) -> io::Result<()> {
    match answer {
        Answer::Done => send_ok(wire).await,
        Answer::Refused(error) => send_error(wire, &error).await,
        Answer::Rows(rows) => {
            let (mut bytes, mut sequence) = (Vec::new(), wire.sequence);
            rows.encode(deprecate_eof, &mut bytes, &mut sequence);
            wire.write_packets(&bytes).await
        }
    }
}
