//! Statements of the binary log: transaction control, definitions that change, and changes that no rows describe.

use protocol::mysql::event::{Header, Query};
use protocol::mysql::statement::{self, TableName};

use super::rows::Sink;
use super::{Decoder, Next};
use crate::source::SourceError;
use crate::source::mysql::names;

impl Decoder {
    /// A statement.
    pub(super) fn query(
        &mut self,
        sink: &mut Sink<'_>,
        header: &Header,
        query: &Query<'_>,
        offset: u64,
    ) -> Result<Next, SourceError> {
        use statement::Statement as Said;
        let said = query.recognise();
        if self.open.is_none() {
            // Servers without GTIDs begin with the statement itself.
            self.begin_transaction(offset)?;
            if said != Said::Begin {
                self.check_delivered(offset)?;
            }
        }
        let Some(open) = &mut self.open else {
            return Ok(Next::Event);
        };
        match said {
            Said::Begin => {
                open.begun = true;
                open.thread = Some(query.thread);
                if open.gtid.is_none() && open.rows == 0 {
                    self.check_delivered(offset)?;
                }
            }
            Said::Commit => self.end_transaction()?,
            Said::Rollback if open.captured > 0 => {
                let id = open.id();
                return Err(self.refuse(
                    offset,
                    format_args!(
                        "transaction {id} changed tables with and without transactions and was rolled back: which of its rows \
                         remain cannot be known; compare the tables with their topics, and set a later position by \
                         `walbrook position set`"
                    ),
                ));
            }
            Said::Rollback => self.end_transaction()?,
            Said::RollbackToSavepoint if open.captured > 0 || self.held.is_some() => {
                return Err(self.refuse(
                    offset,
                    "ROLLBACK TO SAVEPOINT after rows: which of them remain cannot be known; set a later position by \
                     `walbrook position set`",
                ));
            }
            Said::RollbackToSavepoint | Said::Savepoint | Said::ReleaseSavepoint => {}
            Said::Xa(verb, xid) => return self.xa(verb, &xid, query, offset),
            Said::Dml { tables, .. }
            | Said::Ddl {
                tables,
                writes_rows: true,
                ..
            } if self.captures(&tables, query.database) => {
                return Err(self.refuse(offset, statement_based(query)));
            }
            Said::Ddl {
                tables,
                begins_transaction,
                only_new,
                ..
            } => {
                if !only_new {
                    self.redefined(&tables, query.database)?;
                }
                if let Some(open) = &mut self.open {
                    open.begun |= begins_transaction;
                }
                self.end_if_alone()?;
            }
            Said::DropDatabase(_) => {
                self.redefined(&statement::Tables::default(), query.database)?;
                self.end_if_alone()?;
            }
            Said::Truncate(named) => {
                self.truncate(sink, header, query, &named, offset)?;
                self.end_if_alone()?;
            }
            Said::Dml { .. } | Said::Other => self.end_if_alone()?,
        }
        Ok(Next::Event)
    }

    /// Definitions changed: TABLE_MAPs with the same bytes as before may mean something else from here on.
    ///
    /// # Errors
    /// It cannot be noted for a later start.
    fn redefined(
        &mut self,
        tables: &statement::Tables,
        database: &[u8],
    ) -> Result<(), SourceError> {
        if self.warm_up.is_some() {
            return Ok(());
        }
        let here = self.here();
        for table in &tables.named {
            let (schema, table) = names::stored(table, database, self.folds_names);
            let name = Some((&*schema, &*table));
            self.tables.forget(name);
            self.versions.end(name, &here)?;
        }
        if !tables.complete {
            self.tables.forget(None);
            self.versions.end(None, &here)?;
        }
        Ok(())
    }

    /// Whether a statement may change a captured table, and does so behind the start: a warm-up passes over what stands before it.
    fn captures(&self, tables: &statement::Tables, database: &[u8]) -> bool {
        let captured = |table: &TableName| {
            let (schema, table) = names::stored(table, database, self.folds_names);
            self.selection.includes(&schema, &table)
        };
        // What it changes besides the tables that it names may be any table, whatever its database.
        self.warm_up.is_none() && (!tables.complete || tables.named.iter().any(captured))
    }

    /// A statement outside BEGIN and COMMIT is a transaction of its own.
    fn end_if_alone(&mut self) -> Result<(), SourceError> {
        match &self.open {
            Some(open) if open.begun => Ok(()),
            _ => self.end_transaction(),
        }
    }
}

fn statement_based(query: &Query<'_>) -> String {
    let mut statement = query.text().into_owned();
    if let Some((at, _)) = statement.char_indices().nth(200) {
        statement.truncate(at);
        statement.push('…');
    }
    let memory = match empties(&query.text()) {
        true => {
            "if it is a MEMORY table, the server has emptied it at its first use after a restart, which it logs so whatever the format: \
             exclude the table in source.tables, or delete its rows downstream and set a later position by `walbrook position set`; \
             otherwise "
        }
        false => "",
    };
    format!(
        "a captured table was changed by a logged statement instead of rows: {statement:?}; {memory}run SET GLOBAL binlog_format = ROW \
         (no session may set another one), repeat the change or take a new snapshot, then set a later position by \
         `walbrook position set`"
    )
}

/// Whether a statement is one of those by which a server empties a MEMORY table that a restart has emptied: ``DELETE FROM `a`.`b` ``, and a
/// comment where there is one. MySQL 9.7 and MariaDB 10.11.18 log a TRUNCATE TABLE instead.
fn empties(statement: &str) -> bool {
    let begin = "DELETE FROM `";
    let (head, rest) = match statement.split_at_checked(begin.len()) {
        Some(parts) => parts,
        None => return false,
    };
    let name = rest.split("/*").next().unwrap_or_default().trim_end();
    head.eq_ignore_ascii_case(begin) && name.ends_with('`') && !name.contains(' ')
}
