//! The rules one by one, as examples; `model.rs` has them all at once.

use protocol::mysql::GtidSet;

use super::*;
use crate::checkpoint::{Checkpoint, Ledger, Resume};
use crate::source::Identity;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn server(name: &str) -> Identity {
    format!("mysql:{name}").parse().unwrap()
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

/// Tails of partition 0 of topic `t`, whose only record is of producer 7 and of GTID 1.
fn one_record(checkpoint: &Checkpoint, now: &str, pos: &str) -> Tails {
    let mut tails = Tails::new(checkpoint, &now.parse().unwrap());
    tails.begin("t", 0, 0, 0, 0);
    let gtid = format!("{UUID}:1");
    let (pos, gtid) = (Some(pos.as_bytes()), Some(gtid.as_bytes()));
    tails.record(0, 0, 0, 7, pos, gtid).unwrap();
    tails.finish(0, 0, 1);
    tails
}

#[test]
fn places_of_another_log_of_the_same_name_settle_nothing() {
    let mut checkpoint = Checkpoint::set_by_operator("b.000050:4".parse().unwrap());
    checkpoint.producers = [(7, ["mariadb:1:0".to_owned()].into())].into();
    let tails = one_record(&checkpoint, "mariadb:1:0/2", "b.000057:1000/0");
    let executed: GtidSet = format!("{UUID}:1-2").parse().unwrap();
    let settled = tails.settled(Some(&executed)).unwrap();
    let is = |gtid: u64| {
        let gtid = format!("{UUID}:{gtid}");
        settled.is_settled(0, 0, "b.000012", 500, Some(&gtid), 0)
    };
    assert!(is(1) && !is(2));
}

#[test]
fn a_record_from_behind_the_end_of_the_servers_own_log_halts() {
    let mut checkpoint = Checkpoint::set_by_operator("b.000012:4".parse().unwrap());
    checkpoint.producers = [(7, ["mariadb:1:0".to_owned()].into())].into();
    for (end, is_behind) in [
        ("b.000057:1000", true),
        ("b.000057:1001", false),
        ("b.000012:5000", true),
        ("b.000058:4", false),
        ("other.000001:4", false),
    ] {
        let mut tails = one_record(&checkpoint, "mariadb:1:0", "b.000057:1000/3");
        tails.end_at(&end.parse().unwrap());
        let found = tails.settled(None).map(|_| ()).map_err(|e| e.to_string());
        let expected = format!(
            "partition 0 of topic t holds changes at b.000057:1000/3 that were read from server mariadb:1:0, whose binary log ends before \
             that, at {end}"
        );
        match found {
            Ok(()) => assert!(!is_behind, "{end}"),
            Err(error) => assert!(is_behind && error.starts_with(&expected), "{end}: {error}"),
        }
    }
}

/// Timelines 1 to 3 of a cluster, whose rows carry no GTID; a process went on from one to the next under producer id 7.
mod promotion {
    use super::*;

    const NAMES: [&str; 3] = ["postgres:5:1", "postgres:5:2", "postgres:5:3"];

    /// What the tail says on timeline `now`, where the checkpoint's position is of timeline `of`, id 7 wrote of timelines `wrote`, and the
    /// tail has commits at `places`. Timeline 1 ended at 0/100, timeline 2 at 0/200.
    fn tail(now: usize, of: usize, wrote: &[usize], places: &[&str]) -> Result<Settled, String> {
        let name = |timeline: usize| NAMES[timeline - 1];
        let mut checkpoint = Checkpoint::set_by_operator("0/90".parse().unwrap());
        checkpoint.server = Some(name(of).parse().unwrap());
        let servers = wrote.iter().map(|timeline| name(*timeline).to_owned());
        checkpoint.producers = [(7, servers.collect())].into();
        let mut tails = Tails::new(&checkpoint, &name(now).parse().unwrap());
        let history = [(name(1), "0/100"), (name(2), "0/200")];
        let history = history.map(|(name, end)| (name.parse().unwrap(), end.parse().unwrap()));
        tails.share_history(&history[..now - 1]);
        tails.begin("t", 0, 0, 0, 0);
        for (offset, place) in places.iter().enumerate() {
            let pos = format!("{place}/0");
            let noted = tails.record(0, 0, offset as i64, 7, Some(pos.as_bytes()), None);
            noted.unwrap();
        }
        tails.finish(0, 0, places.len() as i64);
        tails.settled(None).map_err(|error| error.to_string())
    }

    fn is_settled(settled: &Settled, lsn: u64) -> bool {
        settled.is_settled(0, 0, "", lsn, None, 0)
    }

    #[test]
    fn what_one_process_wrote_of_both_sides_is_known_once_the_position_is_of_the_new_one() {
        let settled = tail(2, 2, &[1, 2], &["0/80", "0/F0", "0/110"]).unwrap();
        assert!(is_settled(&settled, 0x80) && is_settled(&settled, 0x110));
        assert!(!is_settled(&settled, 0x111));
        // Promoted again since.
        let settled = tail(3, 2, &[1, 2], &["0/80", "0/110"]).unwrap();
        assert!(is_settled(&settled, 0x110) && !is_settled(&settled, 0x210));
        assert!(tail(3, 2, &[1, 2], &["0/80", "0/210"]).is_err());
        let settled = tail(3, 3, &[1, 2, 3], &["0/80", "0/110", "0/210"]).unwrap();
        assert!(is_settled(&settled, 0x210) && !is_settled(&settled, 0x211));
    }

    #[test]
    fn before_that_only_what_is_everybodys_counts() {
        // A row behind the branch may be of a transaction that the standby never had.
        let error = tail(2, 1, &[1, 2], &["0/80", "0/110"]).unwrap_err();
        assert!(
            error.contains("read from server postgres:5:1") && error.contains("0/110/0"),
            "{error}"
        );
        let settled = tail(2, 1, &[1, 2], &["0/80", "0/F0"]).unwrap();
        assert!(is_settled(&settled, 0xf0) && !is_settled(&settled, 0xf1));
    }

    #[test]
    fn servers_that_are_not_of_the_history_stay_unknown() {
        let error = tail(1, 2, &[1, 2], &["0/80"]).unwrap_err();
        assert!(error.contains("read from server unknown"), "{error}");
    }
}
