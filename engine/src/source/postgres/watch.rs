//! Compares the publication with the tables that are selected, every minute: tables made since are added where we may.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::postgres::catalog;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::checks::listed;
use super::connection::{Connection, Purpose};
use super::publication::{self, Lacking, Missing};
use super::server::{Publication, UserTable};
use super::session::{Plan, published_by, with_roots};
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
    /// Begins to look, where there is a publication to look at. What the start has said is `withheld` is not said again.
    pub(super) fn start(plan: &Plan, withheld: Vec<String>) -> Option<Self> {
        if plan.slot.plugin != Plugin::PgOutput || plan.slot.temporary {
            return None;
        }
        let (tell, verdict) = oneshot::channel();
        let plan = plan.clone();
        let task = tokio::spawn(async move {
            let error = watch(&plan, withheld.into_iter().collect()).await;
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

/// Looks for as long as nothing stops the stream. Each table that is withheld is named once, those of `named` not again.
async fn watch(plan: &Plan, mut named: BTreeSet<String>) -> SourceError {
    let mut told: Vec<Missing> = Vec::new();
    let given = std::env::var(EVERY_IN_TESTS).ok();
    let given = given.and_then(|text| text.parse().ok());
    let every = given.map_or(EVERY, Duration::from_millis);
    loop {
        tokio::time::sleep(every).await;
        let found = match look(plan).await {
            Ok(found) => found,
            // Whatever stands in the way, the stream itself is not concerned.
            Err(error) => {
                tracing::warn!("cannot compare the publication with the tables: {error}");
                continue;
            }
        };
        let name = &plan.slot.publication;
        if plan.slot.on_unpublished == OnUnpublished::Halt && !found.withheld.is_empty() {
            return SourceError::halt(publication::why_withheld(name, &found.withheld));
        }
        let new = not_named(&mut named, found.withheld);
        if !new.is_empty() {
            tracing::warn!("{}", publication::why_withheld(name, &new));
        }
        let missing = found.harmless;
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|table| table.quoted.clone()).collect();
            let text = format!(
                "publication {name} lacks {}: run {} as their owner; what is written before that is not captured",
                listed(&names),
                publication::add(name, &missing)
            );
            if plan.slot.on_unpublished == OnUnpublished::Halt {
                return SourceError::halt(text);
            }
            if told != missing {
                tracing::warn!("{text}");
            }
        }
        told = missing;
    }
}

/// Those of `withheld` that `named` does not have, which from then on has them all, and no other.
fn not_named(named: &mut BTreeSet<String>, withheld: Vec<Missing>) -> Vec<Missing> {
    let all = withheld.iter().map(|table| table.quoted.clone()).collect();
    let before = std::mem::replace(named, all);
    let is_new = |table: &Missing| !before.contains(&table.quoted);
    withheld.into_iter().filter(is_new).collect()
}

/// Adds what may be added; returns what remains missing.
async fn look(plan: &Plan) -> Result<Lacking, SourceError> {
    let mut connection = Connection::connect(&plan.options, Purpose::Queries).await?;
    let name = &plan.slot.publication;
    let publications = connection.query(catalog::PUBLICATIONS).await?;
    let Some(found) = Publication::find(&publications, name) else {
        return Err(SourceError::halt(format!("publication {name} is gone")));
    };
    let published = published_by(&connection.query(catalog::PUBLICATION_TABLES).await?, name);
    let tables = UserTable::read(&connection.query(catalog::TABLES).await?);
    let tables = with_roots(&mut connection, tables).await?;
    let mut lacking = publication::lacking(&tables, Some(&found), &published, &plan.selection);
    if found.owned && !lacking.harmless.is_empty() {
        let (ours, others): (Vec<_>, Vec<_>) =
            (lacking.harmless.into_iter()).partition(|table| table.owned);
        if !ours.is_empty() {
            let statement = publication::add(name, &ours);
            tracing::info!("{statement}");
            connection.query(&statement).await?;
        }
        lacking.harmless = others;
    }
    connection.close().await;
    Ok(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withheld_table_is_named_once_until_it_is_mended() {
        let withheld = |names: &[&str]| -> Vec<Missing> {
            let table = |name: &&str| Missing {
                quoted: (*name).into(),
                owned: true,
                bare: vec![(*name).into()],
            };
            names.iter().map(table).collect()
        };
        // The start has named one.
        let mut named = BTreeSet::from(["a".to_owned()]);
        assert_eq!(not_named(&mut named, withheld(&["a"])), []);
        assert_eq!(
            not_named(&mut named, withheld(&["a", "b"])),
            withheld(&["b"])
        );
        assert_eq!(not_named(&mut named, withheld(&["a", "b"])), []);
        assert_eq!(not_named(&mut named, withheld(&["b"])), []);
        assert_eq!(
            not_named(&mut named, withheld(&["a", "b"])),
            withheld(&["a"])
        );
    }
}
