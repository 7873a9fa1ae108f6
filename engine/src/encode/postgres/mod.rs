//! PostgreSQL's rows as JSON.

mod envelope;
mod row;
pub(super) mod template;
mod temporal;
mod value;

use protocol::Span;
use protocol::kafka::record_batch::Anchors;

use crate::batch::{Batch, Event, RowGroup};

use super::dialect::{Dialect, Images};
use super::envelope::Envelope;
use super::error::EncodeErrorKind;
use super::number::write_uint;
use super::record::anchor;
use super::template::Template;
use row::Tuple;
use value::ValueWriter;

/// PostgreSQL's rows; keeps what neighbouring rows share.
#[derive(Debug, Default)]
pub(super) struct Postgres {
    values: ValueWriter,
    /// The present row's LSN, and its decimal digits.
    lsn: u64,
    lsn_text: Vec<u8>,
    /// What stands between the two places of the `source` block that name the row's LSN.
    between_lsns: Vec<u8>,
}

impl Dialect for Postgres {
    type Image<'a> = Tuple<'a>;

    const UPDATES_HAVE_BEFORE: bool = false;

    fn prepare(
        &mut self,
        envelope: &mut Envelope,
        batch: &Batch,
        group: &RowGroup,
        template: &Template,
    ) -> Result<(), EncodeErrorKind> {
        envelope::prepare(envelope, &mut self.between_lsns, batch, group, template)
    }

    #[inline]
    fn turn_to(&mut self, batch: &Batch, event: usize) -> Result<(), EncodeErrorKind> {
        let Some(lsn) = batch.lsns.get(event) else {
            return Err(EncodeErrorKind::Batch("a row without its LSN"));
        };
        // Rows of one COPY share theirs.
        if *lsn != self.lsn || self.lsn_text.is_empty() {
            self.lsn = *lsn;
            self.lsn_text.clear();
            write_uint(&mut self.lsn_text, *lsn);
        }
        Ok(())
    }

    #[inline]
    fn images<'a>(
        &self,
        batch: &'a Batch,
        group: &RowGroup,
        event: &Event,
    ) -> Result<Images<Tuple<'a>>, EncodeErrorKind> {
        let image = |bytes: Span, is_key| match bytes {
            Span::NONE => Ok(None),
            bytes => match bytes.of(&batch.bytes) {
                Some(bytes) => Ok(Some(Tuple { bytes, is_key })),
                None => Err(EncodeErrorKind::Batch("a row image outside of the batch")),
            },
        };
        Ok(Images {
            before: image(event.before, group.before_is_key)?,
            after: image(event.after, false)?,
        })
    }

    #[inline]
    fn is_key_kept(&self, template: &Template, before: Tuple<'_>, after: Tuple<'_>) -> bool {
        row::is_key_kept(template, before, after)
    }

    #[inline]
    fn write_key(
        &mut self,
        out: &mut Vec<u8>,
        template: &Template,
        image: Tuple<'_>,
        other: Option<Tuple<'_>>,
    ) -> Result<(), EncodeErrorKind> {
        row::write_key(out, template, image, other, &mut self.values)
    }

    #[inline]
    fn write_row(
        &mut self,
        out: &mut Vec<u8>,
        template: &Template,
        image: Tuple<'_>,
        before: Option<Tuple<'_>>,
    ) -> Result<(), EncodeErrorKind> {
        row::write_row(out, template, image, before, &mut self.values)
    }

    #[inline]
    fn write_end(
        &self,
        envelope: &Envelope,
        out: &mut Vec<u8>,
        anchors: &mut Anchors,
        _row: u32,
        operation: u8,
    ) {
        anchors.mark(anchor::SOURCE, out);
        out.extend_from_slice(&envelope.source);
        out.extend_from_slice(&self.lsn_text);
        anchors.mark(anchor::SOURCE_REST, out);
        out.extend_from_slice(&self.between_lsns);
        out.extend_from_slice(&self.lsn_text);
        anchors.mark(anchor::TAIL, out);
        envelope.write_tail(out, operation);
    }
}
