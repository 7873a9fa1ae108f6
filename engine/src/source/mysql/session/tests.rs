//! What sets of GTIDs and refusals mean, and what is asked of a server.

mod served;
mod silent;

use super::super::server::answer;
use super::*;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn mysql(purged: &str, executed: &str) -> Variables {
    let set = |range: &str| match range {
        "" => String::new(),
        range => format!("{UUID}:{range}"),
    };
    Variables::read(answer(&[
        &["version", "9.7.0"],
        &["gtid_mode", "ON"],
        &["gtid_purged", &set(purged)],
        &["gtid_executed", &set(executed)],
    ]))
}

fn set(range: &str) -> GtidSet {
    format!("{UUID}:{range}").parse().unwrap()
}

#[test]
fn gtids_that_are_missing_on_either_side_are_named() {
    assert!(covered(&set("1-50"), &mysql("1-50", "1-100"), None).is_ok());
    let error = covered(&set("1-30:35-40"), &mysql("1-50", "1-100"), None).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Resync);
    assert!(
        error
            .to_string()
            .contains(&format!("purged transactions {UUID}:31-34:41-50")),
        "{error}"
    );
    let error = covered(&set("1-120"), &mysql("", "1-100"), None).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("never had transactions {UUID}:101-120")),
        "{error}"
    );
    // RESET BINARY LOGS AND GTIDS.
    assert!(covered(&set("1-5"), &mysql("", ""), None).is_err());
}

#[test]
fn a_commit_that_waits_for_another_replica_is_known_to_the_server() {
    let waiting = |owned: &str| {
        Variables::read(answer(&[
            &["version", "9.7.0"],
            &["gtid_mode", "ON"],
            &["gtid_purged", ""],
            &["gtid_executed", &format!("{UUID}:1-100")],
            &["gtid_owned", owned],
        ]))
    };
    let owned = format!("{UUID}:101#7:102#12");
    assert!(covered(&set("1-102"), &waiting(&owned), None).is_ok());
    // It was done before the second question.
    assert!(covered(&set("1-102"), &waiting(""), Some(&set("1-102"))).is_ok());
    for known in [waiting(&owned), waiting("")] {
        let error = covered(&set("1-103"), &known, Some(&set("1-102"))).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Resync);
        let text = error.to_string();
        assert!(text.contains(&format!("{UUID}:103 ")), "{text}");
    }
}

#[test]
fn mariadb_names_the_domain_that_is_behind() {
    let variables = Variables::read(answer(&[
        &["version", "10.11.6-MariaDB"],
        &["gtid_binlog_pos", "0-1-100,1-1-7"],
    ]));
    assert!(covered(&"0-1-100".parse().unwrap(), &variables, None).is_ok());
    let error = covered(&"0-1-5,1-1-8".parse().unwrap(), &variables, None).unwrap_err();
    assert!(
        error.to_string().contains("never had transaction 1-1-8"),
        "{error}"
    );
}

#[test]
fn a_server_that_does_not_log_what_it_replicates_has_purged_nothing() {
    let purged = |name: &str| {
        let set = format!("{UUID}:1-50");
        let variables = Variables::read(answer(&[
            &["version", "9.7.0"],
            &["gtid_mode", "ON"],
            &["gtid_purged", &set],
            &["gtid_executed", &set],
            &[name, "OFF"],
        ]));
        covered(&"".parse().unwrap(), &variables, None)
            .unwrap_err()
            .to_string()
    };
    for name in ["log_replica_updates", "log_slave_updates"] {
        let text = purged(name);
        for part in [
            format!("replicated without logging them ({name} is OFF)"),
            format!("transactions {UUID}:1-50"),
            format!("start the server with {name} = ON in [mysqld]"),
        ] {
            assert!(text.contains(&part), "{part} not in {text}");
        }
    }
    let text = purged("other");
    assert!(text.contains("has purged transactions"), "{text}");
    assert!(!text.contains("OFF"), "{text}");

    let mariadb = Variables::read(answer(&[
        &["version", "10.11.6-MariaDB"],
        &["gtid_binlog_pos", ""],
        &["log_slave_updates", "OFF"],
    ]));
    let error = covered(&"0-1-5".parse().unwrap(), &mariadb, None).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("does not log what it replicates (log_slave_updates is OFF"),
        "{text}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    let position: BinlogPosition = "b.000002:4".parse().unwrap();
    let refuse =
        |code, words: &str| refused(&ServerError::new(code, "HY000", words), 85_744, &position);
    let kicked = refuse(
        1236,
        "A replica with the same server_uuid/server_id as this replica has connected to the source",
    );
    assert_eq!(kicked.verdict(), Verdict::Halt);
    assert!(kicked.to_string().contains("85744"), "{kicked}");
    let purged = refuse(
        1236,
        "Could not find first log file name in binary log index file",
    );
    assert_eq!(purged.verdict(), Verdict::Resync);
    assert!(purged.to_string().contains("position reset"), "{purged}");
    let hole = refuse(
        1236,
        "The binlog on the master is missing the GTID 0-1-100 requested by the slave (even though both a prior and a subsequent sequence \
         number does exist), and GTID strict mode is enabled",
    );
    assert_eq!(hole.verdict(), Verdict::Resync);
    assert!(hole.to_string().contains("took over without it"), "{hole}");
    assert_eq!(
        refuse(1236, "bogus data in log event").verdict(),
        Verdict::Resync
    );
    assert_eq!(
        refuse(1053, "Server shutdown in progress").verdict(),
        Verdict::Retry
    );
    assert_eq!(refuse(1227, "Access denied").verdict(), Verdict::Halt);
}
