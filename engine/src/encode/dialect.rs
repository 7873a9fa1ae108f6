//! What differs between sources: how row images are read, and the envelope's `source` block.
//!
//! A batch comes from one source, so [`super::Encoder`] chooses the dialect once per batch; everything behind that is compiled for it.

use protocol::kafka::record_batch::Anchors;

use crate::batch::{Batch, Event, RowGroup};

use super::envelope::Envelope;
use super::error::EncodeErrorKind;
use super::template::Template;

/// The images of a row change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Images<I> {
    pub(super) before: Option<I>,
    pub(super) after: Option<I>,
}

/// The rows of one kind of source as JSON; keeps what neighbouring rows share.
pub(super) trait Dialect {
    /// One image of a row.
    type Image<'a>: Copy;

    /// Whether every update has an image before. Where not, one without it keeps its key.
    const UPDATES_HAVE_BEFORE: bool;

    /// Prepares for the rows of `group`, and the envelope with it.
    fn prepare(
        &mut self,
        envelope: &mut Envelope,
        batch: &Batch,
        group: &RowGroup,
        template: &Template,
    ) -> Result<(), EncodeErrorKind>;

    /// Turns to `batch`'s event number `event`.
    fn turn_to(&mut self, batch: &Batch, event: usize) -> Result<(), EncodeErrorKind>;

    /// The images of an event of the present group.
    fn images<'a>(
        &self,
        batch: &'a Batch,
        group: &RowGroup,
        event: &Event,
    ) -> Result<Images<Self::Image<'a>>, EncodeErrorKind>;

    /// Whether two images certainly hold the same key. `false` where that is not so, and where it would take more to know.
    fn is_key_kept(
        &self,
        template: &Template,
        before: Self::Image<'_>,
        after: Self::Image<'_>,
    ) -> bool;

    /// Writes the key of a row into `out`: the value of each key column from `image`, or from `other` where that lacks it.
    fn write_key(
        &mut self,
        out: &mut Vec<u8>,
        template: &Template,
        image: Self::Image<'_>,
        other: Option<Self::Image<'_>>,
    ) -> Result<(), EncodeErrorKind>;

    /// Appends the row as a JSON object. `before`: the image that an after image refers to for what it lacks.
    fn write_row(
        &mut self,
        out: &mut Vec<u8>,
        template: &Template,
        image: Self::Image<'_>,
        before: Option<Self::Image<'_>>,
    ) -> Result<(), EncodeErrorKind>;

    /// Appends everything behind the row images; `row` counts within the group. Marks [`SOURCE`](super::record::anchor::SOURCE) and those behind it.
    fn write_end(
        &self,
        envelope: &Envelope,
        out: &mut Vec<u8>,
        anchors: &mut Anchors,
        row: u32,
        operation: u8,
    );
}
