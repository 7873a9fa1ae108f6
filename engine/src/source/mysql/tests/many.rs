//! Many thousands of tables in one stream, captured and not: each has its own rows and one version, and memory has an end.

use protocol::mysql::event::{Format, Message};

use super::long::first;
use super::*;
use crate::source::mysql::tables::{Shape, Tables};

/// A TABLE_MAP of `shop.t…` or `aside.t…`, and an INSERT of one row; in no file.
fn statement(template: &[u8], id: u64, table: usize) -> [Vec<u8>; 2] {
    let database: &[u8] = match table % 2 {
        0 => b"shop",
        _ => b"aside",
    };
    let name = format!("t{table}");
    let mut map = id.to_le_bytes()[..6].to_vec();
    map.extend_from_slice(&[1, 0, database.len() as u8]);
    map.extend_from_slice(database);
    map.extend_from_slice(&[0, name.len() as u8]);
    map.extend_from_slice(name.as_bytes());
    // One INT.
    map.extend_from_slice(&[0, 1, 3, 0, 0]);
    let mut rows = id.to_le_bytes()[..6].to_vec();
    rows.extend_from_slice(&[1, 0, 2, 0, 1, 1, 0]);
    rows.extend_from_slice(&(table as u32).to_le_bytes());
    [(Kind::TABLE_MAP, map), (Kind::WRITE_ROWS, rows)]
        .map(|(kind, body)| in_no_file(template, kind, &body))
}

#[test]
fn thousands_of_tables_keep_their_rows_and_versions_apart() {
    const TABLES: usize = 6_000;
    let name = "mysql-9.7-20k";
    let events = events(name);
    let at = first(&events, 0, Kind::TABLE_MAP);
    let mut more = Vec::new();
    // Twice, the second time under other ids and in another order.
    for table in 0..TABLES {
        more.extend(statement(&events[at], 10_000 + table as u64, table));
    }
    for table in (0..TABLES).rev() {
        more.extend(statement(&events[at], 90_000 - table as u64, table));
    }
    let (before, behind) = events.split_at(at);
    let wire = packets(&[before, &more[..], behind].concat(), 1);
    let mut memory = Memory::new(&["shop.*"], 64 << 10);
    for chunk in wire.chunks(9_001) {
        memory.feed(chunk).unwrap();
    }
    let counters = *memory.stream.decoder.counters();
    assert_eq!(counters.rows, TABLES as u64);
    assert_eq!(counters.rows_filtered, 20_000 + TABLES as u64);
    let tables = memory.stream.decoder.tables_mut();
    assert_eq!(tables.remembered().1, TABLES + 1);
    assert_eq!(tables.versions(), TABLES as u64 / 2);
    assert!(memory.full > 3, "{}", memory.full);
    let (changes, _) = memory.finish();
    let numbers = (0..TABLES).chain((0..TABLES).rev());
    let captured = numbers.enumerate().filter(|(_, table)| table % 2 == 0);
    assert_eq!(changes.len(), TABLES);
    for ((row, table), change) in captured.zip(&changes) {
        assert_eq!(change.table, format!("shop.t{table}"));
        let value = (table as u32).to_le_bytes();
        assert_eq!(change.after.as_ref().unwrap()[1..], value);
        let (_, number) = change.position.rsplit_once('/').unwrap();
        assert_eq!(number, row.to_string());
    }
}

#[test]
fn tables_beyond_measure_are_forgotten_between_transactions() {
    let events = events("mysql-9.7-20k");
    let selection = Selection::new(&["shop.*"]).unwrap();
    let mut format = Format::before_description(Checksum::Crc32);
    if let Message::FormatDescription(described) = Message::parse(&format, &events[1]).unwrap().1 {
        format = described;
    }
    let at = first(&events, 0, Kind::TABLE_MAP);
    let mut tables = Tables::default();
    // Ids that grow for ever for the same few tables, then ever new tables.
    for n in 0..140_000_u64 {
        let table = match n < 70_000 {
            true => (n % 10) as usize,
            false => n as usize,
        };
        let [map, _] = statement(&events[at], n, 2 * table + 1);
        let Message::TableMap(map) = Message::parse(&format, &map).unwrap().1 else {
            panic!("no TABLE_MAP");
        };
        assert_eq!(tables.note(&map, &selection).unwrap(), None);
        let entry = tables.entry(n).unwrap();
        assert_eq!(*entry.name, format!("aside.t{}", 2 * table + 1));
        tables.tidy();
        let (ids, entries) = tables.remembered();
        assert!(ids <= 1 << 16 && entries <= 1 << 16, "{ids}, {entries}");
    }
}

#[test]
fn of_tables_that_are_not_captured_no_texts_are_kept() {
    for name in ["mysql-9.7-types", "mysql-9.7-20k"] {
        let events = events(name);
        let mut memory = Memory::new(&["nothing.*"], 1 << 20);
        memory.feed(&packets(&events, 1)).unwrap();
        let ids = events.iter().filter(|event| event[4] == Kind::TABLE_MAP.0);
        let ids: Vec<u64> = ids
            .map(|event| {
                let mut id = [0; 8];
                id[..6].copy_from_slice(&event[19..25]);
                u64::from_le_bytes(id)
            })
            .collect();
        let tables = memory.stream.decoder.tables_mut();
        let mut columns = 0;
        for id in ids {
            let Some(entry) = tables.entry(id) else {
                continue;
            };
            assert!(matches!(entry.shape, Shape::Excluded(_)), "{}", entry.name);
            for column in entry.columns() {
                columns += 1;
                assert_eq!(&*column.name, "", "{}", entry.name);
                if let ColumnType::Enum { labels, .. } | ColumnType::Set { labels, .. } =
                    &column.kind
                {
                    assert!(labels.is_empty(), "{}", entry.name);
                }
            }
        }
        assert!(columns > 0, "{name}");
    }
}
