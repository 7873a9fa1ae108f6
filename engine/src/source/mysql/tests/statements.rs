//! Changes that are logged as statements instead of rows: of captured tables, of others, and before the start.

use super::truncates::STATEMENT;
use super::*;

const NAME: &str = "mysql-9.7-types";

/// The events of a recording with a statement in it replaced by one that is no longer.
fn with_statement(statement: &str) -> Vec<Vec<u8>> {
    let mut events = events(NAME);
    let holds = |event: &&mut Vec<u8>| event.windows(STATEMENT.len()).any(|it| it == STATEMENT);
    let event = events.iter_mut().find(holds).unwrap();
    let at = event.len() - 4 - STATEMENT.len();
    let mut padded = statement.as_bytes().to_vec();
    assert!(padded.len() <= STATEMENT.len(), "{statement}");
    padded.resize(STATEMENT.len(), b' ');
    event[at..at + STATEMENT.len()].copy_from_slice(&padded);
    seal(event);
    events
}

fn read(statement: &str, tables: &str) -> Result<(), SourceError> {
    let mut memory = Memory::new(&[tables], 64 << 20);
    memory.feed(&packets(&with_statement(statement), 1))
}

#[test]
fn a_change_that_may_be_of_a_captured_table_halts() {
    for (statement, tables) in [
        ("DELETE FROM shop.orders", "shop.*"),
        // Of the two tables only the one that is made is captured.
        ("CREATE TABLE shop.c SELECT 1", "shop.c"),
        ("CREATE TABLE shop.c TABLE a", "shop.c"),
        ("UPDATE a,shop.o SET o.x=1", "shop.*"),
        ("DELETE o FROM a,shop.o", "shop.*"),
        // What a function changes, nobody knows.
        ("SELECT f(1)", "shop.*"),
    ] {
        let error = read(statement, tables).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Halt, "{statement}");
        let text = error.to_string();
        assert!(
            text.contains(statement) && text.contains("binlog_format"),
            "{text}"
        );
    }
    for (statement, tables) in [
        ("DELETE FROM shop.orders", "other.*"),
        ("CREATE TABLE shop.c SELECT 1", "shop.d"),
        ("CREATE TABLE shop.c (a INT)", "shop.c"),
        ("UPDATE a,shop.o SET o.x=1", "other.*"),
        ("DELETE o FROM a,shop.o", "other.*"),
    ] {
        read(statement, tables).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

#[test]
fn a_server_that_folds_names_has_the_table_in_lower_case() {
    let read = |statement: &str, tables: &[&str], folds: bool| {
        let mut memory = Memory::new(tables, 64 << 20);
        memory.stream.decoder.folds_names = folds;
        memory.feed(&packets(&with_statement(statement), 1))
    };
    for (statement, tables) in [
        ("UPDATE Shop.Orders SET a=1", &["shop.orders"][..]),
        ("DELETE FROM shop.ÜBER", &["shop.über"]),
    ] {
        let error = read(statement, tables, true).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Halt, "{statement}");
        read(statement, tables, false).unwrap();
    }
    let excluded = ["*.*", "!shop.audit"];
    read("DELETE FROM shop.Audit", &excluded, true).unwrap();
    read("DELETE FROM shop.Audit", &excluded, false).unwrap_err();
}

#[test]
fn what_stands_before_the_start_is_passed_over() {
    for statement in [
        "DELETE FROM altered_again",
        "CREATE TABLE c SELECT 1 AS a",
        "DO f()",
    ] {
        let events = with_statement(statement);
        let error = read(statement, "*.*").unwrap_err();
        assert!(error.to_string().contains("position set"), "{error}");
        let holds = |event: &&Vec<u8>| {
            (event.windows(statement.len())).any(|it| it == statement.as_bytes())
        };
        let event = events.iter().find(holds).unwrap();
        let behind = u64::from(Header::parse(event).unwrap().next_position);
        let place = Place {
            file: "binlog.000001".into(),
            offset: behind,
        };
        let start = Point { place, gtids: None };
        let mut memory = Memory::starting_at(start, true, &["*.*"], 64 << 20);
        memory.feed(&packets(&events, 1)).unwrap();
        let (changes, _) = memory.finish();
        assert!(!changes.is_empty(), "{statement}");
        for change in changes {
            let (place, _) = change.position.rsplit_once('/').unwrap();
            let place: BinlogPosition = place.parse().unwrap();
            assert!(
                *place.file != *"binlog.000001" || place.offset >= behind,
                "{place}"
            );
        }
    }
}
