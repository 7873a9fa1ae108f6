//! Shapes of tables that the stream does not tell: kept from where they were asked for, up to the statement that changes the table; and
//! those that cannot be read.

use protocol::DecodeError;
use protocol::mysql::event::Kind;
use protocol::mysql::gtid::Flavour;
use protocol::mysql::table_map::TableMap;

use super::super::shapes::{self, Shape};
use super::super::tables::Wanted;
use super::super::transaction::{Place, Point};
use super::super::versions::Mark;
use super::Decoder;
use crate::source::SourceError;

impl Decoder {
    /// Where the transaction begins that is being read.
    pub(in crate::source::mysql) fn begin_of_transaction(&self) -> &Place {
        self.open.as_ref().map_or(&self.place, |open| &open.first)
    }

    /// The same, comparable with other runs and servers.
    pub(super) fn here(&self) -> Mark {
        let point = Point {
            place: self.begin_of_transaction().clone(),
            gtids: self.safe.gtids.clone(),
        };
        Mark::new(&self.server, point)
    }

    /// Gives a wanted table the shape that was kept for this place; `false` where there is none.
    pub(in crate::source::mysql) fn complete_from_kept(
        &mut self,
        wanted: &Wanted,
        flavour: Flavour,
    ) -> bool {
        let kept = (self.versions).at(&wanted.schema, &wanted.name, &self.here());
        let Some(described) = kept.cloned() else {
            return false;
        };
        match shapes::shape(wanted, described, flavour) {
            Ok(shape) => {
                self.tables.complete(wanted, shape.columns, shape.key);
                true
            }
            Err(mismatch) => {
                tracing::info!(
                    "asking for the shape of {}.{} again: {mismatch}",
                    wanted.schema,
                    wanted.name
                );
                false
            }
        }
    }

    /// A TABLE_MAP that cannot be read: where that is for its labels alone, nobody else need suffer for its table.
    #[cold]
    pub(super) fn undescribed(
        &self,
        map: &TableMap<'_>,
        offset: u64,
        error: DecodeError,
    ) -> SourceError {
        if map.describe_without_labels().is_err() {
            return self.unreadable(Kind::TABLE_MAP, offset, error);
        }
        let table = format!("{}.{}", map.database, map.table);
        let text = format!(
            "labels of an ENUM or SET column of {table} are no text in their character set, or their character set is not known here; \
             leave the table out by tables = [\"!{table}\"], or give the column other labels by ALTER TABLE and go on behind it by \
             `walbrook position set`"
        );
        self.refuse(offset, text).because(error)
    }

    /// Gives a wanted table the shape that was asked for, and keeps it.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(in crate::source::mysql) fn complete(
        &mut self,
        wanted: &Wanted,
        shape: Shape,
    ) -> Result<(), SourceError> {
        self.tables.complete(wanted, shape.columns, shape.key);
        let here = self.here();
        (self.versions).begin(&wanted.schema, &wanted.name, here, shape.described)
    }
}
