//! Event decoding: kinds, checksums, damage.

use super::*;
use crate::mysql::statement::Statement;

/// An event of `kind` with `body` and a right checksum.
fn event(kind: Kind, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_LENGTH + body.len() + 4) as u32;
    let mut bytes = 1_700_000_000_u32.to_le_bytes().to_vec();
    bytes.push(kind.0);
    bytes.extend(7_u32.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(1234_u32.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend_from_slice(body);
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// The same event of a server with `binlog_checksum=NONE`.
fn unchecked(kind: Kind, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = event(kind, flags, body);
    bytes.truncate(HEADER_LENGTH + body.len());
    let length = bytes.len() as u32;
    bytes[9..13].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn format() -> Format {
    Format::before_description(Checksum::Crc32)
}

/// Reads an event of `kind` with and without a checksum: the same both times.
fn parse_both(kind: Kind, flags: u16, body: &[u8], look: impl Fn(Message<'_>)) {
    for (format, bytes) in [
        (format(), event(kind, flags, body)),
        (
            Format::before_description(Checksum::Off),
            unchecked(kind, flags, body),
        ),
    ] {
        let (header, message) = Message::parse(&format, &bytes)
            .unwrap_or_else(|error| panic!("{kind}, {:?}: {error}", format.checksum));
        assert_eq!((header.kind, header.flags), (kind, flags));
        assert_eq!(header.length as usize, bytes.len(), "{kind}");
        look(message);
    }
    // The end of a body does not pass for a checksum.
    Message::parse(&format(), &unchecked(kind, flags, body)).unwrap_err();
    // Every byte counts where there is a checksum, also of what is not looked into.
    let bytes = event(kind, flags, body);
    for at in HEADER_LENGTH..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let error = Message::parse(&format(), &damaged).unwrap_err();
        let is_checksum = matches!(error.kind, DecodeErrorKind::Checksum { .. });
        assert!(is_checksum && error.what == kind.name(), "{kind}: {error}");
    }
}

#[test]
fn a_rotate_and_every_byte_of_it_flipped() {
    let bytes = event(
        Kind::ROTATE,
        FLAG_ARTIFICIAL,
        b"\x04\0\0\0\0\0\0\0binlog.000002",
    );
    let (header, message) = Message::parse(&format(), &bytes).unwrap();
    assert_eq!(header.server_id, 7);
    let expected = Rotate {
        artificial: true,
        position: 4,
        file: "binlog.000002",
    };
    assert_eq!(message, Message::Rotate(expected));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            Message::parse(&format(), &damaged).unwrap_err();
        }
    }
    for cut in 0..bytes.len() {
        Message::parse(&format(), &bytes[..cut]).unwrap_err();
    }
}

#[test]
fn unknown_events_pass_only_with_the_ignorable_flag() {
    // 43 and 172 are the first that MySQL and MariaDB have not given away.
    for number in [43, 99, 172, 255] {
        let kind = Kind(number);
        let expect = |message: Message<'_>| assert_eq!(message, Message::Ignorable, "{kind}");
        parse_both(kind, FLAG_IGNORABLE, b"x", expect);
        let unsupported = DecodeErrorKind::Unsupported {
            value: number.into(),
        };
        let error = Message::parse(&format(), &event(kind, 0, b"x")).unwrap_err();
        assert_eq!(error.kind, unsupported);
        let plain = Format::before_description(Checksum::Off);
        // Another flag is not this one.
        let bytes = unchecked(kind, !FLAG_IGNORABLE, b"x");
        let error = Message::parse(&plain, &bytes).unwrap_err();
        assert_eq!(error.kind, unsupported);
    }
    for flags in [0, FLAG_IGNORABLE] {
        let expect = |message: Message<'_>| assert_eq!(message, Message::Ignorable);
        parse_both(Kind::IGNORABLE, flags, b"anything", expect);
    }
}

/// Bodies written by hand from the servers' writers: `Intvar_event` and its neighbours in MySQL's `statement_events.h`,
/// `load_data_events.h` and `control_events.h`, MariaDB's `sql/log_event_server.cc`.
#[test]
fn events_that_bring_no_rows_are_known_by_their_kind() {
    // One source, with the interval 1..=5: the end is the first number behind it.
    let mut executed = 1_u64.to_le_bytes().to_vec();
    executed.extend([0x3e; 16]);
    executed.extend([1_u64, 1, 6].into_iter().flat_map(u64::to_le_bytes));
    // View id in 40 bytes, sequence number, no certification info.
    let mut view = b"17000000000000000:3".to_vec();
    view.resize(40, 0);
    view.extend(3_u64.to_le_bytes());
    view.extend(0_u32.to_le_bytes());
    // Lengths and counts (uuid, thread, whether the GTID is specified, snapshot, writes, reads), then uuid and write set.
    let mut context = b"\x24\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    context.extend(b"3e11fa47-71ca-11e1-9e33-c80aa9429562");
    context.extend(b"\x08\0digestof");
    // A BIGINT of a variable `v`, in the collation 63, not unsigned; and NULL of `n`.
    let variable = b"\x01\0\0\0v\0\x02\x3f\0\0\0\x08\0\0\0\x2a\0\0\0\0\0\0\0\0";
    let statement = Message::StatementContext;
    for (kind, body, expected) in [
        (
            Kind::INTVAR,
            &b"\x02\x07\0\0\0\0\0\0\0"[..],
            statement.clone(),
        ),
        (
            Kind::RAND,
            b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
            statement.clone(),
        ),
        (Kind::USER_VAR, variable, statement.clone()),
        (Kind::USER_VAR, b"\x01\0\0\0n\x01", statement.clone()),
        (
            Kind::BEGIN_LOAD_QUERY,
            b"\x09\0\0\x001,one\n",
            statement.clone(),
        ),
        (
            Kind::APPEND_BLOCK,
            b"\x09\0\0\x002,two\n",
            statement.clone(),
        ),
        (Kind::DELETE_FILE, b"\x09\0\0\0", statement),
        (Kind::STOP, b"", Message::Stop),
        (
            Kind::START_ENCRYPTION,
            b"\x01\x01\0\0\0noncenonce12",
            Message::StartEncryption,
        ),
        (
            Kind::BINLOG_CHECKPOINT,
            b"\x0d\0\0\0binlog.000007",
            Message::BinlogCheckpoint(b"binlog.000007"),
        ),
        (
            Kind::PREVIOUS_GTIDS,
            &executed,
            Message::PreviousGtids(&executed),
        ),
        (Kind::VIEW_CHANGE, &view, Message::GroupReplication),
        (
            Kind::TRANSACTION_CONTEXT,
            &context,
            Message::GroupReplication,
        ),
    ] {
        parse_both(kind, 0, body, |message| {
            assert_eq!(message, expected, "{kind}");
        });
    }
    // A name that is said to be longer than the event.
    let bytes = unchecked(Kind::BINLOG_CHECKPOINT, 0, b"\x0e\0\0\0binlog.000007");
    let plain = Format::before_description(Checksum::Off);
    Message::parse(&plain, &bytes).unwrap_err();
}

#[test]
fn a_load_data_is_a_statement_with_a_file() {
    let statement = b"LOAD DATA INFILE 'x' INTO TABLE `t` FIELDS TERMINATED BY ','";
    // Session 5, 2 s, database of 4 bytes, no error, no status; file 9, whose name stands at 17..20 of the statement.
    let mut body = b"\x05\0\0\0\x02\0\0\0\x04\0\0\0\0\x09\0\0\0\x11\0\0\0\x14\0\0\0\0".to_vec();
    body.extend_from_slice(b"shop\0");
    body.extend_from_slice(statement);
    parse_both(Kind::EXECUTE_LOAD_QUERY, 0, &body, |message| {
        let Message::ExecuteLoadQuery(load) = message else {
            panic!("not an EXECUTE_LOAD_QUERY: {message:?}");
        };
        let query = load.query;
        assert_eq!((load.file_id, query.thread, query.seconds), (9, 5, 2));
        assert_eq!((query.database, query.error), (&b"shop"[..], 0));
        assert_eq!(query.statement, statement);
        let said = query.recognise();
        let Statement::Dml { tables, .. } = &said else {
            panic!("not taken for a change: {said:?}");
        };
        assert_eq!(tables.named[0].table, "t");
    });
    // Cut within its own post-header and within the database.
    let plain = Format::before_description(Checksum::Off);
    for length in [0, 12, 25, 28] {
        let cut = unchecked(Kind::EXECUTE_LOAD_QUERY, 0, &body[..length]);
        Message::parse(&plain, &cut).unwrap_err();
    }
}

#[test]
fn a_wide_heartbeat() {
    let mut body = b"\x01\x06binlog\x02\x09\xfe".to_vec();
    body.extend((5_u64 << 32).to_le_bytes());
    body.push(0);
    let bytes = event(Kind::HEARTBEAT_V2, 0, &body);
    let expected = Heartbeat {
        file: "binlog",
        position: 5 << 32,
        wide: true,
    };
    assert_eq!(
        Message::parse(&format(), &bytes).unwrap().1,
        Message::Heartbeat(expected)
    );
}

#[test]
fn a_heartbeat_of_mariadb_beyond_4_gib() {
    let mut mariadb = format();
    mariadb.mariadb = true;
    for (position, next, body) in [
        (5_u64 << 32, 0, &b"\0\0\0\0\x05\0\0\0binlog.000001"[..]),
        (4711, 4711, b"binlog.000001"),
    ] {
        let mut bytes = event(Kind::HEARTBEAT, 0, body);
        bytes[13..17].copy_from_slice(&u32::to_le_bytes(next));
        bytes.truncate(bytes.len() - 4);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let expected = Heartbeat {
            file: "binlog.000001",
            position,
            wide: next == 0,
        };
        let (_, message) = Message::parse(&mariadb, &bytes).unwrap();
        assert_eq!(message, Message::Heartbeat(expected));
    }
}

#[test]
fn an_xid_and_an_xa_prepare() {
    let bytes = event(Kind::XID, 0, &77_u64.to_le_bytes());
    assert_eq!(
        Message::parse(&format(), &bytes).unwrap().1,
        Message::Xid(77)
    );
    let body = b"\0\x01\0\0\0\x02\0\0\0\x01\0\0\0ggb";
    let bytes = event(Kind::XA_PREPARE, 0, body);
    let Message::XaPrepare(xa) = Message::parse(&format(), &bytes).unwrap().1 else {
        panic!("not an XA_PREPARE");
    };
    assert_eq!(
        (xa.global, xa.branch, xa.one_phase),
        (&b"gg"[..], &b"b"[..], false)
    );
}

/// A QUERY of the database `d` with these status variables.
fn query(status: &[u8], statement: &[u8]) -> Vec<u8> {
    let mut body = b"\x06\0\0\0\0\0\0\0\x01\0\0".to_vec();
    body.extend((status.len() as u16).to_le_bytes());
    body.extend_from_slice(status);
    body.extend_from_slice(b"d\0");
    body.extend_from_slice(statement);
    event(Kind::QUERY, 0, &body)
}

#[test]
fn of_an_alter_in_two_phases_only_the_commit_changes_the_table() {
    let statement = b"alter table t add column c int";
    for (status, phase) in [
        (&b"\x82\x02"[..], Some(AlterPhase::Start)),
        (b"\x82\x04\x01\0\0\0\0\0\0\0", Some(AlterPhase::Commit)),
        // With the XID of the DDL in front, as MariaDB 10.11 writes it.
        (
            b"\x81\x0b\0\0\0\0\0\0\0\x82\x04\x04\x03\x02\x01\x04\x03\x02\x01",
            Some(AlterPhase::Commit),
        ),
        (b"\x82\x08\x07\0\0\0\0\0\0\0", Some(AlterPhase::Rollback)),
        (b"", None),
    ] {
        let bytes = query(status, statement);
        let (_, message) = Message::parse(&format(), &bytes).unwrap();
        let Message::Query(query) = message else {
            panic!("not a QUERY: {message:?}");
        };
        assert_eq!(
            (query.phase, query.statement),
            (phase, &statement[..]),
            "{status:x?}"
        );
        let changes = !matches!(phase, Some(AlterPhase::Start | AlterPhase::Rollback));
        let said = query.recognise();
        assert_eq!(
            matches!(said, Statement::Ddl { verb: "ALTER", .. }),
            changes,
            "{status:x?}: {said:?}"
        );
        assert_eq!(said == Statement::Other, !changes, "{status:x?}: {said:?}");
    }
    // Cut where the number should be.
    for status in [&b"\x82"[..], b"\x82\x04\x01\0\0", b"\x82\x08"] {
        Message::parse(&format(), &query(status, statement)).unwrap_err();
    }
}

#[test]
fn a_statement_is_read_by_the_sql_mode_of_its_session() {
    let statement = br"CREATE TABLE x (a INT) COMMENT='C:\\' SELECT 1 AS a -- '";
    let open = br"CREATE TABLE x (a INT) COMMENT='C:\' SELECT 1 AS a";
    for (mode, statement, expected) in [
        (0_u64, &statement[..], true),
        (0x10_0000, statement, true),
        (0, open, false),
        (0x10_0000, open, true),
    ] {
        let mut status = vec![1];
        status.extend(mode.to_le_bytes());
        let bytes = query(&status, statement);
        let (_, message) = Message::parse(&format(), &bytes).unwrap();
        let Message::Query(query) = message else {
            panic!("not a QUERY: {message:?}");
        };
        let Statement::Ddl { writes_rows, .. } = query.recognise() else {
            panic!("no DDL: {query:?}");
        };
        assert_eq!(writes_rows, expected, "{mode:x} {}", query.text());
    }
}

#[test]
fn a_character_set_stands_also_behind_collations_of_character_sets() {
    // MariaDB 11.5: utf8mb3 and utf8mb4 have these collations in the session, whose client writes latin1.
    let status = b"\x83\x02\x21\0\x33\x09\x2d\0\x30\x09\x04\x08\0\x08\0\x2d\0";
    let bytes = query(status, b"DROP TABLE `\xfc`");
    let (_, message) = Message::parse(&format(), &bytes).unwrap();
    let Message::Query(query) = message else {
        panic!("not a QUERY: {message:?}");
    };
    assert_eq!(query.text(), "DROP TABLE `ü`");
}
