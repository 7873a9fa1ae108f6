//! The steps from an address to a running stream, between which a session can be left.

use std::collections::BTreeSet;

use super::timeline::{ancestors, identify, started};
use super::{
    Connection, Named, Outcome, Plan, Plugin, Purpose, Session, SourceError, Status, Surroundings,
    catalog, checks, feedback, publish, start, stream, undisturbed,
};

/// A session before its stream.
pub(super) struct Beginning {
    connection: Connection,
    surroundings: Surroundings,
    named: Named,
}

impl Beginning {
    /// Connects, and refuses a server that lacks something.
    pub(super) async fn new(plan: &Plan) -> Result<Self, SourceError> {
        let mut connection = Connection::connect(&plan.options, Purpose::Replication).await?;
        let surroundings = undisturbed(&mut connection, plan).await?;
        if plan.first {
            let list = surroundings.requirements(plan);
            checks::refuse(&list)?;
            for requirement in &list {
                if let Outcome::Advice(text) = &requirement.outcome {
                    tracing::warn!("{}: {text}", requirement.what);
                }
            }
        }
        Ok(Self {
            connection,
            surroundings,
            named: Named::default(),
        })
    }

    pub(super) fn makes_publication(&self, plan: &Plan) -> bool {
        plan.first
            && plan.slot.plugin == Plugin::PgOutput
            && self.surroundings.publication.is_none()
    }

    /// See [`publish`]; only at the first start.
    pub(super) async fn publish(&mut self, plan: &Plan) -> Result<(), SourceError> {
        if !plan.first || plan.slot.plugin != Plugin::PgOutput {
            return Ok(());
        }
        publish(&mut self.connection, plan, &self.surroundings).await?;
        if self.makes_publication(plan) && self.surroundings.slot.is_some() {
            // A slot that was there before sends what is written from now on. Until here the publication was not, so now is later.
            let status = self.connection.query(catalog::STATUS).await?;
            self.surroundings.status = Status::read(&status)?;
        }
        let facts = self.surroundings.facts(plan);
        let withheld = facts.lacking().withheld;
        self.named = Named {
            withheld: withheld.into_iter().map(|table| table.quoted).collect(),
            refusing: facts.refusing().into_iter().collect(),
            // With others there is no stream.
            keys_at_odds: BTreeSet::new(),
            images_at_odds: (facts.at_odds().images.into_iter())
                .map(|partition| partition.quoted)
                .collect(),
        };
        Ok(())
    }

    /// Makes the slot where there is none, and begins the stream. The publication is there before the slot: transactions that began before
    /// it are over when the slot begins, and decoding them would fail.
    pub(super) async fn stream(mut self, plan: &Plan) -> Result<Session, SourceError> {
        let made_publication = self.makes_publication(plan);
        let Self {
            connection,
            surroundings,
            ..
        } = &mut self;
        let standby = match surroundings.status.recovery {
            true => started(connection).await?,
            false => None,
        };
        let identity = identify(connection).await?;
        let slot = surroundings.slot.as_ref();
        let ancestors = ancestors(connection, plan, &identity, slot).await?;
        let start = start(connection, plan, surroundings).await?;
        let Status {
            flushed, recovery, ..
        } = self.surroundings.status;
        let streaming = stream(self.connection, plan, start, recovery).await?;
        Ok(Session {
            streaming,
            identity,
            ancestors,
            start,
            end: flushed,
            made_publication,
            standby,
            named: self.named,
            feedback: feedback::interval(self.surroundings.settings.number("wal_sender_timeout")),
        })
    }
}
