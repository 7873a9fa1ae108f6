//! MySQL and MariaDB as a source: the binary log over the replication protocol.

use super::{Counters, Filled, Identity, SourceError};
use crate::batch::Batch;
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
