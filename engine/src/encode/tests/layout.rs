//! What stands around the rows: envelope, headers, and columns that the server did not send.

use super::*;

#[test]
fn a_record_is_exactly_this() {
    let mut maker = Maker::new();
    maker.group(&table("t", &[0], vec![int("id"), varchar("na\"me")]));
    maker.row(None, Some(&[stored_int(1), None]));
    let records = encode(&maker.batch);
    assert_eq!(
        records[0].value.as_deref().unwrap(),
        concat!(
            r#"{"before":null,"after":{"id":1,"na\"me":null},"source":{"version":"3.1.3.Final","connector":"mysql","name":"tmy","#,
            r#""ts_ms":1795253701114,"snapshot":"false","db":"tt","sequence":null,"ts_us":1795253701114918,"#,
            r#""ts_ns":1795253701114918000,"table":"t","server_id":5302,"#,
            r#""gtid":"a6255251-e58c-11f1-8263-02fc00000001:2709","file":"binlog.000002","pos":2000,"row":0,"thread":34,"query":null},"#,
            r#""transaction":null,"op":"c","ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#
        )
    );
    assert_eq!(records[0].key.as_deref(), Some("{\"id\":1}"));
    assert_eq!(records[0].timestamp, 1_795_253_701_178);
    let headers = [
        ("pos", "binlog.000002:1000/0"),
        ("gtid", "a6255251-e58c-11f1-8263-02fc00000001:2709"),
    ];
    assert_eq!(
        records[0].headers,
        headers.map(|(name, value)| (name.into(), value.into()))
    );
}

#[test]
fn without_gtid_the_header_seconds_count() {
    let mut maker = Maker::new();
    let transaction = &mut maker.batch.transactions[0];
    (transaction.gtid, transaction.commit_us, transaction.thread) = (Span::NONE, None, None);
    maker.group(&table("t", &[0], vec![int("id")]));
    maker.row(None, Some(&[stored_int(1)]));
    let records = encode(&maker.batch);
    assert_eq!(records[0].header("gtid"), None);
    let source = &records[0].json()["source"];
    assert_eq!(source["ts_ns"], 1_795_253_701_000_000_000_u64);
    assert!(source["gtid"].is_null() && source["thread"].is_null());
}

#[test]
fn rows_groups_and_transactions_are_told_apart() {
    let mut maker = Maker::new();
    let table = table("t", &[0], vec![int("id")]);
    maker.group(&table);
    maker.row(None, Some(&[stored_int(1)]));
    maker.row(None, Some(&[stored_int(2)]));
    let query = maker.bytes("INSERT INTO t VALUES ('é\n')".as_bytes());
    maker.group(&table).query = query;
    maker.row(None, Some(&[stored_int(3)]));
    let mut next = maker.batch.transactions[0];
    (next.offset, next.commit_us, next.thread) = (5000, Some(7), Some(35));
    maker.batch.transactions.push(next);
    // Rows 0 to 99 of this transaction came in an earlier batch.
    maker.group(&table).first_row = 100;
    maker.row(None, Some(&[stored_int(4)]));
    let mut records = encode(&maker.batch);
    records.sort_by(|a, b| a.key.cmp(&b.key));
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let source = &record.json()["source"];
            let number = |name: &str| source[name].as_u64().unwrap();
            let query = source["query"].as_str().map(str::to_owned);
            let pos = record.header("pos").unwrap().to_owned();
            (
                pos,
                number("pos"),
                number("row"),
                number("thread"),
                number("ts_us"),
                query,
            )
        })
        .collect();
    let us = 1_795_253_701_114_918;
    let pos = |text: &str| format!("binlog.000002:{text}");
    let query = Some("INSERT INTO t VALUES ('é\n')".to_owned());
    assert_eq!(
        told,
        [
            (pos("1000/0"), 2000, 0, 34, us, None),
            (pos("1000/1"), 2000, 1, 34, us, None),
            (pos("1000/2"), 2002, 0, 34, us, query),
            (pos("5000/100"), 2003, 0, 35, 7, None),
        ]
    );
}

#[test]
fn columns_that_the_server_does_not_send() {
    let columns = vec![int("id"), varchar("a"), varchar("b"), varchar("c")];
    let table = table("t", &[0], columns);
    let mut maker = Maker::new();
    // binlog_row_image=MINIMAL: the key before, what changed after.
    maker.group_of(&table, &bitmap(4, [0]), &bitmap(4, [2]));
    maker.row(Some(&[stored_int(1)]), Some(&[stored_text("new")]));
    maker.row(Some(&[stored_int(1)]), Some(&[None]));
    maker.row(Some(&[stored_int(1)]), None);
    // NOBLOB: everything but an unchanged blob.
    maker.group_of(&table, &bitmap(4, [0, 1, 2]), &bitmap(4, [0, 1, 2]));
    let row = [stored_int(1), stored_text("x"), stored_text("y")];
    maker.row(Some(&row), Some(&row));
    // The key itself changes.
    maker.group_of(&table, &bitmap(4, [0]), &bitmap(4, [0]));
    maker.row(Some(&[stored_int(1)]), Some(&[stored_int(3)]));
    let records = encode(&maker.batch);
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let json = record.value.as_ref().map(|_| record.json());
            let part = |name: &str| json.as_ref().map(|json| json[name].to_string());
            (
                part("before").unwrap_or_default(),
                part("after").unwrap_or_default(),
                record.header("unchanged").unwrap_or("-").to_owned(),
            )
        })
        .collect();
    let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let key_only = r#"{"a":null,"b":null,"c":null,"id":1}"#;
    let all = r#"["a","b","c"]"#;
    assert_eq!(
        told,
        [
            row(
                key_only,
                r#"{"a":null,"b":"new","c":null,"id":1}"#,
                r#"["a","c"]"#
            ),
            row(key_only, key_only, r#"["a","c"]"#),
            row(key_only, "null", all),
            row("", "", "-"),
            row(
                r#"{"a":"x","b":"y","c":null,"id":1}"#,
                r#"{"a":"x","b":"y","c":null,"id":1}"#,
                r#"["c"]"#
            ),
            row(key_only, "null", all),
            row("", "", "-"),
            row("null", r#"{"a":null,"b":null,"c":null,"id":3}"#, all),
        ]
    );
    assert!(records.iter().all(|record| record.key.is_some()));
}

/// MariaDB's `binlog_row_image=FULL_NODUP`: everything before, what changed after.
#[test]
fn columns_that_are_sent_once_are_in_both_images() {
    let table = table("t", &[0], vec![int("id"), varchar("a"), varchar("b")]);
    let mut maker = Maker::new();
    maker.group_of(&table, &bitmap(3, [0, 1, 2]), &bitmap(3, [1]));
    let row = [stored_int(1), stored_text("x"), stored_text("y")];
    maker.row(Some(&row), Some(&[stored_text("new")]));
    maker.row(Some(&row), Some(&[None]));
    // The key itself changes.
    maker.group_of(&table, &bitmap(3, [0, 1, 2]), &bitmap(3, [0]));
    maker.row(Some(&row), Some(&[stored_int(3)]));
    let records = encode(&maker.batch);
    let told: Vec<_> = (records.iter())
        .filter(|record| record.value.is_some())
        .map(|record| {
            assert_eq!(record.header("unchanged"), None);
            record.json()["after"].to_string()
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"{"a":"new","b":"y","id":1}"#,
            r#"{"a":null,"b":"y","id":1}"#,
            "null",
            r#"{"a":"x","b":"y","id":3}"#,
        ]
    );
}

/// MariaDB's hashes of unique indices: at the table's end, in every image, and without a name.
#[test]
fn columns_of_the_server_itself_are_passed_over() {
    let hash = column("", ColumnType::BigInt { unsigned: true });
    let table = table("t", &[0], vec![int("id"), varchar("a"), hash.clone(), hash]);
    let stored = |id, a, hash: Option<u64>| {
        let hash = hash.map(|hash| hash.to_le_bytes().to_vec());
        [stored_int(id), stored_text(a), hash.clone(), hash]
    };
    let mut maker = Maker::new();
    maker.group(&table);
    maker.row(None, Some(&stored(1, "x", Some(7))));
    let (old, new) = (stored(1, "x", Some(7)), stored(1, "y", None));
    maker.row(Some(&old), Some(&new));
    // binlog_row_image=MINIMAL, of which the hash is a part or not.
    maker.group_of(&table, &bitmap(4, [0]), &bitmap(4, [1, 3]));
    maker.row(Some(&old[..1]), Some(&[stored_text("z"), old[3].clone()]));
    maker.group_of(&table, &bitmap(4, [0, 2]), &bitmap(4, [1]));
    let after = [stored_text("z")];
    maker.row(Some(&[stored_int(1), old[2].clone()]), Some(&after));
    maker.group_of(&table, &bitmap(4, [0]), &bitmap(4, [2]));
    maker.row(Some(&old[..1]), Some(&old[2..3]));
    let records = encode(&maker.batch);
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let json = record.json();
            assert_eq!(record.key.as_deref(), Some("{\"id\":1}"));
            (
                json["before"].to_string(),
                json["after"].to_string(),
                record.header("unchanged").unwrap_or("-").to_owned(),
            )
        })
        .collect();
    let row = |before: &str, after: &str, unchanged: &str| {
        (before.to_owned(), after.to_owned(), unchanged.to_owned())
    };
    let (x, z) = (r#"{"a":"x","id":1}"#, r#"{"a":"z","id":1}"#);
    let key_only = r#"{"a":null,"id":1}"#;
    assert_eq!(
        told,
        [
            row("null", x, "-"),
            row(x, r#"{"a":"y","id":1}"#, "-"),
            row(key_only, z, "-"),
            row(key_only, z, "-"),
            row(key_only, key_only, r#"["a"]"#),
        ]
    );
}

/// `binlog_row_value_options=PARTIAL_JSON` with `binlog_row_image=MINIMAL`.
#[test]
fn a_json_diff_without_the_value_before_is_an_error() {
    let json = column("doc", ColumnType::Json { length_bytes: 4 });
    let table = table("t", &[0], vec![int("id"), json]);
    let mut maker = Maker::new();
    (maker.group_of(&table, &bitmap(2, [0]), &bitmap(2, [1]))).partial_json = true;
    maker.row(Some(&[stored_int(1)]), Some(&[]));
    // Options, which columns are diffs, which are NULL; a length, and the diff: the member `a` is removed.
    let after = maker.bytes(&[&[1, 1, 0, 5, 0, 0, 0, 2, 3][..], b"$.a"].concat());
    maker.batch.events[0].after = after;
    let error = encode_with(&maker.batch, settings()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table tt.t at binlog.000002:1000/0: column doc: a partial JSON update without the value before; set \
         binlog_row_value_options='' or binlog_row_image=FULL on the server, reconnect the sessions that write, repeat the change or \
         take a new snapshot, and go on behind what was written before by `walbrook position set`"
    );
}

#[test]
fn a_key_that_no_image_holds_is_an_error() {
    let mut maker = Maker::new();
    maker.group_of(
        &table("t", &[0], vec![int("id"), int("n")]),
        &bitmap(2, [1]),
        &bitmap(2, [1]),
    );
    maker.row(Some(&[stored_int(1)]), Some(&[stored_int(2)]));
    let error = encode_with(&maker.batch, settings()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table tt.t at binlog.000002:1000/0: key column id is in neither row image; set binlog_row_image=FULL on the server, \
         reconnect the sessions that write, repeat the change or take a new snapshot, and go on behind what was written before by \
         `walbrook position set`"
    );
}

#[test]
fn tables_of_one_topic_share_its_partitions() {
    let mut maker = Maker::new();
    let (a, b) = (
        table("a", &[0], vec![int("id")]),
        table("b", &[0], vec![int("id")]),
    );
    for id in 0..50 {
        maker.group(if id % 2 == 0 { &a } else { &b });
        maker.row(None, Some(&[stored_int(id)]));
    }
    let settings = settings();
    let route = |partitions| Route {
        topic: "all".into(),
        topic_id: 9,
        partitions,
    };
    // The second version was made after the topic had grown.
    let templates = [
        Template::new(a, route(2), &settings).unwrap(),
        Template::new(b, route(3), &settings).unwrap(),
    ];
    let parts = Encoder::new(Arc::new(settings))
        .encode(&maker.batch, &templates, None, NOW)
        .unwrap();
    let mut places: Vec<_> = parts
        .iter()
        .map(|part| (part.topic_id, part.partition))
        .collect();
    places.sort_unstable();
    assert_eq!(places, [(9, 0), (9, 1), (9, 2)]);
}
