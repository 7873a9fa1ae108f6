//! MySQL's `source` block.
//!
//! ```text
//! ,"source":{"version":…,"connector":…,"name":…,"ts_ms":N,"snapshot":"false","db":…,   per table and transaction
//!   "sequence":null,"ts_us":N,"ts_ns":N,"table":…,"server_id":N,"gtid":…,"file":…,"pos": per table and transaction
//!   N,"row":                                                                           per group
//!   N                                                                                  per row
//!   ,"thread":N,"query":…}                                                             per transaction
//! ```

use protocol::Span;

use crate::batch::{Batch, RowGroup, Transaction};
use crate::encode::envelope::{Envelope, text, write_times};
use crate::encode::error::EncodeErrorKind;
use crate::encode::number::write_uint;
use crate::encode::template::Template;
use crate::encode::text::write_string;

/// Prepares `envelope` for the rows of `group`; `before_pos` is where the source block has `"pos":` behind it.
pub(super) fn prepare(
    envelope: &mut Envelope,
    before_pos: &mut usize,
    batch: &Batch,
    group: &RowGroup,
    template: &Template,
) -> Result<(), EncodeErrorKind> {
    if envelope.is_new(group.transaction, group.table, group.server_id, group.query) {
        let transaction = batch
            .transactions
            .get(group.transaction as usize)
            .ok_or(EncodeErrorKind::Batch("a group without its transaction"));
        let prepared = transaction.and_then(|transaction| {
            prepare_transaction(envelope, batch, group, transaction, template)
        });
        if prepared.is_err() {
            envelope.forget();
        }
        prepared?;
        *before_pos = envelope.source.len();
    }
    envelope.source.truncate(*before_pos);
    write_uint(&mut envelope.source, group.offset);
    envelope.source.extend_from_slice(b",\"row\":");
    Ok(())
}

fn prepare_transaction(
    envelope: &mut Envelope,
    batch: &Batch,
    group: &RowGroup,
    transaction: &Transaction,
    template: &Template,
) -> Result<(), EncodeErrorKind> {
    let file = text(
        transaction.file,
        &batch.text,
        "a transaction's file name is not in its text",
    )?;
    let gtid = match transaction.gtid {
        Span::NONE => None,
        span => Some(text(
            span,
            &batch.text,
            "a transaction's GTID is not in its text",
        )?),
    };
    let nanos = match transaction.commit_us {
        Some(micros) => u128::from(micros) * 1_000,
        None => u128::from(group.timestamp_s) * 1_000_000_000,
    };

    let out = &mut envelope.source;
    out.clear();
    out.extend_from_slice(&template.source_head);
    write_times(out, nanos, &template.source_database);
    out.extend_from_slice(&template.source_table);
    write_uint(out, group.server_id.into());
    out.extend_from_slice(b",\"gtid\":");
    match gtid {
        Some(gtid) => write_string(out, gtid),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"file\":");
    write_string(out, file);
    out.extend_from_slice(b",\"pos\":");

    envelope.set_tail(|out| {
        out.extend_from_slice(b",\"thread\":");
        match transaction.thread {
            Some(thread) => write_uint(out, thread.into()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"query\":");
        // A statement is in the session's character set, which the event does not name; nearly always it is UTF-8.
        match group.query.of(&batch.bytes) {
            Some(query) => write_string(out, &String::from_utf8_lossy(query)),
            None => out.extend_from_slice(b"null"),
        }
    });
    let offset = transaction.offset;
    envelope.set_place(file, offset, gtid, format_args!("{file}:{offset}"));
    Ok(())
}
