//! Compares the publication with the tables that are selected, every minute: tables made since are added where we may.

use std::time::Duration;

use protocol::postgres::catalog;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::checks::listed;
use super::connection::{Connection, Purpose};
use super::publication::{self, Missing};
use super::server::{Publication, UserTable};
use super::session::{Plan, published_by};
use crate::config::{OnUnpublished, Plugin};
use crate::source::SourceError;

const EVERY: Duration = Duration::from_secs(60);
/// Milliseconds instead of [`EVERY`], for tests: no setting.
const EVERY_IN_TESTS: &str = "WALBROOK_TEST_PUBLICATION_CHECK_MS";

/// The task that looks.
#[derive(Debug)]
pub(super) struct Watch {
    task: JoinHandle<()>,
    verdict: oneshot::Receiver<SourceError>,
}

impl Watch {
    /// Begins to look, where there is a publication to look at.
    pub(super) fn start(plan: &Plan) -> Option<Self> {
        if plan.slot.plugin != Plugin::PgOutput || plan.slot.temporary {
            return None;
        }
        let (tell, verdict) = oneshot::channel();
        let plan = plan.clone();
        let task = tokio::spawn(async move {
            let error = watch(&plan).await;
            // The source may be gone.
            let _ = tell.send(error);
        });
        Some(Self { task, verdict })
    }

    /// What the operator has to know, once there is something that stops the stream.
    pub(super) fn check(&mut self) -> Result<(), SourceError> {
        match self.verdict.try_recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks for as long as nothing stops the stream.
async fn watch(plan: &Plan) -> SourceError {
    let mut told: Vec<Missing> = Vec::new();
    let given = std::env::var(EVERY_IN_TESTS).ok();
    let given = given.and_then(|text| text.parse().ok());
    let every = given.map_or(EVERY, Duration::from_millis);
    loop {
        tokio::time::sleep(every).await;
        match look(plan).await {
            Ok(missing) if missing.is_empty() => told.clear(),
            Ok(missing) => {
                let names: Vec<String> = missing.iter().map(|table| table.quoted.clone()).collect();
                let text = format!(
                    "publication {} lacks {}: run {} as their owner; what is written before that is not captured",
                    plan.slot.publication,
                    listed(&names),
                    publication::add(&plan.slot.publication, &missing)
                );
                if plan.slot.on_unpublished == OnUnpublished::Halt {
                    return SourceError::halt(text);
                }
                if told != missing {
                    tracing::warn!("{text}");
                }
                told = missing;
            }
            // Whatever stands in the way, the stream itself is not concerned.
            Err(error) => tracing::warn!("cannot compare the publication with the tables: {error}"),
        }
    }
}

/// Adds what may be added; returns what remains missing.
async fn look(plan: &Plan) -> Result<Vec<Missing>, SourceError> {
    let mut connection = Connection::connect(&plan.options, Purpose::Queries).await?;
    let name = &plan.slot.publication;
    let publications = connection.query(catalog::PUBLICATIONS).await?;
    let Some(found) = Publication::find(&publications, name) else {
        return Err(SourceError::halt(format!("publication {name} is gone")));
    };
    let published = published_by(&connection.query(catalog::PUBLICATION_TABLES).await?, name);
    let tables = UserTable::read(&connection.query(catalog::TABLES).await?);
    let mut missing = match found.all_tables {
        true => Vec::new(),
        false => publication::missing(&tables, &published, found.via_root, &plan.selection),
    };
    if found.owned && !missing.is_empty() {
        let (ours, others): (Vec<_>, Vec<_>) = missing.into_iter().partition(|table| table.owned);
        if !ours.is_empty() {
            let statement = publication::add(name, &ours);
            tracing::info!("{statement}");
            connection.query(&statement).await?;
        }
        missing = others;
    }
    connection.close().await;
    Ok(missing)
}
