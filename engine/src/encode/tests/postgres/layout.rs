//! What stands around the rows: envelope, headers, and what errors name.

use super::*;

#[test]
fn a_record_is_exactly_this() {
    let mut maker = Maker::new();
    let t = table(
        "t",
        &[0],
        &[("id", ColumnType::Integer), ("na\"me", ColumnType::Text)],
    );
    maker.create(&t, &[Text("1"), Null]);
    maker.create(&t, &[Text("2"), Null]);
    let records = encode(&maker.batch);
    let first = records
        .iter()
        .find(|r| r.key.as_deref() == Some("{\"id\":1}"))
        .unwrap();
    assert_eq!(
        first.value.as_deref().unwrap(),
        concat!(
            r#"{"before":null,"after":{"id":1,"na\"me":null},"source":{"version":"3.1.3.Final","connector":"postgresql","name":"tpg","#,
            r#""ts_ms":1795253701114,"snapshot":"false","db":"tt","sequence":"[\"36529000\",\"1000\"]","ts_us":1795253701114918,"#,
            r#""ts_ns":1795253701114918000,"schema":"public","table":"t","txId":802,"lsn":1000,"xmin":null},"transaction":null,"op":"c","#,
            r#""ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#
        )
    );
    assert_eq!(first.timestamp, 1_795_253_701_178);
    assert_eq!(
        first.headers,
        [("pos".to_owned(), "16/B374D848/0".to_owned())]
    );
    let second = records
        .iter()
        .find(|r| r.key.as_deref() == Some("{\"id\":2}"))
        .unwrap();
    let source = &second.json()["source"];
    assert_eq!(source["lsn"], 1100);
    assert_eq!(source["sequence"], "[\"36529000\",\"1100\"]");
    assert_eq!(second.header("pos"), Some("16/B374D848/1"));
}

#[test]
fn a_truncate_is_exactly_this() {
    let mut maker = Maker::new();
    let t = table("t", &[0], &[("id", ColumnType::Integer)]);
    maker.create(&t, &[Text("1")]);
    maker.truncate(&t);
    let records = encode(&maker.batch);
    let truncate = records.iter().find(|r| r.key.is_none()).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(
        truncate.value.as_deref().unwrap(),
        concat!(
            r#"{"before":null,"after":null,"source":{"version":"3.1.3.Final","connector":"postgresql","name":"tpg","#,
            r#""ts_ms":1795253701114,"snapshot":"false","db":"tt","sequence":"[\"36529000\",\"1100\"]","ts_us":1795253701114918,"#,
            r#""ts_ns":1795253701114918000,"schema":"public","table":"t","txId":802,"lsn":1100,"xmin":null},"transaction":null,"op":"t","#,
            r#""ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#
        )
    );
    assert_eq!(
        truncate.headers,
        [("pos".to_owned(), "16/B374D848/1".to_owned())]
    );
}

#[test]
fn what_the_stream_has_not_said_is_null() {
    let mut maker = Maker::new();
    let transaction = &mut maker.batch.transactions[0];
    (transaction.xid, transaction.previous_commit) = (None, None);
    maker.create(
        &table("t", &[], &[("a", ColumnType::Integer)]),
        &[Text("1")],
    );
    let record = &encode(&maker.batch)[0];
    assert_eq!(record.json()["source"]["sequence"], "[null,\"1000\"]");
    assert!(record.json()["source"]["txId"].is_null());
    assert_eq!(record.key, None);
}

#[test]
fn transactions_of_one_batch_have_their_own_places() {
    let mut maker = Maker::new();
    let t = table("t", &[], &[("a", ColumnType::Integer)]);
    maker.create(&t, &[Text("1")]);
    maker.create(&t, &[Text("2")]);
    let mut second = maker.batch.transactions[0];
    (second.offset, second.xid, second.commit_us) = (0x17_0000_0000, Some(803), Some(5_000));
    second.previous_commit = Some(COMMIT.0);
    maker.batch.transactions.push(second);
    maker.batch.groups[1].transaction = 1;
    maker.batch.groups[1].first_row = 0;
    let records = encode(&maker.batch);
    assert_eq!(records[0].header("pos"), Some("16/B374D848/0"));
    assert_eq!(records[1].header("pos"), Some("17/0/0"));
    let source = &records[1].json()["source"];
    assert_eq!(
        (&source["txId"], &source["ts_us"]),
        (&803.into(), &5_000.into())
    );
    assert_eq!(source["sequence"], format!("[\"{}\",\"1100\"]", COMMIT.0));
}

#[test]
fn a_table_without_columns_is_an_empty_object() {
    let mut maker = Maker::new();
    maker.create(&table("t", &[], &[]), &[]);
    assert_eq!(
        encode(&maker.batch)[0].json()["after"],
        serde_json::json!({})
    );
}

#[test]
fn errors_name_table_place_and_column() {
    let t = table(
        "t",
        &[0],
        &[("id", ColumnType::Integer), ("at", ColumnType::Timestamp)],
    );
    let failed = |cells: &[Cell<'_>]| {
        let mut maker = Maker::new();
        maker.create(&t, &[Text("1"), Null]);
        maker.create(&t, cells);
        encode_with(&maker.batch, settings())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        failed(&[Text("2"), Text("17/02/2025")]),
        "table public.t at 16/B374D848/1: column at: timestamp at byte 2: 47 is not allowed here"
    );
    assert_eq!(
        failed(&[Text("2"), Binary(&[1])]),
        "table public.t at 16/B374D848/1: column at: the server sent a binary value; start replication without the option binary"
    );
    let missing = failed(&[Text("2")]);
    assert!(missing.contains("TupleData columns"), "{missing}");
    let key = failed(&[Unchanged, Null]);
    assert!(
        key.contains("key column id") && key.contains("REPLICA IDENTITY FULL"),
        "{key}"
    );
    let key = failed(&[Text("1.5"), Null]);
    assert!(key.contains("column id: integer at byte 1"), "{key}");
}

#[test]
fn a_row_without_an_lsn_is_refused() {
    let mut maker = Maker::new();
    maker.create(
        &table("t", &[], &[("a", ColumnType::Integer)]),
        &[Text("1")],
    );
    maker.batch.lsns.clear();
    assert!(encode_with(&maker.batch, settings()).is_err());
}
