//! The rules one by one, as examples; `model.rs` has them all at once.

use protocol::mysql::GtidSet;

use super::*;
use crate::checkpoint::{Ledger, Resume};
use crate::source::Identity;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn server(name: &str) -> Identity {
    Identity::MySql { uuid: name.into() }
}

/// Tails of partition 0 of topic `t` for a stream from server `now`: our producer 7 read from server `a`.
fn tails(now: &str, records: &[(i64, i64, &str, Option<&str>)], end: i64) -> Tails {
    let mut ledger = Ledger::fresh(Resume {
        server: server("a"),
        position: "binlog.000001:4".parse().unwrap(),
        selection: String::new(),
        cluster: None,
        producers: vec![7],
    });
    ledger.topic("t", &[(0, 0)]);
    let mut tails = Tails::new(ledger.checkpoint(), &server(now));
    tails.begin("t", 0, 0, 0, 0);
    for (offset, producer, pos, gtid) in records {
        tails
            .record(
                0,
                0,
                *offset,
                *producer,
                Some(pos.as_bytes()),
                gtid.map(str::as_bytes),
            )
            .unwrap();
    }
    tails.finish(0, 0, end);
    tails
}

#[test]
fn on_the_same_server_order_decides() {
    let tails = tails(
        "a",
        &[
            (0, 7, "binlog.000009:100/3", None),
            (1, 8, "binlog.000099:1/1", None),
        ],
        2,
    );
    let settled = tails.settled(None).unwrap();
    let is = |file: &str, offset, row| settled.is_settled(0, 0, file, offset, None, row);
    assert!(
        is("binlog.000009", 100, 3) && is("binlog.000009", 99, 50) && is("binlog.000008", 5000, 0)
    );
    assert!(
        !is("binlog.000009", 100, 4) && !is("binlog.000010", 4, 0) && !is("binlog.000099", 1, 1)
    );
    assert!(
        !is("other.000001", 4, 0),
        "another base name has no order with this one"
    );
    assert!(
        !settled.is_settled(0, 1, "binlog.000001", 4, None, 0)
            && !settled.is_settled(1, 0, "binlog.000001", 4, None, 0)
    );
    assert!(!settled.is_passed(&"binlog.000009:100".parse().unwrap()));
    assert!(settled.is_passed(&"binlog.000009:150".parse().unwrap()));
}

#[test]
fn on_another_server_gtid_and_row_decide() {
    let (one, two) = (format!("{UUID}:1"), format!("{UUID}:2"));
    let tails = tails(
        "b",
        &[
            (0, 7, "binlog.000009:100/3", Some(&one)),
            (1, 7, "binlog.000009:200/0", Some(&two)),
        ],
        2,
    );
    let executed: GtidSet = format!("{UUID}:1-2").parse().unwrap();
    let settled = tails.settled(Some(&executed)).unwrap();
    let is = |gtid: &str, row| settled.is_settled(0, 0, "binlog.000001", 4, Some(gtid), row);
    assert!(is(&one, 3) && is(&one, 0) && is(&two, 0));
    assert!(!is(&one, 4) && !is(&two, 1) && !is(&format!("{UUID}:3"), 0));
    let both = format!("binlog.000001:50 {UUID}:1-2");
    assert!(
        settled.is_passed(&both.parse().unwrap())
            && !settled.is_passed(&format!("binlog.000001:50 {UUID}:1").parse().unwrap())
    );
}

#[test]
fn what_the_new_server_never_had_is_named() {
    let names: Vec<String> = (1..=12).map(|n| format!("{UUID}:{n}")).collect();
    let records: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, gtid)| (n as i64, 7, "b.1:4/0", Some(gtid.as_str())))
        .collect();
    let executed: GtidSet = format!("{UUID}:1-2").parse().unwrap();
    let error = tails("b", &records, 12)
        .settled(Some(&executed))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "Kafka holds 10 transactions after the checkpoint that server mysql:b never had: "
        ),
        "{error}"
    );
    assert!(
        error.contains(&format!("{UUID}:3"))
            && error.contains("and 2 more")
            && error.contains("position set"),
        "{error}"
    );
}

#[test]
fn without_gtids_another_server_halts() {
    let tails = tails("b", &[(0, 7, "binlog.000009:100/3", None)], 1);
    let error = tails.settled(None).unwrap_err().to_string();
    assert!(
        error.contains("read from server mysql:a") && error.contains("binlog.000009:100/3"),
        "{error}"
    );
    // Nothing of ours in the tail: nothing to recognise.
    assert!(
        self::tails("b", &[(0, 8, "x", None)], 1)
            .settled(None)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_record_of_our_producer_that_we_cannot_have_written_halts() {
    let mut tails = tails("a", &[], 0);
    let error = tails
        .record(0, 0, 5, 7, None, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("record at offset 5 of partition 0 of topic t is of producer 7"),
        "{error}"
    );
}
