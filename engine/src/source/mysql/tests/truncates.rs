//! TRUNCATE statements as changes: of recordings, where the line is cut, and where names are told in other ways.

use super::*;

const TYPES: [&str; 2] = ["mysql-9.7-types", "mariadb-10.11-types"];
/// As the recordings have it.
pub(super) const STATEMENT: &[u8] = b"TRUNCATE TABLE altered_again";

/// The changes of a recording with the statement in it replaced by one of the same length, on a server that folds names or does not.
fn with_statement(
    statement: &[u8],
    folds: bool,
    recorded: bool,
) -> Result<Vec<Change>, SourceError> {
    assert_eq!(statement.len(), STATEMENT.len());
    let mut events = events(TYPES[0]);
    let holds = |event: &[u8]| {
        event
            .windows(STATEMENT.len())
            .position(|it| it == STATEMENT)
    };
    let (event, at) = (events.iter_mut())
        .find_map(|event| holds(event).map(|at| (event, at)))
        .unwrap();
    event[at..at + statement.len()].copy_from_slice(statement);
    seal(event);
    let mut memory = Memory::new(&["*.*"], 64 << 20);
    memory.stream.decoder.truncates = Truncates::new(recorded);
    memory.stream.decoder.folds_names = folds;
    memory.feed(&packets(&events, 1))?;
    Ok(memory.finish().0)
}

fn truncates(changes: &[Change]) -> Vec<&Change> {
    let is_one = |change: &&Change| change.operation == "Truncate";
    changes.iter().filter(is_one).collect()
}

#[test]
fn a_truncate_is_the_only_row_of_its_transaction() {
    for name in TYPES {
        let changes = whole(name).0;
        let found = truncates(&changes);
        let one = *found
            .iter()
            .find(|change| change.table.ends_with(".altered_again"))
            .unwrap();
        let begin = decided_at(name, STATEMENT);
        assert_eq!(one.position, format!("binlog.000001:{begin}/0"), "{name}");
        assert!(one.offset > begin, "{name}: the statement's own offset");
        assert!(one.gtid.is_some() && one.origin.1.is_some(), "{name}");
        assert!(one.before.is_none() && one.after.is_none() && one.columns.is_empty());
        let same_place = |change: &&Change| change.position == one.position;
        assert_eq!(changes.iter().filter(same_place).count(), 1, "{name}");
    }
}

#[test]
fn rows_do_not_depend_on_whether_truncates_are_recorded() {
    let mut expected = with_statement(STATEMENT, false, true).unwrap();
    let all = expected.len();
    expected.retain(|change| change.operation != "Truncate");
    assert!(expected.len() < all);
    assert_eq!(with_statement(STATEMENT, false, false).unwrap(), expected);
}

#[test]
fn a_truncate_of_a_table_that_is_not_captured_is_counted() {
    let count = |tables: &[&str]| {
        let mut memory = Memory::new(tables, 64 << 20);
        memory.feed(&packets(&events(TYPES[0]), 1)).unwrap();
        let counters = *memory.stream.decoder.counters();
        let (changes, _) = memory.finish();
        assert_eq!(changes.len() as u64, counters.rows);
        (
            counters.rows + counters.rows_filtered,
            truncates(&changes).len(),
        )
    };
    let (all, some) = count(&["*.*"]);
    assert!(some > 0);
    assert_eq!(count(&["*.*", "!*.altered_again"]), (all, some - 1));
}

#[test]
fn a_cut_line_repeats_and_loses_no_truncate() {
    for name in TYPES {
        let events = events(name);
        let (expected, end) = whole(name);
        let holds = |event: &Vec<u8>| event.windows(STATEMENT.len()).any(|it| it == STATEMENT);
        let at = events.iter().position(holds).unwrap();
        // Before its GTID, between the two, and behind it.
        for cut in at - 1..=at + 2 {
            for sealed in [false, true] {
                let mut memory = Memory::new(&["*.*"], 64 << 20);
                memory.feed(&packets(&events[..cut], 1)).unwrap();
                if sealed {
                    memory.seal();
                }
                let safe = memory.stream.decoder.safe().place.clone();
                memory.begin();
                // The recording has another file behind this one.
                let goes_on = |event: &Vec<u8>| {
                    let header = Header::parse(event).unwrap();
                    u64::from(header.next_position) == safe.offset + u64::from(header.length)
                };
                let mut dump = dump_from(&events, &safe.file, safe.offset);
                dump.truncate(2);
                dump.extend_from_slice(&events[events.iter().position(goes_on).unwrap()..]);
                memory.feed(&packets(&dump, 1)).unwrap();
                let (changes, ends) = memory.finish();
                assert!(changes == expected, "{name}, cut at {cut}");
                assert_eq!(ends.last(), Some(&end), "{name}, cut at {cut}");
            }
        }
    }
}

#[test]
fn names_are_those_of_the_tables() {
    let place = format!("binlog.000001:{}/0", decided_at(TYPES[0], STATEMENT));
    let table = |changes: Vec<Change>| {
        let mut at_place = changes.iter().filter(|change| change.position == place);
        at_place.next().unwrap().table.clone()
    };
    let forms = table(with_statement(STATEMENT, false, true).unwrap());
    let (schema, _) = forms.rsplit_once('.').unwrap();
    // Another server stores names in lower case, however they are written.
    let mixed = b"truncate table Altered_Again";
    let as_written = table(with_statement(mixed, false, true).unwrap());
    assert_eq!(as_written, format!("{schema}.Altered_Again"));
    assert_eq!(table(with_statement(mixed, true, true).unwrap()), forms);
    let named = table(with_statement(b"TRUNCATE `other`.`t``abl.e` ", false, true).unwrap());
    assert_eq!(named, "other.t`abl.e");
}

#[test]
fn a_name_that_is_no_text_halts_where_a_record_is_asked_for() {
    let statement = b"TRUNCATE TABLE altered_\xff\xfe\xfdin";
    let error = with_statement(statement, false, true).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Halt);
    let text = error.to_string();
    assert!(
        text.contains("binlog.000001:") && text.contains("position set"),
        "{text}"
    );
    with_statement(statement, false, false).unwrap();
}

/// The code of `Q_CHARSET_CODE` among a QUERY event's status variables, behind header and post-header, and those that stand before it:
/// flags, SQL mode, catalog, auto-increment.
fn charset_at(event: &[u8]) -> usize {
    let mut at = 19 + 13;
    loop {
        at += match event[at] {
            0 | 3 => 5,
            1 => 9,
            6 => 2 + usize::from(event[at + 1]),
            4 => return at,
            other => panic!("status variable {other}"),
        };
    }
}

#[test]
fn a_statement_names_its_table_in_the_character_set_of_its_session() {
    const LATIN1: u16 = 8;
    let with = |statement: &[u8], tables: &[&str]| {
        let mut events = events(TYPES[0]);
        let event = (events.iter_mut())
            .find(|event| event.windows(STATEMENT.len()).any(|it| it == STATEMENT))
            .unwrap();
        let at = event.len() - 4 - STATEMENT.len();
        event[at..at + STATEMENT.len()].copy_from_slice(statement);
        let charset = charset_at(event);
        event[charset + 1..charset + 3].copy_from_slice(&LATIN1.to_le_bytes());
        seal(event);
        let mut memory = Memory::new(tables, 64 << 20);
        memory
            .feed(&packets(&events, 1))
            .map(|()| memory.finish().0)
    };
    let changes = with(
        b"TRUNCATE TABLE altered_agai\xe9",
        &["*.altered_agai\u{e9}"],
    )
    .unwrap();
    assert_eq!(truncates(&changes).len(), 1);
    // Rows that only a statement tells of are not passed over because of its name.
    let statement = b"DELETE FROM altered_agai\xe9   ";
    let error = with(statement, &["*.altered_agai\u{e9}"]).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Halt);
    assert!(error.to_string().contains("altered_agai\u{e9}"), "{error}");
    with(statement, &["*.altered_again"]).unwrap();
}
