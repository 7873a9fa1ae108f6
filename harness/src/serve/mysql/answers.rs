//! Statements answered from a recording's sidecar: variables, literal answers, catalog tables; user variables are kept.
//!
//! A statement that the recording cannot answer gets an error that names it: a replay server never makes up what a real one
//! would have said. Understood, besides the sidecar's literal answers, is what clients of replication send on start:
//! ```text
//! SET …                                         always OK; user variables are kept
//! SHOW [GLOBAL|SESSION] VARIABLES [LIKE 'x' | WHERE Variable_name = 'x' | … IN ('x', …)]
//! SELECT @@x, @y AS z, VERSION(), 1, 'text', …  [LIMIT n]
//! SELECT columns FROM schema.table [WHERE column = | IN | NOT IN … AND …] [ORDER BY …]
//! ```

use std::collections::HashMap;

use fixtures::{NULL, Sidecar};
use protocol::mysql::BinlogPosition;
use protocol::mysql::resultset::{Answer, ResultSet, ServerError};

use super::select;

/// Bytes of a value that SHOW VARIABLES tells.
const SHOWN_MAX: usize = 1024;

/// What the server says of itself besides the sidecar.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Where its binlog ends.
    pub(super) end: BinlogPosition,
    /// GTIDs executed there.
    pub(super) executed: String,
    /// GTIDs before the first event.
    pub(super) purged: String,
    /// MariaDB: where each transaction begins, with the GTIDs up to its own.
    pub(super) sets: Vec<(BinlogPosition, String)>,
}

/// One client's view.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    sidecar: &'a Sidecar,
    facts: &'a Facts,
    user: String,
    connection_id: u32,
    /// User variables, names in lower case without the `@`.
    pub(super) variables: HashMap<String, String>,
}

/// A value in a statement: text, or NULL.
type Cell = Option<String>;

impl<'a> Answers<'a> {
    pub(super) fn new(
        sidecar: &'a Sidecar,
        facts: &'a Facts,
        user: &str,
        connection_id: u32,
    ) -> Self {
        Self {
            sidecar,
            facts,
            user: user.to_owned(),
            connection_id,
            variables: HashMap::new(),
        }
    }

    /// Answers one statement.
    pub(super) fn answer(&mut self, statement: &str) -> Answer {
        let statement = statement.trim().trim_end_matches(';').trim();
        let found = self.look_up(statement).or_else(|| self.literal(statement));
        if let Some(rows) = found {
            return Answer::Rows(rows);
        }
        let words: Vec<String> = statement
            .split_whitespace()
            .take(4)
            .map(str::to_ascii_uppercase)
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let result = match words.as_slice() {
            ["SET", ..] => self.set(&statement[3..]),
            ["SHOW", "VARIABLES", ..] | ["SHOW", "GLOBAL" | "SESSION", "VARIABLES", ..] => {
                self.show_variables(statement)
            }
            ["SELECT", ..] => self.select(statement),
            ["SHOW", "BINARY", "LOG", "STATUS"] => self.unknown_beside("SHOW MASTER STATUS"),
            ["SHOW", "MASTER", "STATUS"] => self.unknown_beside("SHOW BINARY LOG STATUS"),
            _ => None,
        };
        result.unwrap_or_else(|| {
            Answer::Refused(ServerError::new(
                1105,
                "HY000",
                format!("this recording cannot answer: {statement}"),
            ))
        })
    }

    /// A syntax error where the recorded server knows the same question by another name only; clients go on to that.
    fn unknown_beside(&self, known: &str) -> Option<Answer> {
        self.sidecar.answer(known)?;
        let message = "You have an error in your SQL syntax; check the manual that corresponds to your server version \
                       for the right syntax to use near 'STATUS' at line 1";
        Some(Answer::Refused(ServerError::new(1064, "42000", message)))
    }

    /// Where the binlog ends and begins: from the stream itself, of which a scenario may have made another than the recorded one.
    fn look_up(&self, statement: &str) -> Option<ResultSet> {
        let words: Vec<String> = statement
            .split_whitespace()
            .map(str::to_ascii_uppercase)
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut recorded = self.literal(statement);
        match words.as_slice() {
            ["SHOW", "BINARY", "LOG", "STATUS"] | ["SHOW", "MASTER", "STATUS"] => {
                let set = recorded.as_mut()?;
                let file =
                    (set.columns.iter()).position(|name| name.eq_ignore_ascii_case("File"))?;
                let offset =
                    (set.columns.iter()).position(|name| name.eq_ignore_ascii_case("Position"))?;
                let gtids = (set.columns.iter())
                    .position(|name| name.eq_ignore_ascii_case("Executed_Gtid_Set"));
                let row = set.rows.first_mut()?;
                *row.get_mut(file)? = Some(self.facts.end.file.as_bytes().to_vec());
                *row.get_mut(offset)? = Some(self.facts.end.offset.to_string().into_bytes());
                if let Some(cell) = gtids.and_then(|at| row.get_mut(at)) {
                    *cell = Some(self.facts.executed.clone().into_bytes());
                }
                recorded
            }
            ["SHOW", "BINARY" | "MASTER", "LOGS"] => {
                let set = recorded.as_mut()?;
                let end = self.facts.end.file.as_bytes();
                for row in &mut set.rows {
                    if row.first()?.as_deref() == Some(end)
                        && let Some(size) = row.get_mut(1)
                    {
                        *size = Some(self.facts.end.offset.to_string().into_bytes());
                    }
                }
                recorded
            }
            _ => None,
        }
    }

    fn literal(&self, statement: &str) -> Option<ResultSet> {
        let answer = self.sidecar.answer(statement)?;
        Some(ResultSet {
            columns: answer.columns.clone(),
            rows: answer
                .rows
                .iter()
                .map(|row| row.iter().map(|c| bytes(cell(c))).collect())
                .collect(),
        })
    }

    /// `@x = value, @y := value, NAMES …`: system variables are taken without effect.
    fn set(&mut self, assignments: &str) -> Option<Answer> {
        for assignment in select::split(assignments, ',') {
            let Some((name, value)) = assignment.split_once('=') else {
                continue;
            };
            let name = name.trim_end_matches(':').trim();
            if let Some(name) = name.strip_prefix('@').filter(|name| !name.starts_with('@')) {
                let value = self.value(value.trim())?;
                let name = name.trim_matches('`').to_ascii_lowercase();
                match value {
                    Some(value) => self.variables.insert(name, value),
                    None => self.variables.remove(&name),
                };
            }
        }
        Some(Answer::Done)
    }

    fn show_variables(&self, statement: &str) -> Option<Answer> {
        let upper = statement.to_ascii_uppercase();
        let rest = statement[upper.find("VARIABLES")? + "VARIABLES".len()..].trim();
        let filter = select::variable_filter(rest)?;
        let mut rows = Vec::new();
        for (name, value) in &self.all_variables() {
            if filter.matches(name) {
                // Servers say no more here; SELECT @@x says all.
                let mut value = value.clone().into_bytes();
                value.truncate(SHOWN_MAX);
                rows.push(vec![Some(name.clone().into_bytes()), Some(value)]);
            }
        }
        Some(Answer::Rows(ResultSet {
            columns: vec!["Variable_name".into(), "Value".into()],
            rows,
        }))
    }

    fn all_variables(&self) -> std::collections::BTreeMap<String, String> {
        let mut all = self.sidecar.variables.clone();
        let (set, purged) = match self.sidecar.is_mariadb() {
            true => ("gtid_binlog_pos", ""),
            false => ("gtid_executed", "gtid_purged"),
        };
        for (name, value) in [(set, &self.facts.executed), (purged, &self.facts.purged)] {
            if let Some(slot) = all.get_mut(name) {
                slot.clone_from(value);
            }
        }
        all
    }

    fn select(&self, statement: &str) -> Option<Answer> {
        if let Some(select) = select::Select::parse(statement) {
            let relation = self.sidecar.relation(&select.from)?;
            return select.run(relation).map(Answer::Rows);
        }
        let (mut columns, mut row) = (Vec::new(), Vec::new());
        let list = select::without_limit(&statement["SELECT".len()..]);
        for expression in select::split(list, ',') {
            let (text, name) = select::alias(expression);
            let value = match self.system_variable(text) {
                Some(Ok(value)) => Some(value),
                Some(Err(error)) => return Some(Answer::Refused(error)),
                None => self.value(text)?,
            };
            columns.push(name.to_owned());
            row.push(bytes(value));
        }
        Some(Answer::Rows(ResultSet {
            columns,
            rows: vec![row],
        }))
    }

    /// `None` when `text` is no `@@name`.
    fn system_variable(&self, text: &str) -> Option<Result<String, ServerError>> {
        let name = text
            .strip_prefix("@@")?
            .trim_matches('`')
            .to_ascii_lowercase();
        let name = ["global.", "session.", "local."]
            .iter()
            .find_map(|scope| name.strip_prefix(scope))
            .unwrap_or(&name);
        let known = self.all_variables();
        // What clients ask for their own sake, and recordings leave out because it is the machine's.
        let usual = |name: &str| match name {
            "version_comment" => Some("Walbrook replay server"),
            "socket" => Some(""),
            "max_allowed_packet" => Some("67108864"),
            "wait_timeout" | "interactive_timeout" => Some("28800"),
            "sql_mode" => Some(""),
            _ => None,
        };
        let value = known
            .get(name)
            .cloned()
            .or_else(|| usual(name).map(str::to_owned));
        Some(value.ok_or_else(|| {
            ServerError::new(
                1193,
                "HY000",
                format!("Unknown system variable '{name}' (not in this recording)"),
            )
        }))
    }

    /// The value of a simple expression; `None` when it is none that we know.
    fn value(&self, text: &str) -> Option<Cell> {
        let text = text.trim();
        if let Some(value) = self.system_variable(text) {
            return value.ok().map(Some);
        }
        if let Some(name) = text.strip_prefix('@') {
            let name = name.trim_matches('`').to_ascii_lowercase();
            return Some(self.variables.get(&name).cloned());
        }
        if let Some(literal) = select::literal(text) {
            return Some(literal);
        }
        let upper: String = text.to_ascii_uppercase().split_whitespace().collect();
        Some(match upper.as_str() {
            "VERSION()" => Some(self.sidecar.version.clone()),
            "CONNECTION_ID()" => Some(self.connection_id.to_string()),
            "USER()" | "CURRENT_USER()" | "CURRENT_USER" => Some(format!("{}@%", self.user)),
            "DATABASE()" => None,
            "UNIX_TIMESTAMP()" => Some(crate::clock::since_epoch().as_secs().to_string()),
            _ => return self.gtid_position(text),
        })
    }

    /// `BINLOG_GTID_POS('file', offset)`: NULL for a file that there is not.
    fn gtid_position(&self, text: &str) -> Option<Cell> {
        let open = text.find('(')?;
        let (name, rest) = text.split_at(open);
        let arguments = rest.strip_prefix('(')?.strip_suffix(')')?;
        let mut arguments = select::split(arguments, ',').into_iter().map(str::trim);
        let file = select::literal(arguments.next()?)??;
        let offset: u64 = arguments.next()?.parse().ok()?;
        if !name.trim().eq_ignore_ascii_case("BINLOG_GTID_POS") {
            return None;
        }
        let start = &self.sidecar.start;
        let known = file == start.file || *file == *self.facts.end.file;
        let has_file = |(begin, _): &(BinlogPosition, String)| *begin.file == *file;
        if !known && !self.facts.sets.iter().any(has_file) {
            return Some(None);
        }
        // Names of files are of one length.
        let before = (self.facts.sets)
            .partition_point(|(begin, _)| (&*begin.file, begin.offset) < (&file, offset));
        let last = before.checked_sub(1).and_then(|at| self.facts.sets.get(at));
        Some(Some(
            last.map_or(&self.facts.purged, |(_, set)| set).clone(),
        ))
    }
}

/// A sidecar's cell.
pub(super) fn cell(text: &str) -> Cell {
    (text != NULL).then(|| text.to_owned())
}

/// A cell as a result set has it.
pub(super) fn bytes(cell: Cell) -> Option<Vec<u8>> {
    cell.map(String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(answers: &mut Answers<'_>, statement: &str) -> Result<Vec<Vec<Cell>>, String> {
        match answers.answer(statement) {
            Answer::Done => Ok(Vec::new()),
            Answer::Refused(error) => Err(error.to_string()),
            Answer::Rows(set) => {
                let text = |c: Option<Vec<u8>>| c.map(|c| String::from_utf8(c).unwrap());
                Ok(set
                    .rows
                    .into_iter()
                    .map(|row| row.into_iter().map(text).collect())
                    .collect())
            }
        }
    }

    #[test]
    fn start_queries_of_clients() {
        let recording = fixtures::Recording::named("mysql-9.7-20k").unwrap();
        let facts = Facts {
            end: "binlog.000009:77".parse().unwrap(),
            executed: "set".into(),
            purged: String::new(),
            sets: Vec::new(),
        };
        let mut answers = Answers::new(&recording.sidecar, &facts, "cdc", 7);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            ask(&mut answers, "SELECT @@global.binlog_format, 1 AS x").unwrap(),
            [[some("ROW"), some("1")]]
        );
        let status = ask(&mut answers, "show binary log status;").unwrap();
        assert_eq!(status[0][..2], [some("binlog.000009"), some("77")]);
        let like = ask(&mut answers, "SHOW VARIABLES LIKE 'gtid\\_exec%'").unwrap();
        assert_eq!(
            like,
            [
                [some("gtid_executed"), some("set")],
                [some("gtid_executed_compression_period"), some("0")]
            ]
        );
        let long = Facts {
            executed: "a".repeat(2000),
            ..facts.clone()
        };
        let mut long = Answers::new(&recording.sidecar, &long, "cdc", 7);
        let shown = ask(&mut long, "SHOW VARIABLES LIKE 'gtid\\_executed'").unwrap();
        assert_eq!(shown[0][1].as_ref().unwrap().len(), 1024);
        let selected = ask(
            &mut long,
            "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged",
        );
        assert_eq!(selected.unwrap()[0][0].as_ref().unwrap().len(), 2000);
        let two = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_format', 'binlog_row_image', 'nothing')";
        assert_eq!(ask(&mut answers, two).unwrap().len(), 2);
        ask(
            &mut answers,
            "SET @source_binlog_checksum = @@GLOBAL.binlog_checksum, @x := 'a,b', NAMES utf8mb4",
        )
        .unwrap();
        assert_eq!(answers.variables["source_binlog_checksum"], "CRC32");
        assert_eq!(
            ask(&mut answers, "SELECT @x, @nothing").unwrap(),
            [[some("a,b"), None]]
        );
        let catalog = "SELECT TABLE_NAME, column_name FROM information_schema.columns WHERE table_schema IN ('shop') AND ordinal_position = 1 ORDER BY 1";
        assert!(ask(&mut answers, catalog).is_ok());
        let error = ask(&mut answers, "SELECT * FROM shop.events").unwrap_err();
        assert_eq!(
            error,
            "server error 1105 (HY000): this recording cannot answer: SELECT * FROM shop.events"
        );
        assert!(
            ask(&mut answers, "SELECT @@nonsense")
                .unwrap_err()
                .contains("nonsense")
        );
        assert!(ask(&mut answers, "DROP TABLE x").is_err());
    }
}
