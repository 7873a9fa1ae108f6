//! Just enough SQL to answer a client's look into the catalog.

use fixtures::Relation;
use protocol::mysql::resultset::ResultSet;

use super::answers::{bytes, cell};

/// Splits at `separator` outside of quotes and parentheses.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, c) if c == separator && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Where `word` stands on its own outside of quotes and parentheses, case ignored.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let upper = text.to_ascii_uppercase();
    let (mut depth, mut quote, mut before) = (0, None, ' ');
    for (at, c) in upper.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            _ => {
                let after = upper[at..]
                    .strip_prefix(word)
                    .map(|rest| rest.chars().next().unwrap_or(' '));
                let apart = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.';
                if depth == 0 && apart(before) && after.is_some_and(apart) {
                    return Some(at);
                }
            }
        }
        before = c;
    }
    None
}

/// `text` without a LIMIT at its end.
pub(super) fn without_limit(text: &str) -> &str {
    find_word(text, "LIMIT").map_or(text, |at| &text[..at])
}

/// An expression and the name of its column.
pub(super) fn alias(expression: &str) -> (&str, &str) {
    match find_word(expression, "AS") {
        Some(at) => {
            let name = expression[at + 2..].trim();
            (expression[..at].trim(), name.trim_matches(['`', '\'', '"']))
        }
        None => (expression, expression),
    }
}

/// The value of a quoted text, a number or NULL; `None` for anything else.
pub(super) fn literal(text: &str) -> Option<Option<String>> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("NULL") {
        return Some(None);
    }
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            let doubled = [quote, quote].iter().collect::<String>();
            return Some(Some(
                inner
                    .replace(&doubled, &quote.to_string())
                    .replace("\\\\", "\\"),
            ));
        }
    }
    let is_number = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'-' || b == b'.');
    is_number.then(|| Some(text.to_owned()))
}

/// Which variables SHOW VARIABLES shows.
#[derive(Debug)]
pub(super) enum VariableFilter {
    All,
    Like(String),
    Named(Vec<String>),
}

/// Reads what follows SHOW VARIABLES.
pub(super) fn variable_filter(text: &str) -> Option<VariableFilter> {
    if text.is_empty() {
        return Some(VariableFilter::All);
    }
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("LIKE") {
        return Some(VariableFilter::Like(literal(&text[4..])??));
    }
    let condition = Condition::parse(upper.strip_prefix("WHERE").map(|_| text[5..].trim())?)?;
    let is_name =
        condition.columns.len() == 1 && condition.columns[0].eq_ignore_ascii_case("variable_name");
    (is_name && !condition.negated)
        .then(|| VariableFilter::Named(condition.values.into_iter().flatten().flatten().collect()))
}

impl VariableFilter {
    /// Whether the variable is shown.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Like(pattern) => like(pattern.as_bytes(), name.as_bytes()),
            Self::Named(names) => names.iter().any(|n| n.eq_ignore_ascii_case(name)),
        }
    }
}

/// SQL's LIKE, case ignored.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'%', rest @ ..], _) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        ([b'_', rest @ ..], [_, text @ ..]) => like(rest, text),
        ([b'\\', c, rest @ ..] | [c, rest @ ..], [t, text @ ..]) => {
            c.eq_ignore_ascii_case(t) && like(rest, text)
        }
        _ => false,
    }
}

/// `SELECT columns FROM table [WHERE …] [ORDER BY …]`.
#[derive(Debug)]
pub(super) struct Select<'a> {
    columns: Vec<&'a str>,
    /// `schema.table`.
    pub(super) from: String,
    conditions: Option<Vec<Condition>>,
}

/// `column = value`, `(column, …) [NOT] IN ((value, …), …)`.
#[derive(Debug)]
struct Condition {
    columns: Vec<String>,
    negated: bool,
    values: Vec<Vec<Option<String>>>,
}

impl<'a> Select<'a> {
    /// `None` for a SELECT without FROM.
    pub(super) fn parse(statement: &'a str) -> Option<Self> {
        let list = statement.get("SELECT".len()..)?;
        let from = find_word(list, "FROM")?;
        let columns = split(&list[..from], ',');
        let mut rest = list[from + 4..].trim();
        for end in ["ORDER", "LIMIT"] {
            if let Some(at) = find_word(rest, end) {
                rest = rest[..at].trim();
            }
        }
        let (table, conditions) = match find_word(rest, "WHERE") {
            Some(at) => (&rest[..at], conditions(&rest[at + 5..])),
            None => (rest, Some(Vec::new())),
        };
        Some(Self {
            columns,
            from: table.split_whitespace().next()?.replace('`', ""),
            conditions,
        })
    }

    /// The rows of `relation`, in its own order (the recorder asked for a useful one); `None` when a column or condition is not
    /// understood.
    pub(super) fn run(&self, relation: &Relation) -> Option<ResultSet> {
        let place = |name: &str| {
            let name = name.rsplit('.').next().unwrap_or(name).trim_matches('`');
            relation
                .columns
                .iter()
                .position(|column| column.eq_ignore_ascii_case(name))
        };
        let mut wanted = Vec::new();
        for column in &self.columns {
            if *column == "*" {
                wanted.extend(
                    relation
                        .columns
                        .iter()
                        .enumerate()
                        .map(|(at, name)| (at, name.clone())),
                );
                continue;
            }
            let (column, name) = alias(column);
            wanted.push((place(column)?, name.trim_matches('`').to_owned()));
        }
        let mut tests = Vec::new();
        for condition in self.conditions.as_ref()? {
            let places: Option<Vec<usize>> =
                condition.columns.iter().map(|name| place(name)).collect();
            tests.push((places?, condition));
        }
        let matches = |row: &&Vec<String>| {
            tests.iter().all(|(places, condition)| {
                let is = |tuple: &Vec<Option<String>>| {
                    // Names of schemas and tables compare as the catalog's collation does: case ignored.
                    places
                        .iter()
                        .zip(tuple)
                        .all(|(at, value)| match (cell(&row[*at]), value) {
                            (Some(cell), Some(value)) => cell.eq_ignore_ascii_case(value),
                            _ => false,
                        })
                };
                condition.values.iter().any(is) != condition.negated
            })
        };
        let rows = relation.rows.iter().filter(matches);
        Some(ResultSet {
            rows: rows
                .map(|row| {
                    wanted
                        .iter()
                        .map(|(at, _)| bytes(cell(&row[*at])))
                        .collect()
                })
                .collect(),
            columns: wanted.into_iter().map(|(_, name)| name).collect(),
        })
    }
}

fn conditions(text: &str) -> Option<Vec<Condition>> {
    let mut rest = text.trim();
    let mut all = Vec::new();
    while let Some(at) = find_word(rest, "AND") {
        all.push(Condition::parse(rest[..at].trim())?);
        rest = rest[at + 3..].trim();
    }
    all.push(Condition::parse(rest)?);
    Some(all)
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        let (left, negated, right) = if let Some(at) = find_word(text, "IN") {
            let left = text[..at].trim();
            let upper = left.to_ascii_uppercase();
            let negated = upper.ends_with("NOT");
            let left = if negated {
                &left[..left.len() - 3]
            } else {
                left
            };
            (left.trim(), negated, text[at + 2..].trim())
        } else if let Some((left, right)) = text.split_once("<>").or_else(|| text.split_once("!="))
        {
            (left.trim(), true, right.trim())
        } else {
            let (left, right) = text.split_once('=')?;
            (left.trim(), false, right.trim())
        };
        let columns: Vec<String> = split(inside(left), ',')
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut values = Vec::new();
        let list = match find_word(text, "IN") {
            Some(_) => split(right.strip_prefix('(')?.strip_suffix(')')?, ','),
            None => vec![right],
        };
        for value in list {
            let tuple: Option<Vec<_>> =
                split(inside(value), ',').into_iter().map(literal).collect();
            values.push(tuple.filter(|tuple| tuple.len() == columns.len())?);
        }
        let is_column = |name: &String| {
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.`".contains(c))
        };
        columns.iter().all(is_column).then_some(Self {
            columns,
            negated,
            values,
        })
    }
}

fn inside(text: &str) -> &str {
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')'));
    inner.unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation() -> Relation {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        Relation {
            name: "information_schema.columns".into(),
            columns: row(["TABLE_SCHEMA", "TABLE_NAME", "COLUMN_NAME"]),
            rows: vec![
                row(["shop", "events", "id"]),
                row(["shop", "Orders", "it's"]),
                row(["x", "events", "\\N"]),
            ],
        }
    }

    fn names(statement: &str) -> Option<Vec<Option<String>>> {
        let set = Select::parse(statement)?.run(&relation())?;
        let text =
            |row: Vec<Option<Vec<u8>>>| row[0].clone().map(|c| String::from_utf8(c).unwrap());
        Some(set.rows.into_iter().map(text).collect())
    }

    #[test]
    fn conditions_choose_rows() {
        let all = "SELECT column_name FROM information_schema.columns";
        assert_eq!(names(all).unwrap().len(), 3);
        for (condition, expected) in [
            (
                "TABLE_SCHEMA = 'shop' AND TABLE_NAME='orders'",
                vec!["it's"],
            ),
            (
                "(table_schema, table_name) IN (('shop', 'events'), ('y', 'z'))",
                vec!["id"],
            ),
            (
                "TABLE_SCHEMA NOT IN ('x', 'AND') ORDER BY 1, 2",
                vec!["id", "it's"],
            ),
            ("COLUMN_NAME = 'it''s' LIMIT 3", vec!["it's"]),
            ("TABLE_SCHEMA <> 'x'", vec!["id", "it's"]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|text| Some(text.to_owned()))
                .collect();
            assert_eq!(
                names(&format!("{all} WHERE {condition}")),
                Some(expected),
                "{condition}"
            );
        }
        for condition in [
            "f(x) = 1",
            "TABLE_NAME LIKE 'e%'",
            "NOPE = 1",
            "TABLE_NAME = OTHER",
        ] {
            assert_eq!(
                names(&format!("{all} WHERE {condition}")),
                None,
                "{condition}"
            );
        }
    }

    #[test]
    fn like_is_sqls() {
        for (pattern, text, expected) in [
            ("a%", "abc", true),
            ("%_c", "abc", true),
            ("a\\_", "ab", false),
            ("A_C", "abc", true),
        ] {
            assert_eq!(
                like(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern}"
            );
        }
    }
}
