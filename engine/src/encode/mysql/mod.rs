//! MySQL's and MariaDB's rows as JSON.

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
use row::{RowImage, write_unchanged};
use value::ValueWriter;

/// MySQL's and MariaDB's rows; keeps what rows of one group share.
#[derive(Debug)]
pub(super) struct MySql {
    values: ValueWriter,
    /// Which images of the present group hold every column.
    full_before: bool,
    full_after: bool,
    /// Length of the envelope's source block up to and with `"pos":`.
    before_pos: usize,
}

impl MySql {
    pub(super) fn new(row_max: usize) -> Self {
        Self {
            values: ValueWriter::new(row_max),
            full_before: false,
            full_after: false,
            before_pos: 0,
        }
    }

    pub(super) fn zero_dates(&self) -> u64 {
        self.values.zero_dates
    }
}

impl Dialect for MySql {
    type Image<'a> = RowImage<'a>;

    const UPDATES_HAVE_BEFORE: bool = true;

    fn prepare(
        &mut self,
        envelope: &mut Envelope,
        batch: &Batch,
        group: &RowGroup,
        template: &Template,
    ) -> Result<(), EncodeErrorKind> {
        envelope::prepare(envelope, &mut self.before_pos, batch, group, template)?;
        let before = group.columns_before.of(&batch.bytes);
        let after = group.columns_after.of(&batch.bytes);
        self.full_before = before.is_some_and(|present| is_full(template, present));
        self.full_after =
            after.is_some_and(|present| is_full(template, present)) && !group.partial_json;
        envelope.unchanged_before.clear();
        envelope.unchanged_after.clear();
        if let Some(present) = before {
            write_unchanged(&mut envelope.unchanged_before, template, present, None);
        }
        if let Some(present) = after {
            write_unchanged(&mut envelope.unchanged_after, template, present, before);
        }
        Ok(())
    }

    #[inline]
    fn turn_to(&mut self, _batch: &Batch, _event: usize) -> Result<(), EncodeErrorKind> {
        Ok(())
    }

    #[inline]
    fn images<'a>(
        &self,
        batch: &'a Batch,
        group: &RowGroup,
        event: &Event,
    ) -> Result<Images<RowImage<'a>>, EncodeErrorKind> {
        let image = |present: Span, bytes: Span, partial, full| {
            if bytes.is_none() {
                return Ok(None);
            }
            match (present.of(&batch.bytes), bytes.of(&batch.bytes)) {
                (Some(present), Some(bytes)) => Ok(Some(RowImage {
                    present,
                    bytes,
                    partial,
                    full,
                })),
                _ => Err(EncodeErrorKind::Batch("a row image outside of the batch")),
            }
        };
        Ok(Images {
            before: image(group.columns_before, event.before, false, self.full_before)?,
            after: image(
                group.columns_after,
                event.after,
                group.partial_json,
                self.full_after,
            )?,
        })
    }

    #[inline]
    fn is_key_kept(&self, template: &Template, before: RowImage<'_>, after: RowImage<'_>) -> bool {
        row::is_key_kept(template, before, after)
    }

    #[inline]
    fn write_key(
        &mut self,
        out: &mut Vec<u8>,
        template: &Template,
        image: RowImage<'_>,
        other: Option<RowImage<'_>>,
    ) -> Result<(), EncodeErrorKind> {
        row::write_key(out, template, image, other, &mut self.values)
    }

    #[inline]
    fn write_row(
        &mut self,
        out: &mut Vec<u8>,
        template: &Template,
        image: RowImage<'_>,
        before: Option<RowImage<'_>>,
    ) -> Result<(), EncodeErrorKind> {
        row::write_row(out, template, image, before, &mut self.values)
    }

    #[inline]
    fn write_end(
        &self,
        envelope: &Envelope,
        out: &mut Vec<u8>,
        anchors: &mut Anchors,
        row: u32,
        operation: u8,
    ) {
        anchors.mark(anchor::SOURCE, out);
        out.extend_from_slice(&envelope.source);
        write_uint(out, row.into());
        anchors.mark(anchor::TAIL, out);
        envelope.write_tail(out, operation);
    }
}

fn is_full(template: &Template, present: &[u8]) -> bool {
    let mut columns = 0..template.mysql_columns().len();
    columns.all(|n| {
        present
            .get(n / 8)
            .is_some_and(|byte| byte >> (n % 8) & 1 != 0)
    })
}
