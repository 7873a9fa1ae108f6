//! TRUNCATE: one record without key and images, in the partition of the table's records without a key.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::position::Position;
use crate::settled::{Settled, Tails};

/// What is known of a table that a TRUNCATE names: its name.
fn named() -> Arc<Table> {
    table("events", &[], Vec::new())
}

/// A TRUNCATE in a group of its own, the next row of the transaction.
pub(super) fn truncate(maker: &mut Maker, table: &Arc<Table>) {
    let group = maker.group_of(table, &[], &[]);
    (group.columns_before, group.columns_after) = (Span::NONE, Span::NONE);
    maker.batch.events.push(Event {
        operation: Operation::Truncate,
        group: maker.batch.groups.len() as u32 - 1,
        row: 0,
        before: Span::NONE,
        after: Span::NONE,
    });
}

#[test]
fn a_truncate_is_exactly_this() {
    let mut maker = Maker::new();
    truncate(&mut maker, &named());
    // No column of it is known, and its record has no key: that `keys` names some does not matter.
    let keyed = EncodeSettings {
        keys: Keys::new(&[("tt", "events", &["name"])]),
        ..settings()
    };
    let parts = encode_with(&maker.batch, keyed).unwrap();
    assert_eq!((parts.len(), parts[0].changes), (1, 1));
    let records = read(&parts);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key, None);
    assert_eq!(
        records[0].value.as_deref().unwrap(),
        concat!(
            r#"{"before":null,"after":null,"source":{"version":"3.1.3.Final","connector":"mysql","name":"tmy","#,
            r#""ts_ms":1795253701114,"snapshot":"false","db":"tt","sequence":null,"ts_us":1795253701114918,"#,
            r#""ts_ns":1795253701114918000,"table":"events","server_id":5302,"#,
            r#""gtid":"a6255251-e58c-11f1-8263-02fc00000001:2709","file":"binlog.000002","pos":2000,"row":0,"thread":34,"query":null},"#,
            r#""transaction":null,"op":"t","ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#
        )
    );
    let headers = [
        ("pos", "binlog.000002:1000/0"),
        ("gtid", "a6255251-e58c-11f1-8263-02fc00000001:2709"),
    ];
    assert_eq!(
        records[0].headers,
        headers.map(|(name, value)| (name.into(), value.into()))
    );
}

/// A batch of `rows` creates, a TRUNCATE, and `rows` creates of a table without a key: all in one partition.
fn around(rows: i32) -> Batch {
    let mut maker = Maker::new();
    let events = table("events", &[], vec![int("id")]);
    maker.group(&events);
    (0..rows).for_each(|id| maker.row(None, Some(&[stored_int(id)])));
    truncate(&mut maker, &events);
    maker.group(&events);
    (0..rows).for_each(|id| maker.row(None, Some(&[stored_int(id)])));
    maker.batch
}

fn told(parts: &[EncodedBatch]) -> Vec<(String, String)> {
    let told = |record: &Read| {
        let op = record.json()["op"].as_str().unwrap().to_owned();
        (op, record.header("pos").unwrap().to_owned())
    };
    read(parts).iter().map(told).collect()
}

#[test]
fn a_truncate_stands_in_the_order_of_its_partition() {
    let parts = encode_with(&around(2), settings()).unwrap();
    assert_eq!(parts.len(), 1, "one partition");
    let expected = ["c", "c", "t", "c", "c"];
    let expected: Vec<_> = (0..)
        .zip(expected)
        .map(|(row, op)| (op.to_owned(), format!("binlog.000002:1000/{row}")))
        .collect();
    assert_eq!(told(&parts), expected);
}

/// After a crash with `written` of the records of [`around`] in Kafka: the rest, and nothing twice.
#[test]
fn a_truncate_that_is_written_is_not_written_again() {
    let batch = around(2);
    let parts = encode_with(&batch, settings()).unwrap();
    let (partition, all) = (parts[0].partition, told(&parts));
    let server = "mysql:a6255251-e58c-11f1-8263-02fc00000001";
    let start = Position::MySql {
        binlog: "binlog.000002:4".parse().unwrap(),
        gtids: None,
    };
    let mut checkpoint = Checkpoint::set_by_operator(start);
    checkpoint.producers.insert(7, [server.to_owned()].into());
    for written in 0..=all.len() {
        let mut tails = Tails::new(&checkpoint, &server.parse().unwrap());
        tails.begin("tmy.tt.events", 0, partition, 0, 0);
        for (offset, (_, pos)) in (0..).zip(&all[..written]) {
            tails
                .record(0, partition, offset, 7, Some(pos.as_bytes()), None)
                .unwrap();
        }
        tails.finish(0, partition, written as i64);
        let settled: Settled = tails.settled(None).unwrap();
        let settings = settings();
        let templates = templates(&batch, &settings);
        let rest = Encoder::new(Arc::new(settings))
            .encode(&batch, &templates, Some(&settled), NOW)
            .unwrap();
        assert_eq!(told(&rest), all[written..], "{written} are written");
    }
}
