//! Type names as `format_type` writes them (`src/backend/utils/adt/format_type.c`), and the modifiers in them.
//!
//! ```text
//! character varying(64)   timestamp(3) without time zone   numeric(20,5)[]   interval day to second(3)   shop."Mood"   "char"
//! └────── name ─────┘└mod┘                                               └┘array
//! ```

/// A type name taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypeName {
    pub(super) schema: Option<String>,
    /// `pg_type.typname`: `int4` for `integer`.
    pub(super) name: String,
    /// `atttypmod`; −1 for none, and for types whose modifiers only their own functions can read.
    pub(super) type_modifier: i32,
    pub(super) is_array: bool,
}

impl TypeName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, is_array) = match text.strip_suffix("[]") {
            Some(element) => (element, true),
            None => (text, false),
        };
        let (schema, name, rest) = match quoted_or_qualified(text) {
            Some(named) => named?,
            None => return sql_name(text, is_array),
        };
        let numbers = numbers(rest)?;
        let type_modifier = modifier(&name, &numbers);
        Some(Self {
            schema,
            name,
            type_modifier,
            is_array,
        })
    }
}

/// Schema, name and what follows it.
type Qualified<'a> = (Option<String>, String, &'a str);

/// A name with quotes or a schema; the outer `None` where it has neither, the inner where its quotes do not end.
fn quoted_or_qualified(text: &str) -> Option<Option<Qualified<'_>>> {
    let is_qualified = |rest: &str| rest.starts_with('.');
    let (first, rest) = match identifier(text) {
        Some(found) => found,
        None => return text.starts_with('"').then_some(None),
    };
    if is_qualified(rest) {
        let second = rest.get(1..).and_then(identifier);
        return Some(second.map(|(name, rest)| (Some(first), name, rest)));
    }
    text.starts_with('"').then_some(Some((None, first, rest)))
}

/// An identifier, quoted or not, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .unwrap_or(text.len());
        let (name, rest) = text.split_at_checked(end)?;
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

/// `(20,5)`, or nothing. Texts in it (`geometry(Point,4326)`) count as no numbers.
fn numbers(text: &str) -> Option<Vec<i32>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let inside = text.strip_prefix('(')?.strip_suffix(')')?;
    Some(
        inside
            .split(',')
            .map_while(|number| number.trim().parse().ok())
            .collect(),
    )
}

/// Names that SQL spells with blanks, or otherwise than `pg_type` does.
fn sql_name(text: &str, is_array: bool) -> Option<TypeName> {
    // The modifier may stand in the middle: `timestamp(3) without time zone`.
    let (words, numbers) = match text.find('(') {
        None => (text.to_owned(), Vec::new()),
        Some(open) => {
            let close = open + text.get(open..)?.find(')')?;
            let words = format!("{}{}", text.get(..open)?, text.get(close + 1..)?);
            (words, numbers(text.get(open..=close)?)?)
        }
    };
    let name = match &*words {
        "bit varying" => "varbit",
        "boolean" => "bool",
        "character" => "bpchar",
        "character varying" => "varchar",
        "double precision" => "float8",
        "real" => "float4",
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "time" | "time without time zone" => "time",
        "time with time zone" => "timetz",
        "timestamp" | "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        _ => {
            if let Some(fields) = words.strip_prefix("interval") {
                return Some(TypeName {
                    schema: None,
                    name: "interval".into(),
                    type_modifier: interval_modifier(fields, &numbers)?,
                    is_array,
                });
            }
            let (_, rest) = identifier(&words)?;
            if !rest.is_empty() {
                return None;
            }
            &words
        }
    };
    // SQL's `character` without a length is of length 1; `bpchar` and `bit` without one have names of their own.
    let type_modifier = match (&*words, numbers.is_empty()) {
        ("character", true) => 1 + LENGTH_HEADER,
        _ => modifier(name, &numbers),
    };
    Some(TypeName {
        schema: None,
        name: name.to_owned(),
        type_modifier,
        is_array,
    })
}

/// What `atttypmod` adds to lengths and precisions (`VARHDRSZ`).
const LENGTH_HEADER: i32 = 4;

fn modifier(name: &str, numbers: &[i32]) -> i32 {
    match (name, numbers) {
        ("bpchar" | "varchar", [length]) => length.saturating_add(LENGTH_HEADER),
        ("numeric", [precision]) => (precision << 16) + LENGTH_HEADER,
        ("numeric", [precision, scale]) => (precision << 16 | scale & 0x7ff) + LENGTH_HEADER,
        (_, [number]) => *number,
        _ => -1,
    }
}

/// Bits of the fields that an interval's modifier names (`src/include/utils/datetime.h`, `src/include/utils/timestamp.h`).
fn interval_modifier(fields: &str, numbers: &[i32]) -> Option<i32> {
    const MONTH: i32 = 1 << 1;
    const YEAR: i32 = 1 << 2;
    const DAY: i32 = 1 << 3;
    const HOUR: i32 = 1 << 10;
    const MINUTE: i32 = 1 << 11;
    const SECOND: i32 = 1 << 12;
    const FULL_RANGE: i32 = 0x7fff;
    const FULL_PRECISION: i32 = 0xffff;
    let range = match fields.trim() {
        "" if numbers.is_empty() => return Some(-1),
        "" => FULL_RANGE,
        "year" => YEAR,
        "month" => MONTH,
        "day" => DAY,
        "hour" => HOUR,
        "minute" => MINUTE,
        "second" => SECOND,
        "year to month" => YEAR | MONTH,
        "day to hour" => DAY | HOUR,
        "day to minute" => DAY | HOUR | MINUTE,
        "day to second" => DAY | HOUR | MINUTE | SECOND,
        "hour to minute" => HOUR | MINUTE,
        "hour to second" => HOUR | MINUTE | SECOND,
        "minute to second" => MINUTE | SECOND,
        _ => return None,
    };
    let precision = match numbers {
        [] => FULL_PRECISION,
        [precision] => precision & FULL_PRECISION,
        _ => return None,
    };
    Some(range << 16 | precision)
}
