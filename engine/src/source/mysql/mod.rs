//! MySQL and MariaDB as a source: the binary log over the replication protocol.

pub mod connection;
mod tls;
mod transport;

use std::path::Path;

use super::{Counters, Filled, Identity, Limits, Requirement, Resume, SourceError};
use crate::batch::Batch;
use crate::config::SourceSettings;
use crate::position::Position;

/// A stream of a MySQL or MariaDB server's binary log.
#[derive(Debug)]
pub struct MySql {
    identity: Identity,
    position: Position,
    end: Position,
    counters: Counters,
}

impl MySql {
    pub(super) async fn connect(
        settings: &SourceSettings,
        _resume: Option<Resume>,
        _limits: Limits,
        _state: &Path,
    ) -> Result<Self, SourceError> {
        let host = &settings.address.host;
        std::future::ready(Err(SourceError::halt(format!("{host} cannot be read yet")))).await
    }

    pub(super) async fn check(settings: &SourceSettings) -> Result<Vec<Requirement>, SourceError> {
        let host = &settings.address.host;
        std::future::ready(Err(SourceError::halt(format!(
            "{host} cannot be checked yet"
        ))))
        .await
    }

    pub(super) async fn fill(&mut self, _batch: &mut Batch) -> Result<Filled, SourceError> {
        std::future::ready(Err(SourceError::halt("the binary log is not decoded yet"))).await
    }

    pub(super) fn seal(&mut self, batch: &mut Batch) {
        batch.end = Some(self.position());
    }

    pub(super) fn position(&self) -> Position {
        self.position.clone()
    }

    pub(super) fn end(&self) -> &Position {
        &self.end
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }
}
