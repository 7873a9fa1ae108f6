//! The film cut from recordings of a few messages.

use fixtures::{RecordingWriter, Sidecar};

use super::*;
use crate::serve::postgres::frame::tests::data;
use crate::serve::postgres::plan;

fn begin(first: u64, commit: u64) -> Vec<u8> {
    let payload = [b"B".as_slice(), &commit.to_be_bytes(), &[0; 12]].concat();
    data(first, &payload)
}

fn commit(commit: u64, end: u64) -> Vec<u8> {
    let numbers = [commit.to_be_bytes(), end.to_be_bytes(), [0; 8]].concat();
    data(end, &[b"C\0".as_slice(), &numbers].concat())
}

fn row(at: u64, table: u32) -> Vec<u8> {
    data(
        at,
        &[b"I".as_slice(), &table.to_be_bytes(), b"N\0\0"].concat(),
    )
}

fn relation(table: u32, name: &str) -> Vec<u8> {
    let payload = [
        b"R".as_slice(),
        &table.to_be_bytes(),
        b"shop\0",
        name.as_bytes(),
        b"\0d\0\0",
    ];
    data(0, &payload.concat())
}

/// A message of a streamed transaction: the transaction's number behind the kind.
fn streamed(message: &[u8], xid: u32) -> Vec<u8> {
    let payload = &message[frame::PAYLOAD..];
    data(
        0,
        &[&payload[..1], &xid.to_be_bytes(), &payload[1..]].concat(),
    )
}

fn keepalive(end: u64) -> Vec<u8> {
    let mut message = b"d\0\0\0\x16k".to_vec();
    message.extend(end.to_be_bytes());
    message.extend([0; 9]);
    message
}

fn load(messages: &[Vec<u8>]) -> Result<Film, ServeError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made.zst");
    let mut writer = RecordingWriter::create(&path, 1).unwrap();
    writer.event(b"W\0\0\0\x07\0\0\0").unwrap();
    messages
        .iter()
        .for_each(|message| writer.event(message).unwrap());
    let text = "server = \"postgres\"\nversion = \"15.1\"\nprovenance = \"made\"\nchanges = 0\nbytes = 0\nsha256 = \"\"\n\
                [postgres]\nstart = \"0/10\"\nend = \"0/9000\"\nsystem_id = \"1\"\ntimeline = 1\ndatabase = \"shop\"\n\
                slot = \"s\"\nplugin = \"pgoutput\"\n";
    let sidecar: Sidecar = toml::from_str(text).unwrap();
    Film::load(&writer.finish(sidecar).unwrap())
}

fn shown(film: &Film, from: u64) -> Vec<(u64, u64)> {
    plan::stretches(film, Lsn(from))
        .map(|stretch| (stretch.commit.0, stretch.changes))
        .collect()
}

#[test]
fn transactions_are_shown_whole_from_where_they_commit() {
    let film = load(&[
        keepalive(0x10),
        begin(0x20, 0x60),
        relation(7, "events"),
        row(0x20, 7),
        row(0x40, 7),
        commit(0x60, 0x68),
        // A transaction that began before the first committed.
        begin(0x30, 0x80),
        row(0x30, 7),
        commit(0x80, 0x88),
        keepalive(0x100),
    ])
    .unwrap();
    assert_eq!(film.changes(), 3);
    assert_eq!(
        shown(&film, 0),
        [(0x10, 0), (0x60, 2), (0x80, 1), (0x100, 0)]
    );
    // At a commit record itself its transaction is still sent, behind it it is not.
    assert_eq!(shown(&film, 0x60), [(0x60, 2), (0x80, 1), (0x100, 0)]);
    assert_eq!(shown(&film, 0x61), [(0x80, 1), (0x100, 0)]);
    assert_eq!(shown(&film, 0x88), [(0x100, 0)]);
}

#[test]
fn a_session_in_the_middle_learns_the_definition_of_its_time() {
    let kind = data(0, b"Y\0\0\0\x09shop\0colour\0");
    let messages = [
        begin(0x20, 0x60),
        kind.clone(),
        relation(7, "events"),
        row(0x20, 7),
        commit(0x60, 0x68),
        begin(0x70, 0x80),
        relation(7, "renamed"),
        row(0x70, 7),
        row(0x78, 8),
        commit(0x80, 0x88),
    ];
    let film = load(&messages).unwrap();
    let place = |index: usize| 8 + messages[..index].iter().map(Vec::len).sum::<usize>();
    let old = [kind, messages[2].clone()].concat();
    assert_eq!(film.definitions.before(7, place(3)), Some(old.as_slice()));
    assert_eq!(film.definitions.before(7, place(5)), Some(old.as_slice()));
    assert_eq!(
        film.definitions.before(7, place(7)),
        Some(messages[6].as_slice())
    );
    assert_eq!(film.definitions.before(7, place(1)), None);
    assert_eq!(film.definitions.before(8, place(8)), None);
    let names: Vec<&str> = film.tables.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["events", "renamed"]);
}

#[test]
fn pieces_of_a_streamed_transaction_stay_together() {
    let xid = 5_u32;
    let start = data(0, &[b"S".as_slice(), &xid.to_be_bytes(), b"\x01"].concat());
    let stop = data(0, b"E");
    let numbers = [0x90_u64.to_be_bytes(), 0x98_u64.to_be_bytes(), [0; 8]].concat();
    let end = data(
        0x98,
        &[b"c".as_slice(), &xid.to_be_bytes(), b"\0", &numbers].concat(),
    );
    let part = [xid.to_be_bytes(), 6_u32.to_be_bytes()].concat();
    let abort = data(0x28, &[b"A".as_slice(), &part].concat());
    let film = load(&[
        start.clone(),
        streamed(&relation(7, "events"), xid),
        streamed(&row(0x20, 7), xid),
        stop.clone(),
        abort,
        begin(0x30, 0x60),
        row(0x30, 7),
        commit(0x60, 0x68),
        start,
        streamed(&row(0x70, 7), xid),
        stop,
        end,
    ])
    .unwrap();
    let expected = [(0x97, 1), (0x97, 0), (0x97, 1), (0x97, 0)];
    assert_eq!(shown(&film, 0x61), expected);
    assert!(shown(&film, 0x98).is_empty());
    // Outside of streamed transactions a definition carries no transaction's number.
    let place = film.stretches[1].bytes.end;
    assert_eq!(
        film.definitions.before(7, place),
        Some(relation(7, "events").as_slice())
    );
}

#[test]
fn what_belongs_to_no_transaction_or_does_not_end_is_refused() {
    let error = |messages: &[Vec<u8>]| load(messages).unwrap_err().to_string();
    assert!(error(&[row(0x20, 7)]).contains("message at byte 8: it belongs to a transaction"));
    assert!(error(&[begin(0x20, 0x60)]).contains("ends inside a transaction"));
    assert!(error(&[begin(1, 2), begin(3, 4)]).contains("begins inside another"));
    assert!(error(&[b"d\0\0\0\x09wabc".to_vec()]).contains("cut short"));
}

#[test]
fn one_transaction_has_growing_places_and_the_wanted_rows() {
    let messages = [
        begin(0x20, 0x60),
        relation(7, "events"),
        row(0x20, 7),
        row(0x40, 7),
        commit(0x60, 0x68),
        begin(0x70, 0x80),
        row(0x70, 7),
        commit(0x80, 0x88),
    ];
    let film = load(&messages).unwrap().one_transaction(7).unwrap();
    assert_eq!(film.changes(), 7);
    let repeat = film.repeat.as_ref().unwrap();
    let (mut steps, mut places, mut rows) = (repeat.messages(&film), Vec::new(), 0);
    let mut out = Vec::new();
    let mut kinds = String::new();
    while let Some(shown) = steps.next(&mut out) {
        assert_eq!(shown.changes_before, rows);
        rows += shown.changes;
        let (frame, length) = frame::next(&out).unwrap();
        assert_eq!(length, out.len());
        let Frame::Data { start, payload } = frame else {
            panic!("no data")
        };
        kinds.push(payload[0] as char);
        if shown.changes > 0 {
            places.push(start.0);
        }
        out.clear();
    }
    assert_eq!((rows, kinds.as_str()), (7, "BRIIIRIIIRIC"));
    assert!(
        places.is_sorted_by(|a, b| a < b) && places[0] == 0x20,
        "{places:x?}"
    );
    assert!(repeat.commit_lsn().0 > places[6] && repeat.end_lsn() == film.end);
    assert!(film.end > repeat.commit_lsn());
}
