//! Compares the publication with the tables that are selected, every minute: tables made since are added where we may, and those are
//! named whose updates the server refuses: a partition, or any table of a publication of all, that came without a replica identity; and
//! partitions that came with another one than the table that they are sent as.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::postgres::catalog;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::checks::{self, listed};
use super::connection::{Connection, Purpose};
use super::partitions;
use super::partitions::identities::{self, AtOdds};
use super::publication::{self, Lacking, Missing};
use super::server::{Publication, Status, UserTable};
use super::session::{Plan, published_by, with_roots};
use crate::config::{OnUnpublished, Plugin};
use crate::source::SourceError;

const EVERY: Duration = Duration::from_secs(60);
/// Milliseconds instead of [`EVERY`], for tests: no setting.
const EVERY_IN_TESTS: &str = "WALBROOK_TEST_PUBLICATION_CHECK_MS";

/// Tables whose replica identity does not do, of which something has been said, as SQL writes them.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Those that we do not publish.
    pub(super) withheld: BTreeSet<String>,
    /// Those that are published.
    pub(super) refusing: BTreeSet<String>,
    /// Partitions whose old rows lack columns of the key. Where they still do when they are looked at again, the stream ends.
    pub(super) keys_at_odds: BTreeSet<String>,
    /// Partitions whose old rows lack others.
    pub(super) images_at_odds: BTreeSet<String>,
}

/// What is to be said.
#[derive(Debug)]
struct Found {
    lacking: Lacking,
    /// Captured tables whose updates and deletes the server refuses.
    refusing: Vec<String>,
    at_odds: AtOdds,
    /// Whether this is a standby.
    recovery: bool,
}

/// The task that looks.
#[derive(Debug)]
pub(super) struct Watch {
    task: JoinHandle<()>,
    verdict: oneshot::Receiver<SourceError>,
}

impl Watch {
    /// Begins to look, where there is a publication to look at. What the start has `named` is not named again.
    pub(super) fn start(plan: &Plan, named: Named) -> Option<Self> {
        if plan.slot.plugin != Plugin::PgOutput || plan.slot.temporary {
            return None;
        }
        let (tell, verdict) = oneshot::channel();
        let plan = plan.clone();
        let task = tokio::spawn(async move {
            let error = watch(&plan, named).await;
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

/// Looks for as long as nothing stops the stream. Each table is named once, those of `named` not again.
async fn watch(plan: &Plan, mut named: Named) -> SourceError {
    let mut told: Vec<Missing> = Vec::new();
    let given = std::env::var(EVERY_IN_TESTS).ok();
    let given = given.and_then(|text| text.parse().ok());
    let every = given.map_or(EVERY, Duration::from_millis);
    loop {
        tokio::time::sleep(every).await;
        let name = &plan.slot.publication;
        let Found {
            lacking,
            refusing,
            at_odds,
            recovery,
        } = match look(plan).await {
            Ok(Some(found)) => found,
            Ok(None) => return gone(name),
            // Whatever stands in the way, the stream itself is not concerned.
            Err(error) => {
                tracing::warn!("cannot compare the publication with the tables: {error}");
                continue;
            }
        };
        if plan.slot.on_unpublished == OnUnpublished::Halt && !lacking.withheld.is_empty() {
            return SourceError::halt(publication::why_withheld(name, &lacking.withheld));
        }
        let new = not_named(&mut named.withheld, lacking.withheld, |it| &it.quoted);
        if !new.is_empty() {
            tracing::warn!("{}", publication::why_withheld(name, &new));
        }
        let new = not_named(&mut named.refusing, refusing, |it| it);
        if let Some(text) = checks::without_identity(&new) {
            tracing::warn!("captured tables need a replica identity: {text}");
        }
        if let Err(error) = judge(&mut named, at_odds) {
            return error;
        }
        let missing = lacking.harmless;
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|table| table.quoted.clone()).collect();
            let text = format!(
                "publication {name} lacks {}: run {} {}; what is written before that is not captured",
                listed(&names),
                publication::add(name, &missing),
                publication::by_whom(recovery)
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

/// Names partitions at odds with the table that they are sent as; those that hide keys are given one look's time to be mended.
fn judge(named: &mut Named, at_odds: AtOdds) -> Result<(), SourceError> {
    let AtOdds { keys, images } = at_odds;
    let is_known = |it: &identities::Lesser| named.keys_at_odds.contains(&it.quoted);
    if keys.iter().any(is_known) {
        let text = identities::why_keys(&keys).unwrap_or_default();
        return Err(SourceError::halt(text));
    }
    let new = not_named(&mut named.keys_at_odds, keys, |it| &it.quoted);
    if let Some(text) = identities::why_keys(&new) {
        tracing::warn!("{text}; otherwise the stream ends when this is looked at next");
    }
    let new = not_named(&mut named.images_at_odds, images, |it| &it.quoted);
    if let Some(text) = identities::why_images(&new) {
        tracing::warn!("{text}");
    }
    Ok(())
}

/// From now on nothing is captured. At the next start it is made again where we may; whether something was written meanwhile, the server
/// says in the stream.
fn gone(publication: &str) -> SourceError {
    SourceError::halt(format!(
        "publication {publication} is gone: what is written before it is there again cannot be captured; create it, or start again, \
         which does so where we may"
    ))
}

/// Those of `found`, by their `name`, that `named` does not have, which from then on has them all, and no other.
fn not_named<T>(named: &mut BTreeSet<String>, found: Vec<T>, name: fn(&T) -> &String) -> Vec<T> {
    let all = found.iter().map(|table| name(table).clone()).collect();
    let before = std::mem::replace(named, all);
    let is_new = |table: &T| !before.contains(name(table));
    found.into_iter().filter(is_new).collect()
}

/// Adds what may be added; returns what remains missing, and what is wrong. `None`: there is no such publication any more.
async fn look(plan: &Plan) -> Result<Option<Found>, SourceError> {
    let mut connection = Connection::connect(&plan.options, Purpose::Queries).await?;
    let name = &plan.slot.publication;
    let publications = connection.query(catalog::PUBLICATIONS).await?;
    let Some(found) = Publication::find(&publications, name) else {
        connection.close().await;
        return Ok(None);
    };
    let published = published_by(&connection.query(catalog::PUBLICATION_TABLES).await?, name);
    let [tables, keys, status] = connection
        .query_all([catalog::TABLES, &catalog::identities(), catalog::STATUS])
        .await?;
    let recovery = Status::read(&status)?.recovery;
    let tables = UserTable::read(&tables, &keys);
    let tables = with_roots(&mut connection, tables, &plan.selection).await?;
    let refusing = partitions::refusing(&tables, &found, &published, &plan.selection);
    let at_odds = identities::at_odds(
        &tables,
        Some(&found),
        &published,
        &plan.selection,
        &plan.keys,
    );
    let mut lacking = publication::lacking(&tables, Some(&found), &published, &plan.selection);
    if found.owned && !lacking.harmless.is_empty() && !recovery {
        let (ours, others): (Vec<_>, Vec<_>) =
            (lacking.harmless.into_iter()).partition(|table| table.owned);
        if !ours.is_empty() {
            let statement = publication::add(name, &ours);
            publication::warn_of_adding(&statement);
            connection.query(&statement).await?;
        }
        lacking.harmless = others;
    }
    connection.close().await;
    Ok(Some(Found {
        lacking,
        refusing,
        at_odds,
        recovery,
    }))
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
        let mut new = |names: &[&str]| not_named(&mut named, withheld(names), |it| &it.quoted);
        assert_eq!(new(&["a"]), []);
        assert_eq!(new(&["a", "b"]), withheld(&["b"]));
        assert_eq!(new(&["a", "b"]), []);
        assert_eq!(new(&["b"]), []);
        assert_eq!(new(&["a", "b"]), withheld(&["a"]));
    }

    #[test]
    fn partitions_that_hide_keys_end_the_stream_when_they_are_seen_again() {
        let of = |names: &[&str]| {
            names
                .iter()
                .map(|name| identities::Lesser::of(name))
                .collect()
        };
        let at_odds = |keys, images| AtOdds {
            keys: of(keys),
            images: of(images),
        };
        let mut named = Named::default();
        assert!(judge(&mut named, at_odds(&["a"], &["i"])).is_ok());
        // Mended, and another one.
        assert!(judge(&mut named, at_odds(&["b"], &["i"])).is_ok());
        assert!(judge(&mut named, at_odds(&[], &["i"])).is_ok());
        assert!(judge(&mut named, at_odds(&["b"], &["i"])).is_ok());
        let error = judge(&mut named, at_odds(&["a", "b"], &[])).unwrap_err();
        assert!(error.to_string().contains("run ALTER TABLE a "), "{error}");
    }
}
