//! Messages as the manual has them, whole, cut and damaged.

use proptest::prelude::*;

use super::super::Lsn;
use super::*;

const TUPLE: &[u8] = b"\0\x04t\0\0\0\x0242nub\0\0\0\x01\xff";

#[test]
fn rows_are_ranges_of_the_message() {
    let mut bytes = b"U\0\0\x40\x00O".to_vec();
    bytes.extend_from_slice(TUPLE);
    bytes.push(b'N');
    bytes.extend_from_slice(TUPLE);
    let end = bytes.len();
    let Message::Update(update) = Message::decode(&bytes).unwrap() else {
        panic!("an update");
    };
    assert_eq!(update.relation, 0x4000);
    assert_eq!(update.old, Some(OldTuple::Full(6..6 + TUPLE.len())));
    assert_eq!(update.new, end - TUPLE.len()..end);
    let mut tuple = Tuple::new(&bytes[update.new]).unwrap();
    let mut values = Vec::new();
    while let Some(value) = tuple.next().unwrap() {
        values.push(value);
    }
    let expected = [
        TupleValue::Text(b"42"),
        TupleValue::Null,
        TupleValue::Unchanged,
        TupleValue::Binary(b"\xff"),
    ];
    assert_eq!(values, expected);
    for cut in 0..end {
        assert!(Message::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    bytes.push(0);
    assert!(Message::decode(&bytes).is_err(), "a byte too many");
}

#[test]
fn relations_name_their_columns() {
    let bytes = b"R\0\0\x40\x24public\0events\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0name\0\0\0\x04\x13\0\0\0\x44";
    let Message::Relation(relation) = Message::decode(bytes).unwrap() else {
        panic!("a relation");
    };
    assert_eq!(
        (relation.schema, relation.name, relation.identity),
        ("public", "events", b'd')
    );
    let columns: Vec<_> = relation.columns().map(Result::unwrap).collect();
    let column = |is_key, name, type_oid, type_modifier| RelationColumn {
        is_key,
        name,
        type_oid,
        type_modifier,
    };
    assert_eq!(
        columns,
        [column(true, "id", 20, -1), column(false, "name", 1043, 68)]
    );
    for cut in 0..bytes.len() {
        assert!(Message::decode(&bytes[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn transactions_have_their_places_and_times() {
    let begin = b"B\0\0\0\0\x49\xcb\x0d\xe0\0\x03\x03\xc4\x52\x6f\x86\x3b\0\0\x17\xe8";
    let Message::Begin(begin) = Message::decode(begin).unwrap() else {
        panic!("a begin");
    };
    assert_eq!((begin.final_lsn, begin.xid), (Lsn(0x49cb_0de0), 6120));
    let commit = b"C\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03";
    let expected = Commit {
        commit_lsn: Lsn(1),
        end_lsn: Lsn(2),
        commit_us: 3,
    };
    assert_eq!(Message::decode(commit), Ok(Message::Commit(expected)));
    let Message::Truncate(truncate) =
        Message::decode(b"T\0\0\0\x02\x01\0\0\0\x05\0\0\0\x06").unwrap()
    else {
        panic!("a truncate");
    };
    assert_eq!(truncate.relations().collect::<Vec<_>>(), [5, 6]);
    assert!(Message::decode(b"T\xff\xff\xff\xff\x01\0\0\0\x05").is_err());
    assert!(Message::decode(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xffx").is_err());
    assert!(Message::decode(b"Z").is_err());
}

/// What protocols 2 to 4 add, written out by hand from the manual, and what it means.
fn later() -> Vec<(&'static [u8], Message<'static>)> {
    let commit = Commit {
        commit_lsn: Lsn(1),
        end_lsn: Lsn(2),
        commit_us: 3,
    };
    let prepare = Prepare {
        prepare_lsn: Lsn(1),
        end_lsn: Lsn(2),
        prepare_us: -1,
        xid: 7,
        gid: "two",
    };
    vec![
        (
            b"S\0\0\0\x07\x01",
            Message::StreamStart(StreamStart {
                xid: 7,
                is_first: true,
            }),
        ),
        (b"E", Message::StreamStop),
        (
            b"c\0\0\0\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03",
            Message::StreamCommit(StreamCommit { xid: 7, commit }),
        ),
        (
            b"A\0\0\0\x07\0\0\0\x08",
            Message::StreamAbort(StreamAbort {
                xid: 7,
                subxid: 8,
                place: None,
            }),
        ),
        (
            b"A\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\xff\xff\xff\xfe",
            Message::StreamAbort(StreamAbort {
                xid: 7,
                subxid: 8,
                place: Some((Lsn(5), -2)),
            }),
        ),
        (
            b"b\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x07two\0",
            Message::BeginPrepare(prepare),
        ),
        (
            b"P\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x07two\0",
            Message::Prepare(prepare),
        ),
        (
            b"p\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x07two\0",
            Message::StreamPrepare(prepare),
        ),
        (
            b"K\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x07two\0",
            Message::CommitPrepared(CommitPrepared {
                commit,
                xid: 7,
                gid: "two",
            }),
        ),
        (
            b"r\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x07two\0",
            Message::RollbackPrepared(RollbackPrepared {
                prepare_end_lsn: Lsn(1),
                end_lsn: Lsn(2),
                prepare_us: 3,
                rollback_us: 4,
                xid: 7,
                gid: "two",
            }),
        ),
    ]
}

#[test]
fn later_protocols_are_read() {
    for (bytes, message) in later() {
        assert_eq!(Message::decode(bytes), Ok(message.clone()));
        assert_eq!(Message::decode_streamed(bytes), Ok((None, message.clone())));
        assert!(
            Message::decode(&[bytes, b"\0"].concat()).is_err(),
            "{message:?}"
        );
        for cut in 0..bytes.len() {
            // Without its place, an abort is one of a session without `parallel`.
            let is_abort = bytes[0] == b'A' && cut == 9;
            assert_eq!(
                Message::decode(&bytes[..cut]).is_ok(),
                is_abort,
                "{message:?} {cut}"
            );
        }
    }
}

/// Messages that carry a transaction in a streamed piece, without it, one of each kind.
const CHANGES: [&[u8]; 9] = [
    b"R\0\0\x40\x24public\0events\0d\0\x01\x01id\0\0\0\0\x14\xff\xff\xff\xff",
    b"Y\0\0\x40\x30public\0mood\0",
    b"I\0\0\x40\x24N\0\x01t\0\0\0\x011",
    b"U\0\0\x40\x24N\0\x01t\0\0\0\x011",
    b"U\0\0\x40\x24K\0\x01t\0\0\0\x011N\0\x01u",
    b"D\0\0\x40\x24O\0\x01n",
    b"T\0\0\0\x01\x03\0\0\x40\x24",
    b"M\x01\0\0\0\0\0\0\0\x05tick\0\0\0\0\x03a\0b",
    b"O\0\0\0\0\0\0\0\x05upstream\0",
];

#[test]
fn changes_of_streamed_transactions_name_them() {
    for change in CHANGES {
        let plain = Message::decode(change).unwrap();
        if let Message::Origin(_) = plain {
            assert_eq!(Message::decode_streamed(change), Ok((None, plain)));
            continue;
        }
        let streamed = [&change[..1], b"\0\0\0\x07", &change[1..]].concat();
        let (xid, message) = Message::decode_streamed(&streamed).unwrap();
        assert_eq!(xid, Some(7));
        let moved = |range: &Range<usize>| range.start - 4..range.end - 4;
        match (&message, &plain) {
            (Message::Insert(row), Message::Insert(same)) => assert_eq!(moved(&row.new), same.new),
            (Message::Update(row), Message::Update(same)) => {
                assert_eq!(moved(&row.new), same.new);
                let old = |old: &Option<OldTuple>| old.clone().map(OldTuple::range);
                assert_eq!(old(&row.old).as_ref().map(moved), old(&same.old));
            }
            (Message::Delete(row), Message::Delete(same)) => {
                let old = |old: &OldTuple| old.clone().range();
                assert_eq!(moved(&old(&row.old)), old(&same.old));
            }
            _ => assert_eq!(message, plain),
        }
        for cut in 0..streamed.len() {
            assert!(
                Message::decode_streamed(&streamed[..cut]).is_err(),
                "{plain:?} {cut}"
            );
        }
    }
}

#[test]
fn what_is_not_known_is_refused_where_it_stands() {
    for (bytes, error) in [
        (
            &b"x"[..],
            "pgoutput message at byte 0: 120 is not supported",
        ),
        (b"", "pgoutput message at byte 0: 1 bytes are missing"),
        (
            b"I\0\0\0\x01K\0\0",
            "Insert marker at byte 5: 75 is not allowed here",
        ),
        (
            b"U\0\0\0\x01x\0\0",
            "Update marker at byte 5: 120 is not allowed here",
        ),
        (
            b"D\0\0\0\x01N\0\0",
            "Delete marker at byte 5: 78 is not allowed here",
        ),
        (
            b"I\0\0\0\x01N\0\x01x",
            "TupleData kind at byte 8: 120 is not allowed here",
        ),
        (
            b"I\0\0\0\x01N\0\x01t\0\0\0\x02a",
            "TupleData value at byte 13: 1 bytes are missing",
        ),
        (b"C\x01", "Commit flags at byte 1: 1 is not allowed here"),
        (
            b"R\0\0\0\x01s\0t\0x\0\0",
            "Relation identity at byte 9: 120 is not allowed here",
        ),
        (
            b"R\0\0\0\x01s\0t\0d\xff\xff",
            "Relation columns at byte 10: 65535 is over the limit of 4096",
        ),
        (
            b"R\0\0\0\x01s\0t\0d\0\x01\x02a\0",
            "Relation column flags at byte 12: 2 is not allowed here",
        ),
        (
            b"R\0\0\0\x01\xff\0t\0d\0\0",
            "Relation schema at byte 5: not valid in its character set",
        ),
        (
            b"T\xff\xff\xff\xff\0",
            "Truncate relations at byte 6: 17179869180 bytes are missing",
        ),
        (
            b"T\0\0\0\0\x04",
            "Truncate options at byte 5: 4 is not allowed here",
        ),
        (b"M\x02", "Message flags at byte 1: 2 is not allowed here"),
        (
            b"S\0\0\0\x01\x02",
            "Stream Start first at byte 5: 2 is not allowed here",
        ),
    ] {
        assert_eq!(Message::decode(bytes).unwrap_err().to_string(), error);
    }
}

proptest! {
    #[test]
    fn noise_does_not_panic(
        kind in prop::sample::select(&b"BCORYIUDTMSEcAbPKrpx"[..]),
        rest in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        for message in [Message::decode(&bytes), Message::decode_streamed(&bytes).map(|(_, message)| message)] {
            let tuples = match message {
                Ok(Message::Insert(row)) => vec![row.new],
                Ok(Message::Update(row)) => row.old.map(OldTuple::range).into_iter().chain([row.new]).collect(),
                Ok(Message::Delete(row)) => vec![row.old.range()],
                _ => vec![],
            };
            for range in tuples {
                let mut tuple = Tuple::new(&bytes[range]).unwrap();
                while tuple.next().unwrap().is_some() {}
            }
        }
    }
}
