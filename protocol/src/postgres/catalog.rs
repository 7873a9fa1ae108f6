//! What a client asks the server's catalog, as statements of the simple query protocol.
//!
//! Each statement is a constant that can be answered whole from a recording; those that grow with the database take a filter behind
//! it, which an answer may ignore: the asker looks for its rows by itself. Sessions that ask run with [`SESSION`], so that names in
//! the answers do not depend on a role's settings.

use std::fmt::{Display, Write as _};

/// Settings of every session, replication and other, as (name, value) of the start-up `options`: they decide how values are written
/// (section "Logical Decoding Output Plugins" leaves that to type output functions). An empty search path has type names qualified.
///
/// A role's `client_min_messages` could keep the warning back that rows are left out of the stream (from version 18 on).
pub const SESSION: [(&str, &str); 9] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("client_encoding", "UTF8"),
    ("search_path", "pg_catalog"),
    ("client_min_messages", "warning"),
];

/// [`SESSION`] as the value of the start-up parameter `options`.
#[must_use]
pub fn session_options() -> String {
    options(|_| true)
}

/// The same without `lc_monetary`: it stays as the database has it.
#[must_use]
pub fn session_options_for_money() -> String {
    options(|name| name != "lc_monetary")
}

fn options(is_wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for (name, value) in SESSION.into_iter().filter(|(name, _)| is_wanted(name)) {
        let separator = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{separator}-c {name}={value}");
    }
    text
}

/// Server settings: `name`, `setting`.
pub const SETTINGS: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('server_version', 'server_version_num', \
     'server_encoding', 'wal_level', 'max_replication_slots', 'max_wal_senders', 'wal_sender_timeout', 'max_slot_wal_keep_size', \
     'output_plugin_libraries', 'idle_replication_slot_timeout') ORDER BY name";

/// Where the server stands, one row: `database`, `recovery` (`t` on a standby), `flushed` (LSN).
pub const STATUS: &str = "SELECT pg_catalog.current_database() AS database, pg_catalog.pg_is_in_recovery() AS recovery, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
     ELSE pg_catalog.pg_current_wal_flush_lsn() END AS flushed";

/// Our role, one row: `rolname`, `rolsuper`, `rolreplication`, `may_create` (whether it may create a publication here).
pub const ROLE: &str = "SELECT rolname, rolsuper, rolreplication, \
     pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create \
     FROM pg_catalog.pg_roles WHERE rolname = current_user";

/// Whether our role is a member of `rds_replication`, one row: `is_member`. On Amazon RDS and Aurora nobody can be given REPLICATION, and
/// members of that role may replicate. Not in [`WHOLE`]: asked only by a role without REPLICATION.
pub const RDS_REPLICATION: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication' \
     AND pg_catalog.pg_has_role(current_user, oid, 'USAGE')) AS is_member";

/// When the server was started, one row: `started`. It tells one run of a server from any other, and stays what it is when a standby is
/// promoted. Not in [`WHOLE`]: asked only of standbys, and of what they may have become.
pub const STARTED: &str = "SELECT pg_catalog.pg_postmaster_start_time() AS started";

/// Replication slots, one row each, with whatever columns the version has (`slot_name`, `plugin`, `slot_type`, `database`, `active`,
/// `restart_lsn`, `confirmed_flush_lsn`, `wal_status`; `invalidation_reason`, `failover` and `synced` from 17).
pub const SLOTS: &str = "SELECT * FROM pg_catalog.pg_replication_slots";

/// Publications: `pubname`, `puballtables`, `pubinsert`, `pubupdate`, `pubdelete`, `pubtruncate`, `pubviaroot`, `owned` (whether we may alter it).
pub const PUBLICATIONS: &str = "SELECT pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, \
     pg_catalog.pg_has_role(pubowner, 'USAGE') AS owned FROM pg_catalog.pg_publication";

/// Tables of publications: `pubname`, `schemaname`, `tablename`.
pub const PUBLICATION_TABLES: &str =
    "SELECT pubname, schemaname, tablename FROM pg_catalog.pg_publication_tables";

/// User tables: `oid`, `nspname`, `relname`, `relkind` (`r`, `p` partitioned), `relispartition`, `relreplident` (`d` default, `n`
/// nothing, `f` full, `i` index), `has_key` (whether there is a primary key, which need not do for an identity: [`identities`]), `owned`
/// (whether we may publish it).
pub const TABLES: &str = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition, c.relreplident, \
     EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key, \
     pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// The partitioned tables above each partition, a row each, nearest first: `oid`, `above` (an oid). Not in [`WHOLE`]: asked only where
/// it matters which ones these are.
pub const PARTITIONS: &str = "SELECT c.oid, a.relid::pg_catalog.oid AS above \
     FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(c.oid) WITH ORDINALITY AS a(relid, level) \
     WHERE c.relispartition AND c.relkind IN ('r', 'p') AND a.relid <> c.oid ORDER BY c.oid, a.level";

/// Columns of unique indices that can be keys (no expressions, no predicate, no nullable column), a row per column: `relation` (OID),
/// `index`, `indisprimary`, `indisreplident`, `indimmediate` (`f`: deferrable, which can be a key, but no replica identity), `position`
/// (from 1), `attname`.
pub const KEYS: &str = "SELECT i.indrelid AS relation, x.relname AS index, i.indisprimary, i.indisreplident, i.indimmediate, \
     k.position, a.attname \
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
     JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position) \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
     WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
     AND k.position <= i.indnkeyatts AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute o WHERE o.attrelid = i.indrelid \
     AND o.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND NOT o.attnotnull)";

/// Types that are not built in: `oid`, `nspname`, `typname`, `typtype` (`b`, `c`, `d`, `e`, `m`, `p`, `r`), `typcategory`, `typelem`,
/// `typbasetype`, `typtypmod`, `typdelim`, `typlen`, `text` (as `format_type` writes it, and with it wal2json).
pub const TYPES: &str = "SELECT t.oid, n.nspname, t.typname, t.typtype, t.typcategory, t.typelem, t.typbasetype, t.typtypmod, \
     t.typdelim, t.typlen, pg_catalog.format_type(t.oid, NULL) AS text \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid >= 10000 AND n.nspname NOT IN ('pg_catalog', 'pg_toast')";

/// Live columns of user tables, a row each in the order of the table: `relation` (OID), `nspname`, `relname`, `attname`, `atttypid`,
/// `atttypmod`, `text` (the type as `format_type` writes it, and with it wal2json).
pub const COLUMNS: &str = "SELECT a.attrelid AS relation, n.nspname, c.relname, a.attname, a.atttypid, a.atttypmod, \
     pg_catalog.format_type(a.atttypid, a.atttypmod) AS text \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// Generated columns of user tables, a row each: `nspname`, `relname`, `attname`, `attgenerated` (`s` stored, `v` virtual, which there is
/// from version 18 on).
pub const GENERATED: &str = "SELECT n.nspname, c.relname, a.attname, a.attgenerated \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE a.attgenerated <> '' AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// How many fractional digits `money` has, one row: `digits`. It depends on `lc_monetary`, so it is asked in a session with
/// [`session_options_for_money`]. Not in [`WHOLE`]: asked only where a table has such a column.
pub const MONEY_DIGITS: &str =
    "SELECT pg_catalog.scale('1'::pg_catalog.money::pg_catalog.numeric) AS digits";

/// User tables that the log has nothing of (UNLOGGED), a row each: `nspname`, `relname`, and `root_nspname`, `root_relname` of the
/// topmost table that it is a partition of, or its own. Not in [`WHOLE`]: recordings have none ([`is_of_none`]).
pub const UNLOGGED: &str = "SELECT n.nspname, c.relname, m.nspname AS root_nspname, r.relname AS root_relname \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_catalog.pg_class r ON r.oid = COALESCE(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid) \
     JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// Tables of publications from version 15 on that these send in part, a row each: `nspname`, `relname`, `has_filter` (of rows),
/// `has_list` (of columns). Not in [`WHOLE`]: recordings have none ([`is_of_none`]).
const NARROWED: &str = "SELECT n.nspname, c.relname, r.prqual IS NOT NULL AS has_filter, r.prattrs IS NOT NULL AS has_list \
     FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid \
     JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)";

/// Everything that a recording has to answer for a client to begin.
pub const WHOLE: [&str; 11] = [
    SETTINGS,
    STATUS,
    ROLE,
    SLOTS,
    PUBLICATIONS,
    PUBLICATION_TABLES,
    TABLES,
    KEYS,
    TYPES,
    COLUMNS,
    GENERATED,
];

/// How a publication treats stored generated columns, from version 18 on, a row of it: `pubgencols` (`n` none, `s` stored). Not in
/// [`WHOLE`]: earlier versions have no such column.
#[must_use]
pub fn publishes_generated(publication: &str) -> String {
    format!(
        "SELECT pubgencols FROM pg_catalog.pg_publication WHERE pubname = {}",
        literal(publication)
    )
}

/// Tables that `publication` sends in part, on a server from version 15 on.
#[must_use]
pub fn narrowed(publication: &str) -> String {
    format!("{NARROWED} AND p.pubname = {}", literal(publication))
}

/// Whether a recording answers `statement` without a row: what it asks for is in no recording.
#[must_use]
pub fn is_of_none(statement: &str) -> bool {
    [UNLOGGED, NARROWED]
        .iter()
        .any(|none| statement.trim().starts_with(none))
}

/// [`KEYS`] of each index that can be a replica identity, its first column only: the server takes no deferrable primary key for one, and
/// nothing in the place of an index that was dropped (`RelationGetReplicaIndex`).
#[must_use]
pub fn identities() -> String {
    format!("{KEYS} AND k.position = 1 AND i.indimmediate AND (i.indisprimary OR i.indisreplident)")
}

/// [`KEYS`] of these relations only.
#[must_use]
pub fn keys_of(relations: &[u32]) -> String {
    format!("{KEYS} AND i.indrelid IN ({})", list(relations))
}

/// [`KEYS`] of one table only.
#[must_use]
pub fn keys_of_table(schema: &str, table: &str) -> String {
    format!(
        "{KEYS} AND n.nspname = {} AND c.relname = {}",
        literal(schema),
        literal(table)
    )
}

/// [`TYPES`] of these OIDs only.
#[must_use]
pub fn types_of(oids: &[u32]) -> String {
    format!("{TYPES} AND t.oid IN ({})", list(oids))
}

/// [`TABLES`] of this name only.
#[must_use]
pub fn table_named(schema: &str, table: &str) -> String {
    format!(
        "{TABLES} AND n.nspname = {} AND c.relname = {}",
        literal(schema),
        literal(table)
    )
}

/// [`COLUMNS`] of one table only, in order.
#[must_use]
pub fn columns_of(schema: &str, table: &str) -> String {
    format!(
        "{COLUMNS} AND n.nspname = {} AND c.relname = {} ORDER BY a.attnum",
        literal(schema),
        literal(table)
    )
}

/// The statement of [`WHOLE`] that `statement` is, or that it is with a filter behind it.
#[must_use]
pub fn whole(statement: &str) -> Option<&'static str> {
    let statement = statement.trim().trim_end_matches(';');
    WHOLE.into_iter().find(|whole| {
        statement.strip_prefix(whole).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(" AND ") || rest.starts_with(" ORDER BY ")
        })
    })
}

fn list(numbers: &[impl Display]) -> String {
    let mut text = String::new();
    for number in numbers {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{number}");
    }
    // `IN ()` is no SQL.
    if text.is_empty() {
        text.push_str("NULL");
    }
    text
}

/// A string constant, whatever `standard_conforming_strings` says (section 4.1.2, "Lexical Structure").
fn literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filtered_statements_are_known_by_their_whole() {
        for statement in WHOLE {
            assert_eq!(whole(&format!(" {statement}; ")), Some(statement));
        }
        assert_eq!(whole(&keys_of(&[16384, 7])), Some(KEYS));
        assert_eq!(whole(&identities()), Some(KEYS));
        assert_eq!(whole(&types_of(&[])), Some(TYPES));
        assert_eq!(whole(&columns_of("a'b", "c\\d")), Some(COLUMNS));
        assert_eq!(whole(&keys_of_table("public", "events")), Some(KEYS));
        assert_eq!(whole("SELECT 1"), None);
        assert!(is_of_none(UNLOGGED) && is_of_none(&narrowed("a'b")));
        assert!(!WHOLE.into_iter().any(is_of_none));
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let text = columns_of("a'b", "c\\'d");
        assert!(
            text.contains("n.nspname = 'a''b' AND c.relname =  E'c\\\\''d'"),
            "{text}"
        );
        assert!(keys_of(&[1, 2]).ends_with("IN (1, 2)"));
        assert!(types_of(&[]).ends_with("IN (NULL)"));
    }

    #[test]
    fn the_session_options_are_one_start_up_parameter() {
        assert!(session_options().starts_with("-c datestyle=ISO -c intervalstyle=postgres -c "));
        let of_money = session_options().replace(" -c lc_monetary=C", "");
        assert_eq!(session_options_for_money(), of_money);
        assert_ne!(session_options(), of_money);
    }
}
