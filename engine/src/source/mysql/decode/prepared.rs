//! XA transactions: rows are kept aside where they are prepared, and come back where they commit.

use protocol::mysql::event::{Query, XaPrepare};
use protocol::mysql::statement::{XaVerb, Xid};

use super::super::xa;
use super::{Decoder, Next};
use crate::source::SourceError;

impl Decoder {
    /// An XA statement.
    pub(super) fn xa(
        &mut self,
        verb: XaVerb,
        xid: &Xid,
        query: &Query<'_>,
        offset: u64,
    ) -> Result<Next, SourceError> {
        match verb {
            XaVerb::Start => {
                if let Some(open) = &mut self.open {
                    open.begun = true;
                    open.thread = Some(query.thread);
                }
                self.hold()?;
            }
            XaVerb::End | XaVerb::Prepare => {}
            XaVerb::Commit | XaVerb::CommitOnePhase => {
                if let Some(reader) = self.store.commit(xid)? {
                    return Ok(Next::Replay(reader, offset));
                }
                let done = self.open.as_ref().is_some_and(|open| {
                    let first = &open.first;
                    self.store.was_decided(open.gtid.as_ref(), first)
                });
                if self.warm_up.is_none() && !done {
                    return Err(self.prepared_before(xid, offset));
                }
                self.end_transaction()?;
            }
            XaVerb::Rollback => {
                self.store.roll_back(xid);
                self.end_transaction()?;
            }
        }
        Ok(Next::Event)
    }

    /// The rows that follow are kept until it is decided whether they count.
    pub(super) fn hold(&mut self) -> Result<(), SourceError> {
        self.drop_held();
        if self.warm_up.is_none() {
            self.held = Some(self.store.start(self.safe.clone())?);
        }
        Ok(())
    }

    /// Rows that were being kept never were, or come again.
    pub(super) fn drop_held(&mut self) {
        if let Some(held) = self.held.take() {
            held.discard();
        }
    }

    #[cold]
    fn prepared_before(&self, xid: &Xid, offset: u64) -> SourceError {
        let text = format!(
            "XA transaction {} commits here, but it was prepared before the stream began, so its rows were not read; to capture them, \
             go on from before its XA PREPARE by `walbrook position set` (changes since then are written again); to leave them \
             out, go on behind it: `walbrook position set` with {}",
            xa::show(xid),
            self.place.to_position()
        );
        self.refuse(offset, text)
    }

    pub(super) fn xa_prepared(
        &mut self,
        prepare: &XaPrepare<'_>,
        offset: u64,
    ) -> Result<Next, SourceError> {
        if let Some(writer) = self.held.take() {
            if prepare.one_phase {
                let reader = self.store.commit_at_once(writer)?;
                return Ok(Next::Replay(reader, offset));
            }
            self.store.prepare(xa::xid(prepare), writer)?;
        }
        self.end_transaction()?;
        Ok(Next::Event)
    }

    /// The rows that [`Next::Replay`] asked for have all been read.
    pub(in crate::source::mysql) fn replayed(&mut self) -> Result<(), SourceError> {
        self.end_transaction()?;
        self.store.replayed(&self.safe)
    }
}
