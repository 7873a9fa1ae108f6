//! The rows of a load: an id that says which commit wrote it, the time at which that was due, and a text that follows from both.

use std::fmt::Write as _;
use std::ops::Range;

use super::Load;
use crate::workload::SplitMix64;

/// What the table's columns are, in SQL that all servers understand.
pub(in crate::replay) const COLUMNS: &str =
    "id BIGINT NOT NULL PRIMARY KEY, due_us BIGINT NOT NULL, note VARCHAR(64) NOT NULL";

/// The row that shows that the engine streams; the first one of a load comes after it.
pub(in crate::replay) const FIRST: &str = "(0, 0, 'first')";

/// How rows of one table are made.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    table: String,
    seed: u64,
    per_commit: u64,
}

impl Rows {
    pub(super) fn new(load: &Load, table: &str) -> Rows {
        Rows {
            table: table.to_owned(),
            seed: load.seed,
            per_commit: load.rows_per_commit,
        }
    }

    /// Ids of commit `number`, from 1 on.
    pub(super) fn ids(&self, number: u64) -> Range<u64> {
        1 + number * self.per_commit..1 + (number + 1) * self.per_commit
    }

    /// The commit that wrote `id`; `None` for what no commit writes.
    pub(super) fn commit_of(&self, id: u64) -> Option<u64> {
        Some(id.checked_sub(1)? / self.per_commit)
    }

    /// The text of a row.
    pub(super) fn note(&self, id: u64) -> String {
        let mut random = SplitMix64(self.seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        format!("{:016x}{:016x}", random.draw(), random.draw())
    }

    /// The statement that writes the rows of commit `number`.
    pub(super) fn insert(&self, number: u64, due_us: u64) -> String {
        let mut sql = format!("INSERT INTO {} VALUES ", self.table);
        for id in self.ids(number) {
            // Writing to a String cannot fail.
            let _ = write!(sql, "({id},{due_us},'{}'),", self.note(id));
        }
        sql.pop();
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_commits_belong_to_each_other() {
        let load: Load = toml::from_str("seconds = 1.0\nrows_per_commit = 3").unwrap();
        let rows = Rows::new(&load, "t");
        assert_eq!(rows.ids(0), 1..4);
        assert_eq!(rows.ids(5), 16..19);
        assert!((16..19).all(|id| rows.commit_of(id) == Some(5)));
        assert_eq!(rows.commit_of(0), None);
        assert_ne!(rows.note(1), rows.note(2));
        assert_eq!(
            rows.insert(0, 7),
            format!(
                "INSERT INTO t VALUES (1,7,'{}'),(2,7,'{}'),(3,7,'{}')",
                rows.note(1),
                rows.note(2),
                rows.note(3)
            )
        );
    }
}
