//! What a change becomes under each replica identity, keys, and unchanged values.

use serde_json::json;

use super::*;

const UNAVAILABLE: &str = "__debezium_unavailable_value";

fn td() -> Arc<Table> {
    table(
        "td",
        &[0],
        &[
            ("id", ColumnType::Integer),
            ("v", ColumnType::Text),
            (
                "big",
                ColumnType::Array(Box::new(protocol::postgres::Array {
                    element: ColumnType::Integer,
                    delimiter: b',',
                })),
            ),
        ],
    )
}

/// `op`, key, before and after of each record; null for a tombstone.
fn story(maker: &Maker) -> Vec<serde_json::Value> {
    let told = |record: &Read| {
        let key = record
            .key
            .as_ref()
            .map(|key| serde_json::from_str::<serde_json::Value>(key).unwrap());
        match record.value {
            None => json!([null, key]),
            Some(_) => {
                let value = record.json();
                json!([value["op"], key, value["before"], value["after"]])
            }
        }
    };
    encode(&maker.batch).iter().map(told).collect()
}

#[test]
fn an_update_that_keeps_the_key_has_no_before() {
    let mut maker = Maker::new();
    maker.update(&td(), Before::Nothing, &[Text("1"), Text("b"), Unchanged]);
    let after = json!({"id": 1, "v": "b", "big": UNAVAILABLE});
    assert_eq!(story(&maker), [json!(["u", {"id": 1}, null, after])]);
}

#[test]
fn a_key_image_of_the_same_key_is_no_change_of_it() {
    let mut maker = Maker::new();
    maker.update(
        &td(),
        Before::Key(&[Text("1"), Null, Null]),
        &[Text("1"), Text("b"), Unchanged],
    );
    let (before, after) = (
        json!({"id": 1, "v": null, "big": null}),
        json!({"id": 1, "v": "b", "big": UNAVAILABLE}),
    );
    assert_eq!(story(&maker), [json!(["u", {"id": 1}, before, after])]);
}

#[test]
fn a_changed_key_leaves_and_arrives() {
    // Keys 1 and 3 stand in the same of three partitions, 2 and 3 do not.
    for old in ["1", "2"] {
        let mut maker = Maker::new();
        maker.update(
            &td(),
            Before::Key(&[Text(old), Null, Null]),
            &[Text("3"), Text("b"), Unchanged],
        );
        let id: u64 = old.parse().unwrap();
        let before = json!({"id": id, "v": null, "big": null});
        let after = json!({"id": 3, "v": "b", "big": UNAVAILABLE});
        let expected = [
            json!(["d", {"id": id}, before, null]),
            json!([null, {"id": id}]),
            json!(["c", {"id": 3}, null, after]),
        ];
        assert_eq!(story(&maker), expected);
        let records = encode(&maker.batch);
        let old_key = format!("{{\"id\":{old}}}");
        assert_eq!(records[0].header("__debezium.newkey"), Some("{\"id\":3}"));
        assert_eq!(records[1].header("__debezium.newkey"), Some("{\"id\":3}"));
        assert_eq!(records[2].header("__debezium.oldkey"), Some(&*old_key));
        assert!(
            records
                .iter()
                .all(|r| r.header("pos") == Some("16/B374D848/0"))
        );
    }
}

#[test]
fn a_delete_has_what_the_replica_identity_sends() {
    let mut maker = Maker::new();
    maker.delete(&td(), Before::Key(&[Text("1"), Null, Null]));
    maker.delete(&td(), Before::Full(&[Text("1"), Text("x"), Text("{1}")]));
    let expected = [
        json!(["d", {"id": 1}, {"id": 1, "v": null, "big": null}, null]),
        json!([null, {"id": 1}]),
        json!(["d", {"id": 1}, {"id": 1, "v": "x", "big": [1]}, null]),
        json!([null, {"id": 1}]),
    ];
    let mut story = story(&maker);
    story.sort_by_key(|line| line.get(2).is_some_and(|before| before["v"] == "x"));
    for line in expected {
        assert!(story.contains(&line), "{line}\n{story:#?}");
    }
}

#[test]
fn unchanged_values_come_from_a_full_image() {
    let mut maker = Maker::new();
    let before = [Text("1"), Text("a"), Text("{1,NULL}")];
    maker.update(
        &td(),
        Before::Full(&before),
        &[Text("1"), Text("b"), Unchanged],
    );
    maker.update(
        &td(),
        Before::Full(&before),
        &[Text("2"), Unchanged, Text("{}")],
    );
    let (first, second) = (
        json!({"id": 1, "v": "a", "big": [1, null]}),
        json!({"id": 1, "v": "b", "big": [1, null]}),
    );
    let story = story(&maker);
    for line in [
        json!(["u", {"id": 1}, first, second]),
        json!(["d", {"id": 1}, first, null]),
        json!(["c", {"id": 2}, null, {"id": 2, "v": "a", "big": []}]),
    ] {
        assert!(story.contains(&line), "{line}\n{story:#?}");
    }
}

#[test]
fn a_key_may_be_stored_out_of_line() {
    let t = table(
        "t",
        &[1, 0],
        &[("a", ColumnType::Text), ("b", ColumnType::Text)],
    );
    let mut maker = Maker::new();
    maker.update(
        &t,
        Before::Key(&[Text("long"), Text("k")]),
        &[Unchanged, Text("k")],
    );
    maker.update(
        &t,
        Before::Key(&[Text("long"), Text("k")]),
        &[Unchanged, Text("l")],
    );
    let (k, l) = (
        json!({"b": "k", "a": "long"}),
        json!({"b": "l", "a": "long"}),
    );
    let story = story(&maker);
    for line in [
        json!(["u", k, {"a": "long", "b": "k"}, {"a": "long", "b": "k"}]),
        json!(["d", k, {"a": "long", "b": "k"}, null]),
        json!(["c", l, null, {"a": "long", "b": "l"}]),
    ] {
        assert!(story.contains(&line), "{line}\n{story:#?}");
    }
    let keys: Vec<_> = encode(&maker.batch)
        .into_iter()
        .filter_map(|record| record.key)
        .collect();
    assert!(
        keys.contains(&"{\"b\":\"l\",\"a\":\"long\"}".to_owned()),
        "{keys:?}"
    );
}

#[test]
fn a_key_outside_of_the_replica_identity_is_refused() {
    let t = table(
        "t",
        &[0],
        &[("id", ColumnType::Integer), ("other", ColumnType::Integer)],
    );
    let mut maker = Maker::new();
    maker.delete(&t, Before::Key(&[Null, Text("5")]));
    let error = encode_with(&maker.batch, settings())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("key column id") && error.contains("REPLICA IDENTITY"),
        "{error}"
    );
}

#[test]
fn a_key_that_is_written_otherwise_is_the_same_key() {
    // Two texts of one instant: the keys are equal as they are written, not as they were sent.
    let t = table("t", &[0], &[("at", ColumnType::TimestampTz { digits: 0 })]);
    let mut maker = Maker::new();
    maker.update(
        &t,
        Before::Full(&[Text("2025-02-17 15:19:39+00")]),
        &[Text("2025-02-17 16:19:39+01")],
    );
    let records = encode(&maker.batch);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].json()["op"], "u");
}

#[test]
fn rows_without_a_key_stay_in_one_partition() {
    let t = table("nopk", &[], &[("a", ColumnType::Integer)]);
    let mut maker = Maker::new();
    for n in ["1", "2", "3", "4"] {
        maker.create(&t, &[Text(n)]);
        maker.update(&t, Before::Full(&[Text(n)]), &[Text("9")]);
        maker.delete(&t, Before::Full(&[Text("9")]));
    }
    let parts = encode_with(&maker.batch, settings()).unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!((parts[0].records, parts[0].changes), (16, 12));
    // murmur2 of `public.nopk`, of three partitions.
    assert_eq!(
        parts[0].partition,
        protocol::kafka::murmur2::partition(b"public.nopk", 3) as i32
    );
}

#[test]
fn a_key_of_the_configuration_needs_a_replica_identity_that_shows_it() {
    let keyed = |columns: &[&str]| EncodeSettings {
        keys: crate::config::Keys::new(&[("public", "td", columns)]),
        ..settings()
    };
    let mut maker = Maker::new();
    maker.update(&td(), Before::Nothing, &[Text("1"), Text("b"), Unchanged]);
    // Nobody says what v was.
    let error = encode_with(&maker.batch, keyed(&["v"])).unwrap_err();
    assert!(
        error.to_string().contains("key column v")
            && error.to_string().contains("REPLICA IDENTITY"),
        "{error}"
    );
    // The identity's columns have not changed.
    assert!(encode_with(&maker.batch, keyed(&["id"])).is_ok());
    let mut maker = Maker::new();
    let old = [Text("1"), Text("a"), Null];
    maker.update(&td(), Before::Full(&old), &[Text("1"), Text("b"), Null]);
    maker.create(&td(), &[Text("2"), Text("c"), Null]);
    let parts = encode_with(&maker.batch, keyed(&["v"])).unwrap();
    let mut keys: Vec<_> = (read(&parts).iter())
        .map(|record| record.key.clone().unwrap())
        .collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            r#"{"v":"a"}"#,
            r#"{"v":"a"}"#,
            r#"{"v":"b"}"#,
            r#"{"v":"c"}"#
        ]
    );
}

/// An update of a table with REPLICA IDENTITY FULL always has an image before, unless it is of a partition with another identity.
#[test]
fn an_update_that_a_full_identity_would_show_is_refused() {
    let of = td();
    let Columns::Postgres(postgres) = &of.columns else {
        panic!("of another source");
    };
    let full = Arc::new(Table {
        version: 2,
        schema: of.schema.clone(),
        name: of.name.clone(),
        key: of.key.clone(),
        columns: Columns::Postgres(Postgres {
            database: postgres.database.clone(),
            columns: postgres.columns.clone(),
            identity: [0, 1, 2].into(),
            is_full: true,
        }),
    });
    let keyed = |columns: &[&str]| EncodeSettings {
        keys: crate::config::Keys::new(&[("public", "td", columns)]),
        ..settings()
    };
    let mut maker = Maker::new();
    maker.update(&full, Before::Nothing, &[Text("1"), Text("b"), Null]);
    let error = encode_with(&maker.batch, keyed(&["v"])).unwrap_err();
    let error = error.to_string();
    for words in ["key column v ", "each of its partitions"] {
        assert!(error.contains(words), "{error}");
    }
    // The table's own key is in any identity but that of another index, which the start looks at.
    assert!(encode_with(&maker.batch, keyed(&["id"])).is_ok());
    assert!(encode_with(&maker.batch, settings()).is_ok());
}
