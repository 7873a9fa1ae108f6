//! TRUNCATE: of one table or of several at once, anywhere in a transaction.

use protocol::postgres::Lsn;

use super::super::tables::{Described, Shape};
use super::{Change, Decoder};
use crate::batch::{Batch, Operation};
use crate::source::{SourceError, truncate_passed_over};

impl Decoder {
    /// From here on a TRUNCATE becomes a change.
    pub(in crate::source::postgres) fn record_truncates(&mut self) {
        self.records_truncates = true;
    }

    /// TRUNCATE of one table: a change that counts as a row, whether it becomes a record or not, so that the numbers of the rows
    /// behind it do not depend on a setting.
    #[cold]
    pub(in crate::source::postgres) fn truncate(
        &mut self,
        batch: &mut Batch,
        relation: u32,
        lsn: Lsn,
    ) -> Result<(), SourceError> {
        if self.records_truncates {
            let change = Change {
                relation,
                operation: Operation::Truncate,
                before: None,
                before_is_key: false,
                after: None,
                lsn,
            };
            return self.change(batch, change);
        }
        let Some(open) = &mut self.open else {
            return Err(self.misplaced(lsn, "a TRUNCATE outside of a transaction"));
        };
        open.rows += 1;
        let Some(entry) = self.tables.find(relation) else {
            let what = format!("a TRUNCATE of relation {relation}, which was not described");
            return Err(self.misplaced(lsn, &what));
        };
        match entry.shape {
            Shape::Excluded => self.counters.rows_filtered += 1,
            _ if self.truncated.contains(&relation) => {}
            _ => {
                let Described { schema, name, .. } = &entry.described;
                tracing::warn!("{}", truncate_passed_over(schema, name));
                self.truncated.push(relation);
            }
        }
        Ok(())
    }
}
