//! What a SELECT says, turned into what a record must say, by the table of the formats (docs/formats, "Types").

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};
use serde_json::{Value, json};

/// A column as the catalog describes it.
pub(crate) struct Column {
    pub(crate) name: String,
    data_type: String,
    column_type: String,
    charset: Option<String>,
}

/// The columns of a table, in order, and those of its primary key.
pub(crate) async fn columns(
    connection: &mut Conn,
    schema: &str,
    table: &str,
) -> (Vec<Column>, Vec<String>) {
    let query = "SELECT column_name, data_type, column_type, character_set_name FROM information_schema.columns \
                 WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";
    let rows: Vec<(String, String, String, Option<String>)> = connection
        .exec(query, (schema, table))
        .await
        .expect("columns");
    let columns = rows
        .into_iter()
        .map(|(name, data_type, column_type, charset)| Column {
            name,
            data_type,
            column_type,
            charset,
        });
    let query = "SELECT column_name FROM information_schema.statistics \
                 WHERE table_schema = ? AND table_name = ? AND index_name = 'PRIMARY' ORDER BY seq_in_index";
    let key = connection.exec(query, (schema, table)).await.expect("keys");
    (columns.collect(), key)
}

/// Every row of a table, as bytes per column; floats widened, because their text is rounded.
pub(crate) async fn rows(
    connection: &mut Conn,
    schema: &str,
    table: &str,
    columns: &[Column],
) -> Vec<Vec<Option<Vec<u8>>>> {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let expression = |column: &Column| match column.data_type.as_str() {
        "float" => format!("CAST({} AS DOUBLE)", quoted(&column.name)),
        _ => quoted(&column.name),
    };
    let list: Vec<String> = columns.iter().map(expression).collect();
    let query = format!(
        "SELECT {} FROM {}.{}",
        list.join(", "),
        quoted(schema),
        quoted(table)
    );
    let rows: Vec<Row> = connection.query(query).await.expect("rows");
    let bytes = |value: mysql_async::Value| match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) => Some(bytes),
        other => panic!("the text protocol sent {other:?}"),
    };
    rows.into_iter()
        .map(|row| row.unwrap().into_iter().map(bytes).collect())
        .collect()
}

/// What a record says about `cell`.
pub(crate) fn expected(column: &Column, cell: Option<&[u8]>) -> Value {
    let Some(bytes) = cell else {
        return Value::Null;
    };
    let text = || String::from_utf8(bytes.to_vec()).expect("text in UTF-8");
    match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => number(&text()),
        "float" => json!(text().parse::<f64>().expect("a float") as f32),
        "double" => json!(text().parse::<f64>().expect("a double")),
        "decimal" => text().into(),
        "bit" if column.column_type == "bit(1)" => (bytes == [1]).into(),
        "bit" => {
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            BASE64_STANDARD.encode(reversed).into()
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            BASE64_STANDARD.encode(bytes).into()
        }
        "date" => zoned(&text(), false),
        "time" => zoned(&text(), true),
        "datetime" => zoned(&text().replace(' ', "T"), true),
        "timestamp" => zoned(&text().replace(' ', "T"), false),
        "point" => shape(bytes, true),
        "geometry" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => shape(bytes, false),
        // Labels are text whatever their column's character set.
        "enum" | "set" => text().into(),
        "vector" => bytes
            .chunks_exact(4)
            .map(|four| json!(f32::from_le_bytes(four.try_into().expect("4 bytes"))))
            .collect(),
        _ if column.charset.as_deref() == Some("binary") => BASE64_STANDARD.encode(bytes).into(),
        _ => text().into(),
    }
}

/// Whether a record's `found` says what SELECT says. Numbers are compared as such, documents as such.
pub(crate) fn agrees(column: &Column, expected: &Value, found: &Value) -> bool {
    match (column.data_type.as_str(), expected, found) {
        ("float", Value::Number(left), Value::Number(right)) => {
            left.as_f64().map(|left| left as f32) == right.to_string().parse::<f32>().ok()
        }
        ("vector", Value::Array(left), Value::Array(right)) => {
            let narrow = |list: &[Value]| {
                list.iter()
                    .map(|one| one.to_string().parse::<f32>().ok())
                    .collect::<Vec<_>>()
            };
            narrow(left) == narrow(right)
        }
        // DOUBLE(m,d): SELECT rounds to d digits, the binlog holds what arithmetic left.
        ("double", Value::Number(left), Value::Number(right))
            if column.column_type.contains(',') =>
        {
            let both = left.as_f64().zip(right.as_f64());
            both.is_some_and(|(left, right)| (left - right).abs() < 1e-9)
        }
        ("json", Value::String(left), Value::String(right)) => {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
            parsed(left).is_some() && parsed(left) == parsed(right)
        }
        _ => expected == found,
    }
}

fn number(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) => text.parse::<u64>().expect("an integer").into(),
    }
}

/// `Z` at the end, trailing zeros of the fraction cut if `cut`; a date with a zero month or day is null.
fn zoned(text: &str, cut: bool) -> Value {
    if text.get(4..8).is_some_and(|part| part.starts_with("-00")) || text.get(7..10) == Some("-00")
    {
        return Value::Null;
    }
    let text = match cut && text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    };
    format!("{text}Z").into()
}

/// SRID and WKB, as the server keeps them.
fn shape(bytes: &[u8], point: bool) -> Value {
    let (srid, wkb) = bytes.split_at(4);
    let srid = u32::from_le_bytes(srid.try_into().expect("4 bytes"));
    let srid = if srid == 0 { Value::Null } else { srid.into() };
    let coordinate = |at: usize| f64::from_le_bytes(wkb[at..at + 8].try_into().expect("8 bytes"));
    match point {
        true => {
            json!({"x": coordinate(5), "y": coordinate(13), "wkb": BASE64_STANDARD.encode(wkb), "srid": srid})
        }
        false => json!({"wkb": BASE64_STANDARD.encode(wkb), "srid": srid}),
    }
}
