//! What a SELECT of PostgreSQL says, turned into what a record must say, by the table of the formats (docs/formats, "Types").
//!
//! Cells are what the types' output functions write in a session whose intervals are in ISO 8601. Nothing here shares code with
//! the engine: arrays and hstore are taken apart by parsers of this file.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value, json};
use tokio_postgres::{Client, SimpleQueryMessage};

/// A type as `pg_type` has it.
#[derive(Clone, Debug)]
struct Type {
    name: String,
    kind: String,
    base: u32,
    modifier: i32,
    element: u32,
    is_array: bool,
    delimiter: char,
}

/// Every type by OID.
pub(crate) struct Types(HashMap<u32, Type>);

/// A column with its type.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    of: u32,
    modifier: i32,
}

/// A table to compare.
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Names of the primary key's columns.
    pub(crate) key: Vec<String>,
    partitioned: bool,
}

type Row = Vec<Option<String>>;

/// Runs a statement and answers its rows as text.
async fn rows(client: &Client, sql: &str) -> Vec<Row> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        (0..row.len())
            .map(|at| row.get(at).map(str::to_owned))
            .collect()
    })
    .collect()
}

fn cell<T: std::str::FromStr<Err: std::fmt::Debug>>(row: &Row, at: usize) -> T {
    let text = row[at].as_deref().expect("no NULL in the catalog");
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

/// Settings of the session that selects.
pub(crate) const SESSION: &str = "SET TimeZone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'iso_8601'; \
     SET extra_float_digits = 3; SET lc_monetary = 'C'; SET bytea_output = 'hex'; SET search_path = pg_catalog";

impl Types {
    pub(crate) async fn read(client: &Client) -> Types {
        let sql = "SELECT oid, typname, typtype, typbasetype, typtypmod, typelem, typcategory = 'A' AND typlen = -1 AND typelem <> 0, typdelim FROM pg_type";
        let types = rows(client, sql).await.into_iter().map(|row| {
            let of = Type {
                name: cell(&row, 1),
                kind: cell(&row, 2),
                base: cell(&row, 3),
                modifier: cell(&row, 4),
                element: cell(&row, 5),
                is_array: cell::<String>(&row, 6) == "t",
                delimiter: cell(&row, 7),
            };
            (cell(&row, 0), of)
        });
        Types(types.collect())
    }

    /// Whether the column's numbers are REAL: the same one has several decimal texts.
    pub(crate) fn is_narrow(&self, column: &Column) -> bool {
        let mut of = &self.0[&column.of];
        while let Some(inner) = self.0.get(&of.base).or(self.0.get(&of.element)) {
            of = inner;
        }
        of.name == "float4"
    }

    /// What a record says about `text`, a value of the type `of`.
    fn value(&self, of: u32, modifier: i32, text: &str) -> Value {
        let found = &self.0[&of];
        if found.kind == "d" {
            let modifier = if modifier < 0 {
                found.modifier
            } else {
                modifier
            };
            return self.value(found.base, modifier, text);
        }
        if found.is_array && !found.name.ends_with("vector") {
            let delimiter = self.0[&found.element].delimiter;
            let mut rest = text.split_once('=').map_or(text, |(bounds, rest)| {
                if bounds.starts_with('[') { rest } else { text }
            });
            return self.array(&mut rest, found.element, modifier, delimiter);
        }
        scalar(&found.name, modifier, text)
    }

    /// `{…}` at the start of `rest`, which is left behind it (section 8.15.6, "Array Input and Output Syntax").
    fn array(&self, rest: &mut &str, element: u32, modifier: i32, delimiter: char) -> Value {
        *rest = rest.strip_prefix('{').expect("an array");
        let mut values = Vec::new();
        while !rest.starts_with('}') {
            values.push(match rest.chars().next() {
                Some('{') => self.array(rest, element, modifier, delimiter),
                Some('"') => {
                    let text = quoted(rest);
                    self.value(element, modifier, &text)
                }
                _ => {
                    let end = rest.find([delimiter, '}']).expect("an end");
                    let (text, after) = rest.split_at(end);
                    *rest = after;
                    match text {
                        "NULL" => Value::Null,
                        text => self.value(element, modifier, text),
                    }
                }
            });
            *rest = rest.strip_prefix(delimiter).unwrap_or(rest);
        }
        *rest = &rest[1..];
        values.into()
    }
}

/// `"…"` with backslashes at the start of `rest`, which is left behind it.
fn quoted(rest: &mut &str) -> String {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = &rest[at + 1..];
                return text;
            }
            '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => text.push(character),
        }
    }
    panic!("a quotation without end: {rest}");
}

/// The tables of `schemas` that records describe row by row.
pub(crate) async fn tables(client: &Client, schemas: &str) -> Vec<Table> {
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND n.nspname IN ({schemas}) ORDER BY 2, 3"
    );
    let mut tables = Vec::new();
    for row in rows(client, &sql).await {
        let oid: u32 = cell(&row, 0);
        let columns = format!(
            "SELECT attname, atttypid, atttypmod FROM pg_attribute \
             WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        );
        let key = format!(
            "SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(n, o), pg_attribute a \
             WHERE i.indrelid = {oid} AND i.indisprimary AND a.attrelid = {oid} AND a.attnum = k.n ORDER BY k.o"
        );
        let columns = rows(client, &columns).await;
        let columns = columns.iter().map(|row| Column {
            name: cell(row, 0),
            of: cell(row, 1),
            modifier: cell(row, 2),
        });
        let key = rows(client, &key).await;
        tables.push(Table {
            schema: cell(&row, 1),
            name: cell(&row, 2),
            columns: columns.collect(),
            key: key.iter().map(|row| cell(row, 0)).collect(),
            partitioned: cell::<String>(&row, 3) == "p",
        });
    }
    tables
}

impl Table {
    /// Every row as its records must have it.
    pub(crate) async fn expected(&self, client: &Client, types: &Types) -> Vec<Map<String, Value>> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| quoted(&column.name))
            .collect();
        let select = format!(
            "SELECT {} FROM {} {}.{}",
            columns.join(", "),
            if self.partitioned { "" } else { "ONLY" },
            quoted(&self.schema),
            quoted(&self.name)
        );
        let rows = rows(client, &select).await;
        rows.into_iter()
            .map(|row| {
                let cells = self.columns.iter().zip(row);
                cells
                    .map(|(column, text)| {
                        let value = text.map_or(Value::Null, |text| {
                            types.value(column.of, column.modifier, &text)
                        });
                        (column.name.clone(), value)
                    })
                    .collect()
            })
            .collect()
    }
}

fn scalar(name: &str, modifier: i32, text: &str) -> Value {
    match name {
        "int2" | "int4" | "int8" | "oid" => Value::Number(text.parse().expect("an integer")),
        "float4" | "float8" => float(text),
        "bool" => (text == "t").into(),
        "money" => text.replace(['$', ','], "").into(),
        "bytea" => BASE64_STANDARD.encode(hex(text)).into(),
        "bit" if modifier == 1 => (text == "1").into(),
        "bit" | "varbit" => BASE64_STANDARD.encode(least_first(text)).into(),
        "date" => moment(text, "", None),
        "time" => format!("{text}Z").into(),
        "timetz" => utc(text).into(),
        "timestamp" => moment(text, "", None),
        "timestamptz" => moment(
            text,
            "+00",
            Some(if modifier < 0 { 6 } else { modifier as usize }),
        ),
        "hstore" => hstore(text),
        "point" => point(text),
        _ => text.into(),
    }
}

/// A number, or the string for what JSON has no number for.
fn float(text: &str) -> Value {
    match text {
        "NaN" | "Infinity" | "-Infinity" => text.into(),
        _ => json!(text.parse::<f64>().expect("a float")),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("\\x").expect("hexadecimal bytea");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Bits as bytes, the last written bit lowest in the first byte.
fn least_first(bits: &str) -> Vec<u8> {
    let backwards: Vec<u8> = bits.bytes().rev().collect();
    backwards
        .chunks(8)
        .map(|eight| {
            let place = |(at, bit): (usize, &u8)| (bit - b'0') << at;
            eight.iter().enumerate().map(place).sum()
        })
        .collect()
}

/// Date, with or without time: `T` between them, ISO 8601's years, `Z`; exactly `digits` of the fraction.
fn moment(text: &str, zone: &str, digits: Option<usize>) -> Value {
    if text.ends_with("infinity") {
        return text.into();
    }
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let text = text.strip_suffix(zone).expect("the session's zone");
    let (year, rest) = text.split_once('-').expect("a year");
    let year: i64 = year.parse().expect("a year");
    let year = match (before_christ, year) {
        (true, year) => format!("-{:04}", year - 1).replace("-0000", "0000"),
        (false, 10_000..) => format!("+{year}"),
        (false, year) => format!("{year:04}"),
    };
    let mut text = format!("{year}-{}", rest.replace(' ', "T"));
    if let Some(digits) = digits {
        let fraction = text
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.len());
        if fraction == 0 && digits > 0 {
            text.push('.');
        }
        text.extend(std::iter::repeat_n('0', digits.saturating_sub(fraction)));
    }
    format!("{text}Z").into()
}

/// `15:19:39.5+02` at Greenwich.
fn utc(text: &str) -> String {
    let at = text.rfind(['+', '-']).expect("a zone");
    let (time, zone) = text.split_at(at);
    let seconds = |text: &str| {
        let mut parts = text
            .split(':')
            .map(|part| part.parse::<i64>().expect("digits"));
        let mut next = || parts.next().unwrap_or_default();
        next() * 3600 + next() * 60 + next()
    };
    let (whole, fraction) = time
        .split_once('.')
        .map_or((time, String::new()), |(whole, digits)| {
            (whole, format!(".{digits}"))
        });
    let offset = seconds(&zone[1..]) * if zone.starts_with('-') { -1 } else { 1 };
    let moment = (seconds(whole) - offset).rem_euclid(86_400);
    let (hours, minutes) = (moment / 3600, moment / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}{fraction}Z", moment % 60)
}

/// `"k"=>"v", "n"=>NULL` as the text of a JSON object.
fn hstore(text: &str) -> Value {
    let mut rest = text;
    let mut object = Map::new();
    while !rest.is_empty() {
        let key = quoted(&mut rest);
        rest = rest.strip_prefix("=>").expect("an arrow");
        let value = match rest.strip_prefix("NULL") {
            Some(after) => {
                rest = after;
                Value::Null
            }
            None => quoted(&mut rest).into(),
        };
        object.insert(key, value);
        rest = rest.trim_start_matches([',', ' ']);
    }
    Value::String(Value::Object(object).to_string())
}

/// `(x,y)` with its well-known binary.
fn point(text: &str) -> Value {
    let inner = text.trim_matches(['(', ')']);
    let (x, y) = inner.split_once(',').expect("two coordinates");
    let mut bytes = vec![1, 1, 0, 0, 0];
    for coordinate in [x, y] {
        let number: f64 = coordinate.parse().expect("a float");
        bytes.extend(number.to_le_bytes());
    }
    json!({"x": float(x), "y": float(y), "wkb": BASE64_STANDARD.encode(bytes), "srid": null})
}

/// Whether a record's `found` says what SELECT says: numbers compared as such (`narrow`: as REAL), texts of JSON objects (hstore) as
/// objects.
pub(crate) fn agrees(narrow: bool, expected: &Value, found: &Value) -> bool {
    let same = |(left, right): (&Value, &Value)| agrees(narrow, left, right);
    match (expected, found) {
        (Value::Number(left), Value::Number(right)) if narrow => {
            let real = |number: &Number| number.to_string().parse::<f32>().ok();
            real(left) == real(right)
        }
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() && left.as_f64() == right.as_f64())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(same)
        }
        (Value::Object(left), Value::Object(right)) => {
            let found = |(name, value)| right.get(name).is_some_and(|right| same((value, right)));
            left.len() == right.len() && left.iter().all(found)
        }
        (Value::String(left), Value::String(right)) => {
            let object = |text: &str| {
                let parsed = serde_json::from_str::<Value>(text).ok();
                parsed.filter(Value::is_object)
            };
            left == right || object(left).is_some_and(|left| Some(left) == object(right))
        }
        _ => expected == found,
    }
}
