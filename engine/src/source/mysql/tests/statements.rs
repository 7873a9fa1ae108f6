//! Changes that are logged as statements instead of rows: of captured tables, of others, and before the start; and events that bring
//! neither rows nor statements.

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
fn an_emptied_memory_table_is_named_as_what_it_may_be() {
    for (statement, may_be) in [
        ("DELETE FROM `shop`.`carts`", true),
        ("DELETE FROM `a`.`m` /* x */", true),
        ("DELETE FROM shop.orders", false),
        ("DELETE FROM `a`.`m` LIMIT 1", false),
    ] {
        let text = read(statement, "*.*").unwrap_err().to_string();
        assert_eq!(text.contains("MEMORY table"), may_be, "{text}");
        assert!(text.contains("SET GLOBAL binlog_format = ROW"), "{text}");
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

/// An event of `kind` at the place of `like`.
fn event_like(like: &[u8], kind: Kind, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut event = like[..19].to_vec();
    event[4] = kind.0;
    event[17] = flags;
    completed(event, body)
}

const LOAD: &str = "LOAD DATA INFILE 'x' INTO TABLE shop.orders";

/// The events of a recording with a LOAD DATA instead of its TRUNCATE, logged as a statement: first what the file holds.
fn with_load() -> Vec<Vec<u8>> {
    let mut events = events(NAME);
    let holds = |event: &Vec<u8>| event.windows(STATEMENT.len()).any(|it| it == STATEMENT);
    let at = events.iter().position(holds).unwrap();
    let query = events[at].clone();
    // The post-header of a QUERY, then its status variables and database.
    let before = &query[19..query.len() - 4 - STATEMENT.len()];
    let (post, session) = before.split_at(13);
    let file = 9_u32.to_le_bytes();
    let name = [17_u32, 20].map(u32::to_le_bytes).concat();
    let execute = [post, &file, &name, &[0], session, LOAD.as_bytes()].concat();
    let text = |said: &[u8]| [before, said].concat();
    let block = |rows: &[u8]| [&file[..], rows].concat();
    let load = [
        (Kind::QUERY, text(b"BEGIN")),
        (Kind::BEGIN_LOAD_QUERY, block(b"1,one\n")),
        (Kind::APPEND_BLOCK, block(b"2,two\n")),
        (Kind::EXECUTE_LOAD_QUERY, execute),
        (Kind::QUERY, text(b"COMMIT")),
    ];
    let load = load.map(|(kind, body)| event_like(&query, kind, query[17], &body));
    events.splice(at..=at, load);
    events
}

#[test]
fn a_load_data_that_is_logged_as_a_statement_halts() {
    for tables in ["shop.*", "*.*"] {
        let mut memory = Memory::new(&[tables], 64 << 20);
        let error = memory.feed(&packets(&with_load(), 1)).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Halt, "{tables}");
        let text = error.to_string();
        for part in [LOAD, "SET GLOBAL binlog_format = ROW", "binlog.000001:"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // Of a table that is not captured it is passed over, and nothing else is.
    let mut memory = Memory::new(&["*.*", "!shop.orders"], 64 << 20);
    memory.feed(&packets(&with_load(), 1)).unwrap();
    let (mut expected, end) = whole(NAME);
    expected.retain(|change| {
        change.operation != "Truncate" || !change.table.ends_with(".altered_again")
    });
    let (changes, ends) = memory.finish();
    assert!(changes == expected);
    assert_eq!(ends.last(), Some(&end));
}

#[test]
fn events_of_no_concern_change_nothing_wherever_they_stand() {
    const IGNORABLE: u8 = 0x80;
    let mut view = [0; 40 + 8 + 4];
    view[..19].copy_from_slice(b"17000000000000000:3");
    let mut context = b"\x24\x07".to_vec();
    context.resize(18, 0);
    context.extend_from_slice(b"3e11fa47-71ca-11e1-9e33-c80aa9429562");
    let concerns = [
        (Kind::VIEW_CHANGE, 0, &view[..]),
        (Kind::TRANSACTION_CONTEXT, 0, &context),
        (Kind::INTVAR, 0, b"\x02\x07\0\0\0\0\0\0\0"),
        (Kind::RAND, 0, &[1; 16]),
        (Kind::USER_VAR, 0, b"\x01\0\0\0n\x01"),
        (Kind::BINLOG_CHECKPOINT, 0, b"\x0d\0\0\0binlog.000001"),
        (Kind::START_ENCRYPTION, 0, b"\x01\x01\0\0\0noncenonce12"),
        (Kind::IGNORABLE, IGNORABLE, b"anything"),
        (Kind(99), IGNORABLE, b"anything"),
    ];
    for name in [NAME, "mariadb-10.11-types"] {
        let plain = events(name);
        let (expected, end) = whole(name);
        let first = |kinds: &[Kind]| {
            let is_one = |event: &Vec<u8>| kinds.iter().any(|kind| event[4] == kind.0);
            plain.iter().position(is_one).unwrap()
        };
        // Between two transactions, and inside one that has rows.
        for at in [
            first(&[Kind::GTID, Kind::MARIADB_GTID]),
            first(&[Kind::TABLE_MAP]),
        ] {
            let with = |kind, flags, body: &[u8]| {
                let mut events = plain.clone();
                events.insert(at, event_like(&plain[at - 1], kind, flags, body));
                packets(&events, 1)
            };
            for (kind, flags, body) in concerns {
                let mut memory = Memory::new(&["*.*"], 64 << 20);
                let read = memory.feed(&with(kind, flags, body));
                read.unwrap_or_else(|error| panic!("{name}, {kind} at {at}: {error}"));
                let (changes, ends) = memory.finish();
                assert!(changes == expected, "{name}, {kind} at {at}");
                assert_eq!(ends.last(), Some(&end), "{name}, {kind} at {at}");
            }
            // What may not be skipped could have been a change.
            let mut memory = Memory::new(&["*.*"], 64 << 20);
            let error = memory.feed(&with(Kind(99), 0, b"anything")).unwrap_err();
            assert_eq!(error.verdict(), Verdict::Halt, "{name}");
            let text = error.to_string();
            assert!(
                text.starts_with("unknown event at binlog.000001:"),
                "{text}"
            );
        }
    }
}
