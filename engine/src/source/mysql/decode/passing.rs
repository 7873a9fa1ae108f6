//! What becomes of events that are too large for a batch: of most nothing is needed, and they are not held.

use protocol::DecodeError;
use protocol::mysql::event::{Header, Kind};
use protocol::mysql::rows::RowCounter;

use super::super::tables::Shape;
use super::{Decoder, Origin};
use crate::source::SourceError;

/// What is to be done with a large event.
#[derive(Debug)]
pub(in crate::source::mysql) enum Passage {
    /// More of it has to be there to tell.
    Unclear,
    /// It is needed, at least in part: rows of this table, where it is known.
    Whole(Option<String>),
    /// Its bytes are handed to [`Decoder::pass`] as they come, then [`Decoder::passed`].
    Over(Passed),
}

/// What is wanted of an event that is passed over.
#[derive(Debug)]
pub(in crate::source::mysql) enum Passed {
    /// Nothing: a statement's text, rows before the start.
    Nothing,
    /// The number of its rows.
    Rows {
        table_id: u64,
        counter: Box<RowCounter>,
    },
    /// It is kept for the decision about its XA transaction. The length without checksum, until its beginning was kept.
    Kept(Option<u32>),
}

/// Why a piece cannot be passed over.
#[derive(Debug)]
pub(in crate::source::mysql) enum Unpassable {
    /// The rows cannot be walked over.
    Event(DecodeError),
    /// It cannot be kept.
    Source(SourceError),
}

impl Decoder {
    /// Whether rows are kept for the decision about their XA transaction.
    pub(in crate::source::mysql) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// What to do with a large event that begins with `event`, none of which has been read yet.
    ///
    /// # Errors
    /// Its head cannot be read: `Truncated` where more of it has to be there.
    pub(in crate::source::mysql) fn passage(
        &mut self,
        header: &Header,
        event: &[u8],
        origin: Origin,
    ) -> Result<Passage, DecodeError> {
        let is_rows = header.kind.is_rows();
        // What stands before the start is not looked at, so that a later position gets past such a row.
        if header.kind == Kind::ROWS_QUERY || is_rows && self.warm_up.is_some() {
            return Ok(Passage::Over(Passed::Nothing));
        }
        if !is_rows {
            return Ok(Passage::Whole(None));
        }
        let (format, checksum) = match origin {
            Origin::Log => (&self.format, self.format.checksum.length() as u32),
            Origin::Container(_) => (&self.bare_format, 0),
        };
        if self.held.is_some() {
            // Compressed ones are expanded before they are kept.
            return Ok(match header.kind.0 < Kind::WRITE_ROWS_COMPRESSED_V1.0 {
                true => Passage::Over(Passed::Kept(Some(header.length.saturating_sub(checksum)))),
                false => Passage::Whole(None),
            });
        }
        if self.open.is_none() {
            return Ok(Passage::Whole(None));
        }
        let table_id = RowCounter::table_id(format, event)?;
        Ok(match self.tables.entry(table_id) {
            None => Passage::Whole(None),
            Some(entry) => match &entry.shape {
                Shape::Excluded(columns) => {
                    let counter = Box::new(RowCounter::new(format, event, columns)?);
                    Passage::Over(Passed::Rows { table_id, counter })
                }
                Shape::Captured(_) | Shape::Wanted { .. } => {
                    Passage::Whole(Some(entry.name.to_string()))
                }
            },
        })
    }

    /// Takes a piece of an event that is passed over, its first byte first and without its checksum.
    ///
    /// # Errors
    /// See [`Unpassable`]; no more pieces of it are to come then.
    pub(in crate::source::mysql) fn pass(
        &mut self,
        passed: &mut Passed,
        piece: &[u8],
    ) -> Result<(), Unpassable> {
        match passed {
            Passed::Nothing => Ok(()),
            Passed::Rows { counter, .. } => counter.feed(piece).map_err(Unpassable::Event),
            Passed::Kept(length) => {
                let Some(held) = &mut self.held else {
                    return Ok(());
                };
                match length.take() {
                    Some(length) => held.begin(piece, length),
                    None => held.go_on(piece),
                }
                .map_err(Unpassable::Source)
            }
        }
    }

    /// All of an event was passed over, and its bytes are those that were sent; `failed` says why its rows cannot be walked over all
    /// the same.
    ///
    /// # Errors
    /// That, or a row is cut off.
    pub(in crate::source::mysql) fn passed(
        &mut self,
        header: &Header,
        passed: Passed,
        failed: Option<DecodeError>,
        origin: Origin,
    ) -> Result<(), SourceError> {
        let offset = match origin {
            Origin::Log => self.place.advance(header),
            Origin::Container(offset) => offset,
        };
        let Passed::Rows { table_id, counter } = passed else {
            return Ok(());
        };
        let counted = match failed {
            None => counter.finish(),
            Some(error) => Err(error),
        };
        let rows =
            counted.map_err(|error| self.unwalkable(table_id, header.kind, offset, error))?;
        if let Some(open) = &mut self.open {
            open.rows += rows;
        }
        self.counters.rows_filtered += rows;
        Ok(())
    }
}
