//! Where a replay's changes come from: a replay server in this process, or a live one with the workload in its binlog.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fixtures::Recording;
use mysql_async::prelude::Queryable as _;

use super::scenario::{Deed, Fault, Link, Scenario, Source};
use crate::seed;
use crate::serve::{self, Action, Place, Rate, ServeOptions};
use crate::servers;
use crate::truth::Truth;
use crate::workload::Workload;

/// How often a live server is asked whether the dump has begun.
const DUMP_POLL: Duration = Duration::from_millis(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A running source.
pub(super) struct Upstream {
    kind: Kind,
    truth: Truth,
}

enum Kind {
    Replayed(serve::Server),
    Live(Box<Live>),
}

struct Live {
    server: servers::Server,
    dump_began: Arc<OnceLock<Instant>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Upstream {
    /// Starts the scenario's source, with its faults of the link to the source.
    pub(super) async fn start(scenario: &Scenario) -> Result<Upstream, Failure> {
        let source = scenario.source();
        match source.open() {
            Some(recording) => replayed(&recording?, source, &scenario.fault).await,
            None => live(source).await,
        }
    }

    /// What must come out.
    pub(super) fn truth(&self) -> &Truth {
        &self.truth
    }

    /// For the engine.
    pub(super) fn url(&self) -> String {
        match &self.kind {
            Kind::Replayed(server) => format!("mysql://cdc:cdc@{}", server.address()),
            Kind::Live(live) => live.server.cdc_url(),
        }
    }

    /// When the first byte of the stream was sent; for a live server, when its dump thread was first seen.
    pub(super) fn first_byte(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Replayed(server) => server.first_byte_at(),
            Kind::Live(live) => live.dump_began.get().copied(),
        }
    }

    /// Bytes of the stream sent; a live server does not tell.
    pub(super) fn bytes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Replayed(server) => Some(server.bytes_sent()),
            Kind::Live(_) => None,
        }
    }
}

async fn replayed(
    recording: &Recording,
    source: &Source,
    faults: &[Fault],
) -> Result<Upstream, Failure> {
    let mut truth = Truth::read(&recording.truth_path())?;
    if let Some(rows) = source.one_transaction_rows {
        // The recording's rows over and over are so many passes of its workload.
        let workload = truth
            .workload
            .clone()
            .filter(|workload| rows % workload.changes == 0);
        let workload = workload.ok_or(
            "one_transaction_rows must be a multiple of the changes of a recording with a workload",
        )?;
        let passes = u32::try_from(rows / workload.changes)?;
        let (schema, table) = (truth.schema.clone(), truth.table.clone());
        truth = Truth {
            schema,
            table,
            ..tokio::task::block_in_place(|| {
                Truth::with(&Workload { passes, ..workload }, truth.images)
            })
        };
    }
    let on_source = faults.iter().filter(|fault| fault.link == Link::Source);
    let faults = on_source.flat_map(|fault| {
        let action = match fault.deed {
            Deed::Cut => Some(Action::Cut),
            Deed::Stall => Some(Action::Stall(Duration::from_millis(fault.for_ms))),
            _ => None,
        };
        let moments = action
            .map(|_| fault.moments(truth.changes))
            .unwrap_or_default();
        moments.into_iter().filter_map(move |at| {
            Some(serve::Fault {
                at: Place::Changes(at),
                action: action?,
            })
        })
    });
    let options = ServeOptions {
        user: Some(("cdc".to_owned(), "cdc".to_owned())),
        rate: source.rate_changes_per_second.map(Rate::Changes),
        faults: faults.collect(),
        transaction_rows: source.one_transaction_rows,
        ..ServeOptions::default()
    };
    let server = serve::Server::start(recording, "127.0.0.1:0", options).await?;
    Ok(Upstream {
        kind: Kind::Replayed(server),
        truth,
    })
}

async fn live(source: &Source) -> Result<Upstream, Failure> {
    let (Some(flavour), Some(rows)) = (source.server, source.rows) else {
        return Err("source: neither a recording nor a server".into());
    };
    let server = servers::Server::start(flavour.into(), &[]).await?;
    let mut connection = server.connect().await?;
    let truth = seed::mysql::seed(&mut connection, &Workload::new(rows, source.seed)).await?;
    let dump_began = Arc::new(OnceLock::new());
    let watch = {
        let dump_began = Arc::clone(&dump_began);
        tokio::spawn(async move {
            // PROCESSLIST of information_schema is there on every flavour, performance schema or not.
            let query = "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
            while let Ok(Some(0u64)) = connection.query_first::<u64, _>(query).await {
                tokio::time::sleep(DUMP_POLL).await;
            }
            let _ = dump_began.set(crate::clock::now());
        })
    };
    Ok(Upstream {
        kind: Kind::Live(Box::new(Live {
            server,
            dump_began,
            watch,
        })),
        truth,
    })
}
