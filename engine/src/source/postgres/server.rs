//! What a PostgreSQL server says about itself, read from its answers.

use std::collections::{BTreeMap, BTreeSet};

use protocol::postgres::Lsn;

use super::shapes;
use super::tables::Index;
use crate::source::SourceError;

/// The answer to a query: rows as text, by column name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
}

#[cfg(test)]
impl Answer {
    /// With these cells, none of them NULL.
    pub(super) fn of(columns: &[&str], rows: &[&[&str]]) -> Self {
        Self {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: (rows.iter())
                .map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect())
                .collect(),
        }
    }
}

/// A row of an [`Answer`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    columns: &'a [String],
    cells: &'a [Option<String>],
}

impl Answer {
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|cells| Row {
            columns: &self.columns,
            cells,
        })
    }

    pub(super) fn first(&self) -> Option<Row<'_>> {
        self.rows().next()
    }
}

impl<'a> Row<'a> {
    /// The cell of `column`; `None` for NULL, and where this version has no such column.
    pub(super) fn text(&self, column: &str) -> Option<&'a str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.cells.get(at)?.as_deref()
    }

    /// A boolean, false for NULL.
    pub(super) fn is(&self, column: &str) -> bool {
        self.text(column) == Some("t")
    }

    pub(super) fn number<T: std::str::FromStr>(&self, column: &str) -> Option<T> {
        self.text(column)?.parse().ok()
    }

    pub(super) fn lsn(&self, column: &str) -> Option<Lsn> {
        self.text(column)?.parse().ok()
    }
}

/// The settings that decide whether and how we can stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    pub(super) fn read(answer: &Answer) -> Self {
        let pair = |row: Row<'_>| Some((row.text("name")?.into(), row.text("setting")?.into()));
        Self(answer.rows().filter_map(pair).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// `server_version_num` without its last four digits.
    pub(super) fn major(&self) -> u32 {
        let number = self.number("server_version_num").unwrap_or(0);
        u32::try_from(number / 10_000).unwrap_or(0)
    }
}

/// Where the server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) database: String,
    pub(super) recovery: bool,
    pub(super) flushed: Lsn,
}

impl Status {
    pub(super) fn read(answer: &Answer) -> Result<Self, SourceError> {
        let read = |row: Row<'_>| {
            Some(Self {
                database: row.text("database")?.to_owned(),
                recovery: row.is("recovery"),
                flushed: row.lsn("flushed")?,
            })
        };
        answer.first().and_then(read).ok_or_else(|| {
            SourceError::halt(
                "the server does not say where its log stands (pg_current_wal_flush_lsn)",
            )
        })
    }
}

/// Our role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) superuser: bool,
    /// Has REPLICATION, or what stands for it on Amazon RDS.
    pub(super) replication: bool,
    /// May create a publication in the database.
    pub(super) may_create: bool,
}

impl Role {
    pub(super) fn read(answer: &Answer) -> Self {
        let read = |row: Row<'_>| Self {
            name: row.text("rolname").unwrap_or_default().to_owned(),
            superuser: row.is("rolsuper"),
            replication: row.is("rolreplication"),
            may_create: row.is("may_create"),
        };
        answer.first().map(read).unwrap_or_default()
    }

    /// Whether it may replicate, or does not say who it is: then the server will.
    pub(super) fn may_replicate(&self) -> bool {
        self.superuser || self.replication || self.name.is_empty()
    }
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    /// `None`: a physical slot.
    pub(super) plugin: Option<String>,
    pub(super) database: Option<String>,
    pub(super) active_pid: Option<String>,
    pub(super) active: bool,
    pub(super) confirmed: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub(super) wal_status: Option<String>,
    /// From 17: why it can be used no more.
    pub(super) invalidation: Option<String>,
    /// From 17: kept on standbys, too.
    pub(super) failover: bool,
    /// From 17: a standby's copy that has not been promoted.
    pub(super) synced: bool,
}

impl Slot {
    /// Whether a server process has begun to make it, and waits for the transactions that were open before.
    pub(super) fn is_being_made(&self) -> bool {
        self.plugin.is_some() && self.active && self.confirmed.is_none()
    }

    /// The slot `name` among all of the server.
    pub(super) fn find(answer: &Answer, name: &str) -> Option<Self> {
        let row = answer
            .rows()
            .find(|row| row.text("slot_name") == Some(name))?;
        let owned = |column: &str| row.text(column).map(str::to_owned);
        Some(Self {
            name: name.to_owned(),
            plugin: owned("plugin"),
            database: owned("database"),
            active_pid: owned("active_pid"),
            active: row.is("active"),
            confirmed: row.lsn("confirmed_flush_lsn"),
            wal_status: owned("wal_status"),
            invalidation: owned("invalidation_reason"),
            failover: row.is("failover"),
            synced: row.is("synced"),
        })
    }
}

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) all_tables: bool,
    /// Operations that it leaves out: `insert`, `update`, `delete`.
    pub(super) lacks: Vec<&'static str>,
    pub(super) truncates: bool,
    pub(super) via_root: bool,
    /// Whether we may alter it.
    pub(super) owned: bool,
}

impl Publication {
    pub(super) fn find(answer: &Answer, name: &str) -> Option<Self> {
        let row = answer
            .rows()
            .find(|row| row.text("pubname") == Some(name))?;
        let operations = [
            ("pubinsert", "insert"),
            ("pubupdate", "update"),
            ("pubdelete", "delete"),
        ];
        Some(Self {
            all_tables: row.is("puballtables"),
            lacks: (operations.iter())
                .filter(|(column, _)| !row.is(column))
                .map(|(_, name)| *name)
                .collect(),
            truncates: row.is("pubtruncate"),
            via_root: row.is("pubviaroot"),
            owned: row.is("owned"),
        })
    }
}

/// A table of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserTable {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) partitioned: bool,
    pub(super) is_partition: bool,
    /// The oids of the partitioned tables that it belongs to, nearest first; none where that was not asked.
    pub(super) above: Vec<u32>,
    /// Those that can be keys; none where that was not asked.
    pub(super) indices: Vec<Index>,
    /// `d`, `n`, `f`, `i`.
    pub(super) identity: char,
    /// Whether there is the index that `d` and `i` mean, and the server takes it: no deferrable primary key.
    pub(super) has_index: bool,
    /// Whether we may publish it.
    pub(super) owned: bool,
}

impl UserTable {
    /// Tables from the answers to [`protocol::postgres::catalog::TABLES`] and [`protocol::postgres::catalog::identities`].
    pub(super) fn read(answer: &Answer, keys: &Answer) -> Vec<Self> {
        let flagged = |flag: &str| -> BTreeSet<u32> {
            let is_it = |row: &Row<'_>| row.is(flag) && row.is("indimmediate");
            (keys.rows().filter(is_it))
                .filter_map(|row| row.number("relation"))
                .collect()
        };
        let (primary, chosen) = (flagged("indisprimary"), flagged("indisreplident"));
        let read = |row: Row<'_>| {
            let oid = row.number("oid")?;
            let identity = row.text("relreplident")?.chars().next()?;
            Some(Self {
                oid,
                schema: row.text("nspname")?.to_owned(),
                name: row.text("relname")?.to_owned(),
                partitioned: row.text("relkind") == Some("p"),
                is_partition: row.is("relispartition"),
                above: Vec::new(),
                indices: Vec::new(),
                identity,
                has_index: match identity {
                    'd' => primary.contains(&oid),
                    'i' => chosen.contains(&oid),
                    _ => false,
                },
                owned: row.is("owned"),
            })
        };
        answer.rows().filter_map(read).collect()
    }

    /// Notes which tables each partition belongs to, from the answer to [`protocol::postgres::catalog::PARTITIONS`].
    pub(super) fn note_above(tables: &mut [Self], answer: &Answer) {
        let mut above: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for row in answer.rows() {
            if let (Some(oid), Some(table)) = (row.number("oid"), row.number("above")) {
                above.entry(oid).or_default().push(table);
            }
        }
        for table in tables {
            table.above = above.remove(&table.oid).unwrap_or_default();
        }
    }

    /// Notes the indices of those tables that `answer`, to [`protocol::postgres::catalog::KEYS`], has any of.
    pub(super) fn note_indices(tables: &mut [Self], answer: &Answer) {
        let mut indices = shapes::indices_by_relation(answer);
        for table in tables {
            table.indices = indices.remove(&table.oid).unwrap_or_default();
        }
    }

    /// Whether the server refuses its updates and deletes as soon as a publication sends them. A partitioned table has no rows:
    /// those of its partitions count.
    pub(super) fn is_bare(&self) -> bool {
        !self.partitioned && self.identity != 'f' && !self.has_index
    }

    /// `"schema"."table"`, quoted where SQL wants it.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// An identifier as SQL takes it in any case: in quotes unless it is plain lower case.
pub(super) fn quoted(name: &str) -> String {
    let mut bytes = name.bytes();
    let plain = bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    match plain && !RESERVED.contains(&name) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Reserved words that people do call their tables and columns (appendix C).
const RESERVED: [&str; 26] = [
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "case", "check", "column",
    "default", "desc", "do", "else", "end", "from", "grant", "group", "limit", "order", "primary",
    "select", "table", "user", "window",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(columns: &[&str], rows: &[&[Option<&str>]]) -> Answer {
        Answer {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: (rows.iter())
                .map(|row| row.iter().map(|cell| cell.map(str::to_owned)).collect())
                .collect(),
        }
    }

    #[test]
    fn columns_that_a_version_lacks_are_absent_not_wrong() {
        let slots = answer(
            &["slot_name", "plugin", "active", "confirmed_flush_lsn"],
            &[
                &[Some("other"), None, Some("f"), None],
                &[Some("ours"), Some("pgoutput"), Some("t"), Some("0/1B")],
            ],
        );
        let slot = Slot::find(&slots, "ours").unwrap();
        assert_eq!(slot.plugin.as_deref(), Some("pgoutput"));
        assert_eq!((slot.active, slot.failover), (true, false));
        let begun = Slot {
            confirmed: None,
            ..slot.clone()
        };
        assert!(begun.is_being_made() && !slot.is_being_made());
        assert_eq!((slot.confirmed, slot.invalidation), (Some(Lsn(27)), None));
        assert_eq!(Slot::find(&slots, "other").unwrap().plugin, None);
        assert_eq!(Slot::find(&slots, "none"), None);
    }

    /// Of an index that is not there any more [`protocol::postgres::catalog::KEYS`] does not tell.
    #[test]
    fn an_identity_is_an_index_that_the_server_takes() {
        let columns = [
            "oid",
            "nspname",
            "relname",
            "relkind",
            "relispartition",
            "relreplident",
            "has_key",
            "owned",
        ];
        let cells = |oid, name, identity, has_key| {
            let no = Some("f");
            [oid, Some("s"), name, Some("r"), no, identity, has_key, no]
        };
        let rows = [
            ("1", "keyed", "d", "t"),
            ("2", "keyless", "d", "f"),
            ("3", "deferrable", "d", "t"),
            ("4", "by_index", "i", "f"),
            ("5", "index_gone", "i", "t"),
            ("6", "nothing", "n", "t"),
            ("7", "full", "f", "f"),
        ]
        .map(|(oid, name, identity, key)| cells(Some(oid), Some(name), Some(identity), Some(key)));
        let tables = answer(&columns, &rows.each_ref().map(|row| &row[..]));
        // A recording answers with all keys of a table, and all of their columns.
        let key = |oid, primary, chosen, immediate| {
            [Some(oid), Some(primary), Some(chosen), Some(immediate)]
        };
        let keys = answer(
            &["relation", "indisprimary", "indisreplident", "indimmediate"],
            &[
                &key("1", "t", "f", "t"),
                &key("1", "t", "f", "t"),
                &key("2", "f", "f", "t"),
                &key("3", "t", "f", "f"),
                &key("4", "f", "t", "t"),
                &key("5", "t", "f", "t"),
                &key("6", "t", "f", "t"),
            ],
        );
        let tables = UserTable::read(&tables, &keys);
        let bare: Vec<&str> = (tables.iter().filter(|table| table.is_bare()))
            .map(|table| &*table.name)
            .collect();
        assert_eq!(bare, ["keyless", "deferrable", "index_gone", "nothing"]);
    }

    #[test]
    fn publications_say_what_they_leave_out() {
        let columns = [
            "pubname",
            "puballtables",
            "pubinsert",
            "pubupdate",
            "pubdelete",
            "pubtruncate",
            "pubviaroot",
            "owned",
        ];
        let row = [
            Some("p"),
            Some("f"),
            Some("t"),
            Some("f"),
            Some("t"),
            Some("f"),
            Some("t"),
            Some("f"),
        ];
        let publication = Publication::find(&answer(&columns, &[&row]), "p").unwrap();
        assert_eq!(publication.lacks, ["update"]);
        assert!(!publication.truncates && publication.via_root);
        assert!(!publication.owned && !publication.all_tables);
    }

    #[test]
    fn identifiers_are_quoted_where_sql_wants_it() {
        for (name, expected) in [
            ("events", "events"),
            ("user", "\"user\""),
            ("Events", "\"Events\""),
            ("a\"b", "\"a\"\"b\""),
            ("1a", "\"1a\""),
            ("", "\"\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn the_version_is_the_major_one() {
        let settings = answer(
            &["name", "setting"],
            &[&[Some("server_version_num"), Some("150018")]],
        );
        assert_eq!(Settings::read(&settings).major(), 15);
    }
}
