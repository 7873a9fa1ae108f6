//! PostgreSQL's `source` block.
//!
//! ```text
//! ,"source":{"version":…,"connector":"postgresql","name":…,"ts_ms":N,"snapshot":"false",    per table and transaction
//!   "db":…,"sequence":"[\"N\",\"                                                            per table and transaction
//!   N                                                                                      per row: its LSN
//!   \"]","ts_us":N,"ts_ns":N,"schema":…,"table":…,"txId":N,"lsn":                          per table and transaction
//!   N                                                                                      per row: its LSN
//!   ,"xmin":null}                                                                          always
//! ```
//! The first number of `sequence` is the LSN after the commit before this transaction, null where this run has seen none.

use protocol::Span;
use protocol::postgres::Lsn;

use crate::batch::{Batch, RowGroup, Transaction};
use crate::encode::envelope::{Envelope, write_fine_times};
use crate::encode::error::EncodeErrorKind;
use crate::encode::number::write_uint;
use crate::encode::template::Template;

/// Prepares `envelope` for the rows of `group`, and what stands between the two places of the row's LSN.
pub(super) fn prepare(
    envelope: &mut Envelope,
    between_lsns: &mut Vec<u8>,
    batch: &Batch,
    group: &RowGroup,
    template: &Template,
) -> Result<(), EncodeErrorKind> {
    if !envelope.is_new(group.transaction, group.table, 0, Span::NONE) {
        return Ok(());
    }
    let Some(transaction) = batch.transactions.get(group.transaction as usize) else {
        envelope.forget();
        return Err(EncodeErrorKind::Batch("a group without its transaction"));
    };
    prepare_transaction(envelope, between_lsns, transaction, template);
    Ok(())
}

fn prepare_transaction(
    envelope: &mut Envelope,
    between_lsns: &mut Vec<u8>,
    transaction: &Transaction,
    template: &Template,
) {
    let commit_us = transaction.commit_us.unwrap_or_default();

    let out = &mut envelope.source;
    out.clear();
    out.extend_from_slice(&template.source_head);
    write_uint(out, commit_us / 1_000);
    out.extend_from_slice(&template.source_database);
    match transaction.previous_commit {
        Some(lsn) => {
            out.extend_from_slice(b"\\\"");
            write_uint(out, lsn);
            out.extend_from_slice(b"\\\"");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\\\"");

    let out = between_lsns;
    out.clear();
    out.extend_from_slice(b"\\\"]\"");
    write_fine_times(out, u128::from(commit_us) * 1_000);
    out.extend_from_slice(&template.source_table);
    match transaction.xid {
        Some(xid) => write_uint(out, xid.into()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"lsn\":");

    envelope.set_tail(|out| out.extend_from_slice(b",\"xmin\":null"));
    let commit = Lsn(transaction.offset);
    envelope.set_place("", transaction.offset, None, format_args!("{commit}"));
}
