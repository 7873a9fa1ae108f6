//! A live server with the workload waiting in its log, and the moment at which the engine begins to read it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use netem::Door;
use tokio::task::JoinHandle;

use super::bare;
use super::load::{COLUMNS, FIRST, Load};
use super::scenario::{LiveServer, Source};
use super::source::postgres_settings;
use crate::links::Passage;
use crate::seed;
use crate::seed::postgres::reason;
use crate::servers::{self, Server};
use crate::truth::Truth;
use crate::workload::Workload;

/// How often a server is asked whether its sender has begun.
const POLL: Duration = Duration::from_millis(1);
/// How long a server may take to see that a reader has left.
const RELEASE_MAX: Duration = Duration::from_secs(60);
/// Slot and publication of PostgreSQL.
const SLOT: &str = "walbrook";
/// The slot of the bare reader: a copy of the other.
const BARE_SLOT: &str = "bare";
/// The table of a load.
const PROBE: &str = "probe";
/// The schema, or database, of tables that are made here.
const SCHEMA: &str = "walbrook";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A running server; it ends when this is dropped.
pub(super) struct Live {
    server: Server,
    source: Source,
    began: Arc<OnceLock<Instant>>,
    watch: JoinHandle<()>,
    bare: Option<f64>,
    /// Where the engine finds it, where that is not the server's own address.
    behind: Option<(SocketAddr, Passage)>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Live {
    /// Starts the server and writes the workload into it.
    pub(super) async fn start(source: &Source) -> Result<(Live, Truth), Failure> {
        let (Some(kind), Some(rows)) = (source.server, source.rows) else {
            return Err("source: neither a recording nor a server".into());
        };
        let server = started(kind, source).await?;
        let workload = Workload::new(rows, source.seed);
        let began = Arc::new(OnceLock::new());
        let (truth, watch, bare) = match kind {
            LiveServer::Mysql | LiveServer::Mariadb => {
                let mut connection = server.connect().await?;
                let truth = seed::mysql::seed(&mut connection, &workload).await?;
                let watch = tokio::spawn(watch_mysql(connection, Arc::clone(&began)));
                (truth, watch, None)
            }
            LiveServer::Postgres => {
                let client = server.connect_postgres().await?;
                let truth = into_postgres(&client, &workload, &source.plugin).await?;
                let (url, plugin) = (server.cdc_url(), source.plugin.clone());
                let bare = tokio::task::spawn_blocking(move || {
                    bare::read(&url, BARE_SLOT, SLOT, &plugin, rows)
                });
                let bare = bare.await??;
                drop_slot(&client, BARE_SLOT).await?;
                let watch = tokio::spawn(watch_postgres(client, Arc::clone(&began)));
                (truth, watch, Some(bare))
            }
        };
        let live = Live {
            server,
            source: source.clone(),
            began,
            watch,
            bare,
            behind: None,
        };
        Ok((live, truth))
    }

    /// Has the engine reach it by `door`, over an emulated link; everybody else goes past it.
    pub(super) async fn put_behind(&mut self, door: &Door) -> Result<(), Failure> {
        let service = SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.port()));
        let passage = Passage::open(door, service).await?;
        self.behind = Some((door.address(), passage));
        Ok(())
    }

    /// Starts the server for rows that are committed while the engine streams: there is nothing yet that must come out.
    pub(super) async fn start_for_load(
        source: &Source,
        load: &Load,
    ) -> Result<(Live, Truth), Failure> {
        let kind = source.server.ok_or("source: a load needs a server")?;
        let server = started(kind, source).await?;
        let live = Live {
            server,
            source: source.clone(),
            began: Arc::default(),
            watch: tokio::spawn(async {}),
            bare: None,
            behind: None,
        };
        live.make_table(PROBE).await?;
        let truth = Truth {
            schema: SCHEMA.to_owned(),
            table: PROBE.to_owned(),
            ..Truth::of(&Workload::new(0, load.seed))
        };
        Ok((live, truth))
    }

    /// What the engine is to find: its slot, and the first row, which shows that it streams.
    pub(super) async fn begin_load(&self) -> Result<(), Failure> {
        if self.server.flavour() == servers::Flavour::Postgres {
            self.make_slot(SLOT, PROBE, &self.source.plugin).await?;
        }
        self.execute(&format!("INSERT INTO {SCHEMA}.{PROBE} VALUES {FIRST}"))
            .await
    }

    /// The table that a load writes.
    pub(super) fn probe_table(&self) -> String {
        format!("{SCHEMA}.{PROBE}")
    }

    /// A table for a bare reader, with PostgreSQL also a slot; the table's name.
    pub(super) async fn begin_bare(&self) -> Result<String, Failure> {
        self.make_table(BARE_SLOT).await?;
        if self.server.flavour() == servers::Flavour::Postgres {
            self.make_slot(BARE_SLOT, BARE_SLOT, "pgoutput").await?;
        }
        Ok(format!("{SCHEMA}.{BARE_SLOT}"))
    }

    /// Drops the bare reader's slot.
    pub(super) async fn end_bare(&self) -> Result<(), Failure> {
        match self.server.flavour() {
            servers::Flavour::Postgres => {
                drop_slot(&self.server.connect_postgres().await?, BARE_SLOT).await
            }
            _ => Ok(()),
        }
    }

    /// The bare reader's slot and publication.
    pub(super) fn bare_slot(&self) -> &'static str {
        BARE_SLOT
    }

    /// Its kind and its version, as it says itself.
    pub(super) async fn version(&self) -> Result<String, Failure> {
        let flavour = self.server.flavour();
        let version: String = match flavour {
            servers::Flavour::Postgres => {
                let client = self.server.connect_postgres().await?;
                let row = client.query_one("SHOW server_version", &[]).await;
                row.map_err(reason)?.get(0)
            }
            _ => {
                let mut connection = self.server.connect().await?;
                let row = connection.query_first("SELECT VERSION()").await?;
                row.unwrap_or_default()
            }
        };
        Ok(format!("{} {version}", flavour.name()))
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    async fn make_table(&self, table: &str) -> Result<(), Failure> {
        let schema = match self.server.flavour() {
            servers::Flavour::Postgres => "SCHEMA",
            _ => "DATABASE",
        };
        self.execute(&format!("CREATE {schema} IF NOT EXISTS {SCHEMA}"))
            .await?;
        self.execute(&format!("CREATE TABLE {SCHEMA}.{table} ({COLUMNS})"))
            .await
    }

    async fn make_slot(&self, slot: &str, table: &str, plugin: &str) -> Result<(), Failure> {
        let client = self.server.connect_postgres().await?;
        let table = format!("{SCHEMA}.{table}");
        seed::postgres::publish(&client, slot, Some(&table)).await?;
        seed::postgres::make_slot(&client, slot, plugin, false).await
    }

    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        match self.server.flavour() {
            servers::Flavour::Postgres => {
                let client = self.server.connect_postgres().await?;
                client.batch_execute(sql).await.map_err(reason)?;
            }
            _ => self.server.connect().await?.query_drop(sql).await?,
        }
        Ok(())
    }

    /// The engine's settings for this source, lines of TOML.
    pub(super) fn settings(&self) -> String {
        let mut url = self.server.cdc_url();
        if let Some((address, _)) = &self.behind {
            let own = format!("127.0.0.1:{}", self.server.port());
            url = url.replace(&own, &address.to_string());
        }
        match self.server.flavour() {
            // Without TLS, as the bare reader: the server would encrypt message by message.
            servers::Flavour::Postgres => {
                let url = self.source.url(&format!("{url}?tls=disable"));
                postgres_settings(&url, SLOT, &self.source.plugin)
            }
            _ => format!("url = {:?}\n", self.source.url(&url)),
        }
    }

    /// Not later than its sender began: when it was last found without one.
    pub(super) fn began(&self) -> Option<Instant> {
        self.began.get().copied()
    }

    /// What a bare reader got.
    pub(super) fn bare_changes_per_second(&self) -> Option<f64> {
        self.bare
    }
}

/// A server of this kind with the scenario's options.
async fn started(kind: LiveServer, source: &Source) -> Result<Server, Failure> {
    let options: Vec<&str> = source.server_options.iter().map(String::as_str).collect();
    Ok(Server::start(servers::Flavour::from(kind), &options).await?)
}

/// Table, publication, two slots, then the workload: both slots have all of it before them.
async fn into_postgres(
    client: &tokio_postgres::Client,
    workload: &Workload,
    plugin: &str,
) -> Result<Truth, Failure> {
    use seed::postgres::{Identity, TABLE, make_slot, prepare, publish};
    prepare(client, Identity::Default).await?;
    publish(client, SLOT, Some(TABLE)).await?;
    make_slot(client, SLOT, plugin, false).await?;
    let copy = format!("SELECT pg_copy_logical_replication_slot('{SLOT}', '{BARE_SLOT}')");
    client.batch_execute(&copy).await.map_err(reason)?;
    seed::postgres::seed(client, workload, Identity::Default).await
}

/// Drops a slot whose reader has left, as soon as the server has seen that.
async fn drop_slot(client: &tokio_postgres::Client, slot: &str) -> Result<(), Failure> {
    let deadline = crate::clock::now() + RELEASE_MAX;
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while client
        .query_one(active.as_str(), &[])
        .await
        .map_err(reason)?
        .get(0)
    {
        if crate::clock::now() > deadline {
            return Err(format!("the server does not release slot {slot}").into());
        }
        tokio::time::sleep(POLL).await;
    }
    let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
    Ok(client.batch_execute(&drop).await.map_err(reason)?)
}

/// When the last question was put that found no sender: it began after that, and what it did before it was seen counts.
struct Unseen(Instant);

impl Unseen {
    /// Takes the answer to a question that was put at `asked`; whether to ask again. A server that cannot be asked any more gives none.
    fn goes_on(&mut self, asked: Instant, is_there: Option<bool>) -> bool {
        let is_missing = is_there == Some(false);
        if is_missing {
            self.0 = asked;
        }
        is_missing
    }
}

async fn watch_mysql(mut connection: mysql_async::Conn, began: Arc<OnceLock<Instant>>) {
    // PROCESSLIST of information_schema is there on every flavour, performance schema or not.
    let query =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    let mut unseen = Unseen(crate::clock::now());
    loop {
        let asked = crate::clock::now();
        let senders = connection.query_first::<u64, _>(query).await;
        let is_there = senders.ok().flatten().map(|senders| senders > 0);
        if !unseen.goes_on(asked, is_there) {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let _ = began.set(unseen.0);
}

async fn watch_postgres(client: tokio_postgres::Client, began: Arc<OnceLock<Instant>>) {
    let query = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{SLOT}'");
    let mut unseen = Unseen(crate::clock::now());
    loop {
        let asked = crate::clock::now();
        let row = client.query_one(query.as_str(), &[]).await;
        if !unseen.goes_on(asked, row.ok().map(|row| row.get(0))) {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let _ = began.set(unseen.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_began_right_after_it_was_last_not_there() {
        let start = crate::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let began = |answers: &[(u64, Option<bool>)]| {
            let mut unseen = Unseen(start);
            let goes_on: Vec<bool> = (answers.iter())
                .map(|(asked, is_there)| unseen.goes_on(at(*asked), *is_there))
                .collect();
            let (last, before) = goes_on.split_last().unwrap();
            assert!(!last && before.iter().all(|goes_on| *goes_on));
            unseen.0
        };
        let (missing, there) = (Some(false), Some(true));
        assert_eq!(began(&[(1, missing), (3, missing), (9, there)]), at(3));
        // There from the first question on.
        assert_eq!(began(&[(1, there)]), start);
        assert_eq!(began(&[(1, missing), (3, None)]), at(1));
    }
}
