//! What we ask a server before streaming, and its answers as values. Pure: the connection runs the queries.
//!
//! Servers are probed, never compared by version: what a server does not know is absent from the answers.

use std::collections::BTreeMap;

use protocol::mysql::BinlogPosition;
use protocol::mysql::event::Checksum;
use protocol::mysql::gtid::{Flavour, GtidSet, IntervalSet, SourceId, Tag, Uuid};

use crate::source::{Identity, SourceError};

/// Every variable that we look at, in one answer; those that the server does not have are left out by it. Long values are cut off:
/// see [`Variables::sets_query`].
pub(super) const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'server_id', 'server_uuid', \
     'log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata', 'binlog_row_value_options', \
     'binlog_checksum', 'gtid_mode', 'gtid_executed', 'gtid_owned', 'gtid_purged', 'gtid_domain_id', 'gtid_binlog_pos', \
     'gtid_binlog_state', 'gtid_strict_mode', 'lower_case_table_names', 'log_slave_updates', 'log_replica_updates', \
     'gtid_slave_pos', 'wsrep_on', 'innodb_native_foreign_keys')";

/// Those of them that hold sets of GTIDs. SHOW cuts values off (MySQL after 1,024 bytes, MariaDB after 2,048), so they are asked for
/// by name, where SHOW says that they are there.
const SETS: [&str; 4] = [
    "gtid_executed",
    "gtid_purged",
    "gtid_owned",
    "gtid_binlog_pos",
];

/// What the user may do.
pub(super) const GRANTS: &str = "SHOW GRANTS";

/// Where the server writes, in the words of MySQL 8.2 and later, then of everybody else: the first that is understood.
pub(super) const STATUS: [&str; 2] = ["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"];

/// The binlog files that are still there.
pub(super) const FILES: &str = "SHOW BINARY LOGS";

/// The set of GTIDs before a position, on MariaDB.
pub(super) fn gtid_position(position: &BinlogPosition) -> String {
    // File names come from the server; a quote in one would end the literal.
    let file = position.file.replace('\\', "\\\\").replace('\'', "''");
    format!("SELECT BINLOG_GTID_POS('{file}', {})", position.offset)
}

/// The rows of an answer, as text; `None` for NULL.
pub(super) type Answer = Vec<Vec<Option<String>>>;

/// The server's global variables, names in lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// From the answer to [`VARIABLES`].
    pub(super) fn read(answer: Answer) -> Self {
        let pair = |row: Vec<Option<String>>| {
            let mut row = row.into_iter().flatten();
            Some((row.next()?.to_ascii_lowercase(), row.next()?))
        };
        Self(answer.into_iter().filter_map(pair).collect())
    }

    /// Asks for the sets of GTIDs in full; `None` where the server has none. [`Variables::read_sets`] takes the answer.
    pub(super) fn sets_query(&self) -> Option<String> {
        let names: Vec<String> = (self.sets())
            .map(|name| format!("@@GLOBAL.{name}"))
            .collect();
        // In this order: what ends between the two goes from `gtid_owned` to `gtid_executed`, and the status comes later still.
        (!names.is_empty()).then(|| format!("SELECT {}", names.join(", ")))
    }

    /// From the answer to [`Variables::sets_query`].
    pub(super) fn read_sets(&mut self, answer: Answer) {
        let names: Vec<&str> = self.sets().collect();
        let values = answer.into_iter().next().unwrap_or_default();
        for (name, value) in names.into_iter().zip(values) {
            if let Some(value) = value {
                self.0.insert(name.to_owned(), value);
            }
        }
    }

    fn sets(&self) -> impl Iterator<Item = &'static str> {
        (SETS.into_iter()).filter(|name| self.0.contains_key(*name))
    }

    /// The value of `name`; `None` when the server has no such variable.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether `name` is there and has this value, whatever the case.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name)
            .is_some_and(|text| text.eq_ignore_ascii_case(value))
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }

    /// Which family the server is of.
    pub(super) fn flavour(&self) -> Flavour {
        match self.text("version") {
            Some(version) if version.contains("MariaDB") => Flavour::MariaDb,
            // A MariaDB may hide behind another version text, but only it has domains.
            _ if self.text("gtid_domain_id").is_some() => Flavour::MariaDb,
            _ => Flavour::MySql,
        }
    }

    /// Who the server says it is; `None` when it does not say. Others may say the same of themselves: `session::known_as`.
    pub(super) fn identity(&self) -> Option<Identity> {
        match self.flavour() {
            Flavour::MySql => Some(Identity::MySql {
                uuid: match self.text("server_uuid") {
                    Some(uuid) if !uuid.is_empty() => uuid.into(),
                    // Before 5.6 there was no uuid.
                    _ => format!("server-id-{}", self.number("server_id")?),
                },
                log: Identity::FIRST_LOG,
            }),
            Flavour::MariaDb => Some(Identity::MariaDb {
                server_id: self.number("server_id")?,
                domain: self.number("gtid_domain_id").unwrap_or(0),
                log: Identity::FIRST_LOG,
            }),
        }
    }

    /// Whether every transaction has a GTID, so that a dump can start from a set.
    pub(super) fn has_gtids(&self) -> bool {
        match self.flavour() {
            Flavour::MySql => self.is("gtid_mode", "ON"),
            Flavour::MariaDb => self.text("gtid_binlog_pos").is_some(),
        }
    }

    /// Whether names of tables are stored in lower case, however statements write them.
    pub(super) fn folds_names(&self) -> bool {
        self.number("lower_case_table_names")
            .is_some_and(|how| how != 0)
    }

    /// How the first event of a dump is written.
    pub(super) fn checksum(&self) -> Checksum {
        match self.is("binlog_checksum", "CRC32") {
            true => Checksum::Crc32,
            false => Checksum::Off,
        }
    }

    /// A variable that holds a GTID set; `None` when there is no such variable.
    pub(super) fn gtids(&self, name: &str) -> Result<Option<GtidSet>, SourceError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        GtidSet::parse(self.flavour(), text)
            .map(Some)
            .map_err(|error| {
                SourceError::halt(format!("the server's @@{name} cannot be read")).because(error)
            })
    }
}

/// The GTIDs of MySQL's `@@gtid_owned`, which are of transactions that have not ended: `uuid[:tag]:number#thread…`, as many numbers and
/// uuids as there are. The next uuid stands directly behind a thread's id (the server's `sql/rpl_gtid.h`, `Owned_gtids::to_string`), so
/// uuids are found by their first hyphen. What cannot be read is left out: it is as good as unknown.
pub(super) fn owned(text: &str) -> IntervalSet {
    const UUID_LENGTH: usize = 36;
    const FIRST_HYPHEN: usize = 8;
    let hyphens = text.match_indices('-').map(|(at, _)| at);
    let starts = hyphens.filter_map(|at| at.checked_sub(FIRST_HYPHEN));
    let mut uuids: Vec<(usize, Uuid)> = Vec::new();
    for start in starts {
        let uuid = text.get(start..start + UUID_LENGTH);
        uuids.extend(uuid.and_then(|uuid| Some((start, uuid.parse().ok()?))));
    }
    let mut set = IntervalSet::default();
    for (index, (start, uuid)) in uuids.iter().enumerate() {
        let end = uuids.get(index + 1).map_or(text.len(), |(next, _)| *next);
        let mut tag = Tag::NONE;
        let numbers = text.get(start + UUID_LENGTH..end).unwrap_or_default();
        for part in numbers.split(':').map(str::trim) {
            if let Some((number, _thread)) = part.split_once('#') {
                if let Ok(number) = number.parse() {
                    set.add(&SourceId { uuid: *uuid, tag }, number);
                }
            } else if let Some(named) = Tag::new(part.as_bytes()) {
                tag = named;
            }
        }
    }
    set
}

/// Where the server writes: the answer to one of [`STATUS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// After the last transaction.
    pub(super) position: BinlogPosition,
    /// `binlog_do_db`: the only databases that are logged; empty where all are.
    only: Vec<String>,
    /// `binlog_ignore_db`: databases that are not logged. They do not count where others are named as the only ones.
    not: Vec<String>,
    /// The GTIDs executed there, as text; MySQL only (empty without GTIDs).
    pub(super) executed: Option<String>,
}

impl Status {
    /// `None` when the answer is empty: the binary log is off.
    pub(super) fn read(answer: Answer) -> Result<Option<Self>, SourceError> {
        let Some(row) = answer.into_iter().next() else {
            return Ok(None);
        };
        let mut row = row.into_iter();
        let file = row.next().flatten();
        let offset = row.next().flatten().and_then(|text| text.parse().ok());
        // MariaDB's answer ends with them.
        let [only, not] = [(); 2].map(|()| databases(row.next().flatten()));
        match (file, offset) {
            (Some(file), Some(offset)) => Ok(Some(Self {
                position: BinlogPosition {
                    file: file.into(),
                    offset,
                },
                only,
                not,
                executed: row.next().flatten(),
            })),
            _ => Err(SourceError::halt(
                "the server's binary log status has no file and position",
            )),
        }
    }

    /// Whether some databases may not be logged.
    pub(super) fn is_filtered(&self) -> bool {
        !self.only.is_empty() || !self.not.is_empty()
    }

    /// Whether rows of `schema` are logged: names count as they are written (the servers' `sql/rpl_filter.cc`, `db_ok`).
    pub(super) fn logs(&self, schema: &str) -> bool {
        let has = |list: &[String]| list.iter().any(|name| name == schema);
        match self.only.is_empty() {
            true => !has(&self.not),
            false => has(&self.only),
        }
    }

    /// What the filters are set to; empty where there are none.
    pub(super) fn filters(&self) -> String {
        let set = [
            ("binlog_do_db", &self.only),
            ("binlog_ignore_db", &self.not),
        ];
        let set = set.into_iter().filter(|(_, names)| !names.is_empty());
        let set = set.map(|(variable, names)| format!("{variable} is {}", names.join(",")));
        set.collect::<Vec<_>>().join(" and ")
    }
}

/// Names separated by commas, as Binlog_Do_DB and Binlog_Ignore_DB have them.
fn databases(list: Option<String>) -> Vec<String> {
    let list = list.unwrap_or_default();
    let names = list.split(',').map(str::trim);
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The binlog files that are still there, oldest first: name and size in bytes.
pub(super) fn files(answer: Answer) -> Vec<(String, u64)> {
    let file = |row: Vec<Option<String>>| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??.parse().ok()?))
    };
    answer.into_iter().filter_map(file).collect()
}

#[cfg(test)]
pub(super) fn answer(rows: &[&[&str]]) -> Answer {
    let text = |cell: &&str| Some((*cell).to_owned());
    rows.iter()
        .map(|row| row.iter().map(text).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_answers() {
        let mysql = Variables::read(answer(&[
            &["version", "9.7.0"],
            &["server_uuid", "3e11fa47-71ca-11e1-9e33-c80aa9429562"],
            &["gtid_mode", "ON"],
            &[
                "gtid_executed",
                "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n3e11fa47-71ca-11e1-9e33-c80aa9429563:1",
            ],
        ]));
        assert_eq!(mysql.flavour(), Flavour::MySql);
        assert_eq!(
            mysql.identity().unwrap().to_string(),
            "mysql:3e11fa47-71ca-11e1-9e33-c80aa9429562"
        );
        assert!(mysql.has_gtids());
        assert!(mysql.gtids("gtid_executed").unwrap().is_some());
        assert_eq!(mysql.gtids("gtid_binlog_pos").unwrap(), None);

        let mariadb = Variables::read(answer(&[
            &["version", "10.11.6-MariaDB-log"],
            &["server_id", "7"],
            &["gtid_domain_id", "3"],
            &["gtid_binlog_pos", ""],
        ]));
        assert_eq!(mariadb.flavour(), Flavour::MariaDb);
        assert_eq!(mariadb.identity().unwrap().to_string(), "mariadb:7:3");
        assert!(mariadb.has_gtids());
    }

    #[test]
    fn sets_are_asked_for_where_nothing_cuts_them() {
        let set: Vec<String> = (0..30)
            .map(|n| format!("3e11fa47-71ca-11e1-9e33-c80aa94295{n:02}:1-5"))
            .collect();
        let set = set.join(",\n");
        let mut mysql = Variables::read(answer(&[
            &["version", "8.4.0"],
            &["gtid_executed", &set[..1024]],
            &["gtid_owned", ""],
            &["gtid_purged", &set[..1024]],
        ]));
        assert!(mysql.gtids("gtid_executed").is_err());
        assert_eq!(
            mysql.sets_query().unwrap(),
            "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.gtid_owned"
        );
        let owned = "3e11fa47-71ca-11e1-9e33-c80aa9429501:6#7";
        mysql.read_sets(answer(&[&[&set, &set, owned]]));
        let whole = Some(set.parse().unwrap());
        for name in ["gtid_executed", "gtid_purged"] {
            assert_eq!(mysql.gtids(name).unwrap(), whole, "{name}");
        }
        assert_eq!(mysql.text("gtid_owned"), Some(owned));

        let mariadb = Variables::read(answer(&[
            &["version", "10.11.6-MariaDB"],
            &["gtid_binlog_pos", "0-1-5"],
        ]));
        assert_eq!(
            mariadb.sets_query().unwrap(),
            "SELECT @@GLOBAL.gtid_binlog_pos"
        );
        let none = Variables::read(answer(&[&["version", "5.5.60"]]));
        assert_eq!(none.sets_query(), None);
    }

    #[test]
    fn status_of_either_family() {
        let mysql = Status::read(answer(&[&["binlog.000002", "157", "", "", "u:1-5"]]));
        let mysql = mysql.unwrap().unwrap();
        assert_eq!(mysql.position.to_string(), "binlog.000002:157");
        assert_eq!(mysql.executed.as_deref(), Some("u:1-5"));
        let mariadb = Status::read(answer(&[&["b.000001", "330", "", ""]]));
        assert_eq!(mariadb.unwrap().unwrap().executed, None);
        assert_eq!(Status::read(answer(&[])).unwrap(), None);
        let filtered = Status::read(answer(&[&["b.000001", "4", "a,b", "c", "u:1-5"]]));
        let filtered = filtered.unwrap().unwrap();
        assert_eq!(
            filtered.filters(),
            "binlog_do_db is a,b and binlog_ignore_db is c"
        );
        assert_eq!(filtered.executed.as_deref(), Some("u:1-5"));
        assert!(filtered.is_filtered() && !mysql.is_filtered());
        let logged = ["a", "b", "c", "d", "A"].map(|schema| filtered.logs(schema));
        assert_eq!(logged, [true, true, false, false, false]);
        assert!(mysql.logs("a"));
        assert!(Status::read(answer(&[&["b.000001"]])).is_err());
    }

    #[test]
    fn transactions_that_have_not_ended_are_read_without_their_threads() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";
        for (text, expected) in [
            (String::new(), String::new()),
            (format!("{A}:101#12"), format!("{A}:101")),
            (format!("{A}:7#12:5#13"), format!("{A}:5:7")),
            // One directly behind the other, and as a list.
            (format!("{A}:7#12{B}:1#123"), format!("{A}:7,{B}:1")),
            (format!("{A}:7#12,\n{B}:1#123"), format!("{A}:7,{B}:1")),
            (format!("{A}:tag:7#1{A}:8#2"), format!("{A}:8:tag:7")),
            ("nothing-of:1#2 that-is-known".into(), String::new()),
        ] {
            let expected = expected.parse::<IntervalSet>().unwrap();
            assert_eq!(owned(&text), expected, "{text}");
        }
    }

    #[test]
    fn file_names_are_quoted() {
        let position = BinlogPosition {
            file: "a'\\b.1".into(),
            offset: 4,
        };
        assert_eq!(
            gtid_position(&position),
            "SELECT BINLOG_GTID_POS('a''\\\\b.1', 4)"
        );
    }
}
