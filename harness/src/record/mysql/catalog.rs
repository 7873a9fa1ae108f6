//! What a client asks at its start, asked once and written down.

use std::collections::BTreeMap;

use fixtures::{Answer, BinlogPosition, NULL, Relation};
use protocol::mysql::resultset::ResultSet;

use super::client::Client;
use crate::record::RecordError;

/// Statements with an answer that does not change while nobody writes; those that a server does not know are left out.
const STATEMENTS: [&str; 8] = [
    "SHOW BINARY LOG STATUS",
    "SHOW MASTER STATUS",
    "SHOW BINARY LOGS",
    "SHOW MASTER LOGS",
    "SHOW GRANTS",
    "SELECT VERSION()",
    "SELECT CURRENT_USER()",
    "SHOW DATABASES",
];

/// Catalog tables with a column that names the schema.
const RELATIONS: [(&str, &str, &str); 6] = [
    ("information_schema.schemata", "SCHEMA_NAME", "SCHEMA_NAME"),
    (
        "information_schema.tables",
        "TABLE_SCHEMA",
        "TABLE_SCHEMA, TABLE_NAME",
    ),
    (
        "information_schema.columns",
        "TABLE_SCHEMA",
        "TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION",
    ),
    (
        "information_schema.statistics",
        "TABLE_SCHEMA",
        "TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
    ),
    (
        "information_schema.table_constraints",
        "TABLE_SCHEMA",
        "TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME",
    ),
    (
        "information_schema.key_column_usage",
        "TABLE_SCHEMA",
        "TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
    ),
];

/// Variables by the start of their names: what bears on replication, text and time; not the machine's paths and sizes.
const VARIABLES: [&str; 24] = [
    "auto_increment_",
    "binlog_",
    "character_set_",
    "collation_",
    "explicit_defaults_for_timestamp",
    "gtid_",
    "have_ssl",
    "log_bin",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_",
    "max_allowed_packet",
    "max_binlog_",
    "net_read_timeout",
    "net_write_timeout",
    "protocol_version",
    "replica_",
    "server_",
    "slave_",
    "sql_mode",
    "sync_binlog",
    "time_zone",
    "version",
    "wait_timeout",
];

/// A server's answers.
pub(super) struct Catalog {
    pub(super) version: String,
    pub(super) first: BinlogPosition,
    pub(super) end: BinlogPosition,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) answers: Vec<Answer>,
    pub(super) relations: Vec<Relation>,
}

impl Catalog {
    /// Asks everything.
    pub(super) fn read(client: &mut Client) -> Result<Catalog, RecordError> {
        let mut answers = Vec::new();
        for query in STATEMENTS {
            if let Some(rows) = client.rows(query)? {
                let (columns, rows) = cells(rows);
                answers.push(Answer {
                    query: query.to_owned(),
                    columns,
                    rows,
                });
            }
        }
        let mut relations = Vec::new();
        for (name, schema, order) in RELATIONS {
            let select = format!(
                "SELECT * FROM {name} WHERE {schema} NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY {order}"
            );
            if let Some(rows) = client.rows(&select)? {
                let (columns, rows) = cells(rows);
                relations.push(Relation {
                    name: name.to_owned(),
                    columns,
                    rows,
                });
            }
        }
        let variables = variables(client)?;
        let cell = |query: &str, row: usize, column: usize| {
            let answer = answers.iter().find(|answer| answer.query == query)?;
            answer.rows.get(row)?.get(column).cloned()
        };
        let (first, end) = (
            cell("SHOW BINARY LOGS", 0, 0),
            ["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"],
        );
        let end = end
            .into_iter()
            .find_map(|query| Some((cell(query, 0, 0)?, cell(query, 0, 1)?, cell(query, 0, 4))));
        let (Some(first), Some((file, offset, gtid))) = (first, end) else {
            return Err(RecordError::Refused(
                "it writes no binlog, or does not show it: GRANT REPLICATION CLIENT ON *.*".into(),
            ));
        };
        let offset = offset
            .parse()
            .map_err(|_| RecordError::Unexpected("an offset that is no number"))?;
        let variable = |name: &str| variables.get(name).cloned().unwrap_or_default();
        // MySQL's set spans lines; MariaDB has the column nowhere and the position in a variable.
        let gtid = gtid
            .filter(|gtid| gtid != NULL)
            .unwrap_or_else(|| variable("gtid_binlog_pos"))
            .replace('\n', "");
        Ok(Catalog {
            version: cell("SELECT VERSION()", 0, 0).unwrap_or_default(),
            first: BinlogPosition {
                file: first,
                offset: 4,
                gtid: variable("gtid_purged").replace('\n', ""),
            },
            end: BinlogPosition { file, offset, gtid },
            variables,
            answers,
            relations,
        })
    }
}

fn variables(client: &mut Client) -> Result<BTreeMap<String, String>, RecordError> {
    let rows = client
        .rows("SHOW GLOBAL VARIABLES")?
        .ok_or(RecordError::Unexpected("no variables"))?;
    let (_, rows) = cells(rows);
    let pairs = rows.into_iter().filter_map(|row| {
        let mut row = row.into_iter();
        Some((row.next()?.to_ascii_lowercase(), row.next()?))
    });
    let wanted = |name: &str, value: &str| {
        VARIABLES.iter().any(|prefix| name.starts_with(prefix)) && !value.contains('/')
    };
    Ok(pairs.filter(|(name, value)| wanted(name, value)).collect())
}

fn cells(result: ResultSet) -> (Vec<String>, Vec<Vec<String>>) {
    let text = |cell: Option<Vec<u8>>| {
        cell.map_or(NULL.to_owned(), |bytes| {
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let rows = result
        .rows
        .into_iter()
        .map(|row| row.into_iter().map(text).collect())
        .collect();
    (result.columns, rows)
}
