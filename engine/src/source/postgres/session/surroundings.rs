//! What the server says about everything that concerns us, in as few round trips as it takes.

use protocol::postgres::catalog;

use super::Plan;
use crate::config::Selection;
use crate::source::postgres::checks::{self, Facts};
use crate::source::postgres::connection::Connection;
use crate::source::postgres::generated::Generated;
use crate::source::postgres::partitions;
use crate::source::postgres::server::{
    Answer, Publication, Role, Settings, Slot, Status, UserTable,
};
use crate::source::postgres::unsent::Unsent;
use crate::source::{Requirement, SourceError};

/// What the server says about everything that concerns us.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) settings: Settings,
    pub(super) status: Status,
    pub(super) role: Role,
    pub(super) slot: Option<Slot>,
    pub(super) slots: Answer,
    pub(super) publication: Option<Publication>,
    pub(super) published: Vec<(String, String)>,
    pub(super) tables: Vec<UserTable>,
    pub(super) generated: Generated,
    pub(super) unsent: Unsent,
}

impl Surroundings {
    pub(super) async fn ask(connection: &mut Connection, plan: &Plan) -> Result<Self, SourceError> {
        let ours = &plan.slot;
        let [
            settings,
            status,
            role,
            slots,
            publications,
            published,
            tables,
            keys,
            generated,
            unlogged,
        ] = connection
            .query_all([
                catalog::SETTINGS,
                catalog::STATUS,
                catalog::ROLE,
                catalog::SLOTS,
                catalog::PUBLICATIONS,
                catalog::PUBLICATION_TABLES,
                catalog::TABLES,
                &catalog::identities(),
                catalog::GENERATED,
                catalog::UNLOGGED,
            ])
            .await?;
        let settings = Settings::read(&settings);
        let tables = UserTable::read(&tables, &keys);
        let publication = Publication::find(&publications, &ours.publication);
        let mut role = Role::read(&role);
        if !role.may_replicate() {
            role.replication = is_member_on_rds(connection).await?;
        }
        let mut generated = Generated::read(&generated, &plan.selection);
        if generated.depend_on_publication(settings.major()) && publication.is_some() {
            let publishes = catalog::publishes_generated(&ours.publication);
            generated.note_publication(&connection.query(&publishes).await?);
        }
        let mut unsent = Unsent::read(&unlogged, &plan.selection);
        if Unsent::depend_on_publication(settings.major(), publication.as_ref()) {
            let narrowed = catalog::narrowed(&ours.publication);
            unsent.note_publication(&connection.query(&narrowed).await?, &plan.selection);
        }
        Ok(Self {
            status: Status::read(&status)?,
            role,
            slot: Slot::find(&slots, &ours.name),
            slots,
            publication,
            published: published_by(&published, &ours.publication),
            tables: with_roots(connection, tables, &plan.selection).await?,
            generated,
            unsent,
            settings,
        })
    }

    pub(super) fn facts<'a>(&'a self, plan: &'a Plan) -> Facts<'a> {
        Facts {
            settings: &self.settings,
            role: &self.role,
            database: &self.status.database,
            recovery: self.status.recovery,
            ours: &plan.slot,
            slot: self.slot.as_ref(),
            slots: &self.slots,
            publication: self.publication.as_ref(),
            published: &self.published,
            tables: &self.tables,
            selection: &plan.selection,
            truncates: plan.truncates,
            generated: &self.generated,
            keys: &plan.keys,
            unsent: &self.unsent,
        }
    }

    pub(super) fn requirements(&self, plan: &Plan) -> Vec<Requirement> {
        checks::requirements(&self.facts(plan))
    }
}

/// Whether a role without REPLICATION has what stands for it on Amazon RDS and Aurora.
async fn is_member_on_rds(connection: &mut Connection) -> Result<bool, SourceError> {
    let answer = connection.query(catalog::RDS_REPLICATION).await?;
    Ok(answer.first().is_some_and(|row| row.is("is_member")))
}

/// The tables, with those above partitions, and the indices of these and of those, where they matter.
pub(in crate::source::postgres) async fn with_roots(
    connection: &mut Connection,
    mut tables: Vec<UserTable>,
    selection: &Selection,
) -> Result<Vec<UserTable>, SourceError> {
    if partitions::matter(&tables, selection) {
        let above = connection.query(catalog::PARTITIONS).await?;
        UserTable::note_above(&mut tables, &above);
    }
    let differing = partitions::with_differing_identities(&tables);
    if !differing.is_empty() {
        let keys = connection.query(&catalog::keys_of(&differing)).await?;
        UserTable::note_indices(&mut tables, &keys);
    }
    Ok(tables)
}

/// Tables of one publication, as (schema, table).
pub(in crate::source::postgres) fn published_by(
    answer: &Answer,
    publication: &str,
) -> Vec<(String, String)> {
    (answer.rows())
        .filter(|row| row.text("pubname") == Some(publication))
        .filter_map(|row| {
            Some((
                row.text("schemaname")?.to_owned(),
                row.text("tablename")?.to_owned(),
            ))
        })
        .collect()
}
