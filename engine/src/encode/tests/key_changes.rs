//! Updates that change the key, deletes and tombstones.

use super::*;

fn events() -> Arc<Table> {
    table("events", &[0], vec![int("id"), varchar("name")])
}

fn row(id: i32, name: &str) -> [Stored; 2] {
    [stored_int(id), stored_text(name)]
}

/// `op` of each record, `-` for a tombstone, with its key.
fn story(records: &[Read]) -> Vec<(String, String)> {
    let told = |record: &Read| {
        let op = record
            .value
            .is_some()
            .then(|| record.json()["op"].as_str().unwrap().to_owned());
        (
            op.unwrap_or("-".into()),
            record.key.clone().unwrap_or_default(),
        )
    };
    records.iter().map(told).collect()
}

fn owned(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(op, key)| ((*op).into(), (*key).into()))
        .collect()
}

#[test]
fn a_changed_key_leaves_and_arrives() {
    // Keys 2 and 3 stand in different partitions of three (the reference shows it), 1 and 3 in the same.
    for (old, expected) in [(2, 2), (1, 1)] {
        let mut maker = Maker::new();
        maker.group(&events());
        maker.row(Some(&row(old, "x")), Some(&row(3, "y")));
        let parts = encode_with(&maker.batch, settings()).unwrap();
        assert_eq!(parts.len(), expected);
        assert_eq!(parts.iter().map(|part| part.changes).sum::<u32>(), 1);
        let records = read(&parts);
        let old_key = format!("{{\"id\":{old}}}");
        let expected = [("d", &*old_key), ("-", &*old_key), ("c", "{\"id\":3}")];
        assert_eq!(story(&records), owned(&expected));
        assert_eq!(records[0].header("__debezium.newkey"), Some("{\"id\":3}"));
        assert_eq!(records[1].header("__debezium.newkey"), Some("{\"id\":3}"));
        assert_eq!(records[2].header("__debezium.oldkey"), Some(&*old_key));
        assert!(records[0].json()["after"].is_null() && records[2].json()["before"].is_null());
        assert_eq!(records[0].json()["before"]["name"], "x");
        assert_eq!(records[2].json()["after"]["name"], "y");
        assert!(
            records
                .iter()
                .all(|record| record.header("pos") == Some("binlog.000002:1000/0"))
        );
    }
}

#[test]
fn tombstones_can_be_left_out() {
    let mut maker = Maker::new();
    maker.group(&events());
    maker.row(Some(&row(1, "x")), None);
    maker.row(Some(&row(1, "x")), Some(&row(3, "y")));
    let quiet = EncodeSettings {
        tombstones: false,
        ..settings()
    };
    let records = read(&encode_with(&maker.batch, quiet).unwrap());
    assert_eq!(
        story(&records),
        owned(&[
            ("d", "{\"id\":1}"),
            ("d", "{\"id\":1}"),
            ("c", "{\"id\":3}")
        ])
    );
    assert_eq!(story(&encode(&maker.batch)).len(), 5);
}

#[test]
fn changes_are_counted_once() {
    let mut maker = Maker::new();
    maker.group(&events());
    for id in 0..100 {
        maker.row(None, Some(&row(id, "x")));
        maker.row(Some(&row(id, "x")), Some(&row(id, "y")));
        maker.row(Some(&row(id, "y")), Some(&row(id + 1000, "y")));
        maker.row(Some(&row(id + 1000, "y")), None);
    }
    let parts = encode_with(&maker.batch, settings()).unwrap();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts.iter().map(|part| part.changes).sum::<u32>(), 400);
    assert_eq!(
        parts.iter().map(|part| part.records).sum::<u32>(),
        100 * (1 + 1 + 3 + 2)
    );
}

#[test]
fn a_partition_holds_the_rows_in_their_order() {
    let mut maker = Maker::new();
    let (first, second) = (events(), table("more", &[], vec![int("id")]));
    for round in 0..20 {
        maker.group(if round % 2 == 0 { &first } else { &second });
        for id in 0..7 {
            let row = row(id, "x");
            maker.row(None, Some(if round % 2 == 0 { &row } else { &row[..1] }));
        }
    }
    let mut last = std::collections::HashMap::new();
    for record in encode(&maker.batch) {
        let pos = record.header("pos").unwrap();
        let number: u64 = pos.rsplit_once('/').unwrap().1.parse().unwrap();
        let before = last.insert((record.topic_id, record.partition), number);
        assert!(before < Some(number));
    }
    // A table without a key stays in one partition.
    assert_eq!(last.keys().filter(|(topic, _)| *topic == 1).count(), 1);
}

#[test]
fn keys_of_the_configuration_count_in_place_of_the_tables_own() {
    let keyed = |columns: &[&str]| EncodeSettings {
        keys: Keys::new(&[("tt", "events", columns)]),
        ..settings()
    };
    let mut maker = Maker::new();
    maker.group(&events());
    maker.row(None, Some(&row(1, "x")));
    // The primary key stays, the configured one does not.
    maker.row(Some(&row(1, "x")), Some(&row(1, "y")));
    maker.row(Some(&row(1, "y")), None);
    let parts = encode_with(&maker.batch, keyed(&["name", "id"])).unwrap();
    let (x, y) = (r#"{"name":"x","id":1}"#, r#"{"name":"y","id":1}"#);
    let mut found = story(&read(&parts));
    let mut expected = owned(&[("c", x), ("d", x), ("-", x), ("c", y), ("d", y), ("-", y)]);
    // Two partitions at most: the order across them is none.
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let route = Route {
        topic: "t".into(),
        topic_id: 0,
        partitions: 3,
    };
    let error = Template::new(events(), route, &keyed(&["name", "nme"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`keys` names column nme of table tt.events, which has id, name at this place of the stream; name columns that it has, or leave \
         the table out of keys for its own key"
    );
}
