//! The workload through several sessions of PostgreSQL at once: few and large transactions that are open at the same time, with parts
//! that are rolled back, some of them committed in two phases. What a server sends before its end where it is asked to.
//!
//! ```text
//! session 0   BEGIN ─ run ─ (SAVEPOINT ─ lost ─ ROLLBACK TO) ─ run … COMMIT ─ BEGIN …
//! session 1         BEGIN ─ run ─ (SAVEPOINT ─ run ─ RELEASE) … PREPARE TRANSACTION ─ … ─ COMMIT PREPARED ─ BEGIN …
//! ```
//! The sessions take turns, so that the log is the same every time. Each has keys of its own, so that what must come out does not
//! depend on the order among them.

use std::collections::VecDeque;

use super::differing;
use super::postgres::{Identity, SESSION, TABLE, connect, reason, statement, table_state};
use crate::truth::{History, Truth};
use crate::workload::{Change, Row, Run, Workload};

/// Transactions of a session.
const TRANSACTIONS: usize = 3;
/// Turns that a transaction stays prepared.
const PREPARED_TURNS: usize = 5;
/// What separates the keys of two sessions.
const KEYS: i64 = 1 << 32;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Who writes what.
#[derive(Clone, Copy, Debug)]
pub struct Interleaving {
    /// Row changes of all sessions.
    pub changes: u64,
    /// Of the first session's workload; the others count on.
    pub seed: u64,
    /// How many.
    pub sessions: u32,
    /// Whether every other session commits in two phases.
    pub two_phase: bool,
}

/// One session's statements, a request per turn; `None`: it does nothing for a turn.
type Turns = VecDeque<Option<String>>;

/// Writes all of it into the table that [`super::postgres::prepare`] made; answers the truth after comparing it with the table.
///
/// # Errors
/// Those of the server, or the differing line.
pub async fn seed(url: &str, plan: Interleaving, identity: Identity) -> Result<Truth, Error> {
    let mut history = History::new(identity.images());
    let mut sessions = Vec::new();
    for number in 0..plan.sessions {
        let client = connect(url).await?;
        client.batch_execute(SESSION).await.map_err(reason)?;
        sessions.push((client, turns(plan, number, &mut history)));
    }
    while sessions.iter().any(|(_, turns)| !turns.is_empty()) {
        for (client, turns) in &mut sessions {
            if let Some(Some(request)) = turns.pop_front() {
                client.batch_execute(&request).await.map_err(reason)?;
            }
        }
    }
    let truth = history.truth();
    let client = connect(url).await?;
    let (rows, state) = table_state(&client).await?;
    differing(&truth, rows, &state)?;
    Ok(truth)
}

fn turns(plan: Interleaving, number: u32, history: &mut History) -> Turns {
    let share = plan.changes / u64::from(plan.sessions.max(1));
    let workload = Workload::new(share, plan.seed + u64::from(number));
    let runs: Vec<Run> = (workload.transactions())
        .flat_map(|transaction| transaction.runs)
        .map(|run| shifted(run, i64::from(number) * KEYS))
        .collect();
    let per_transaction = runs.len().div_ceil(TRANSACTIONS).max(1);
    let mut turns = Turns::new();
    for (n, runs) in runs.chunks(per_transaction).enumerate() {
        turns.push_back(Some("BEGIN".to_owned()));
        for (at, run) in runs.iter().enumerate() {
            for change in &run.changes {
                history.change(change);
            }
            let written = statement(run);
            match at % 4 {
                1 => {
                    turns.push_back(Some(format!("SAVEPOINT lost; {}", lost(number, at))));
                    turns.push_back(Some(format!(
                        "SAVEPOINT within; {}; RELEASE within; ROLLBACK TO lost; RELEASE lost; {written}",
                        lost(number, at + 1000)
                    )));
                }
                2 => turns.push_back(Some(format!("SAVEPOINT kept; {written}; RELEASE kept"))),
                _ => turns.push_back(Some(written)),
            }
        }
        end(&mut turns, plan, number, n);
    }
    turns
}

/// How transaction `n` of a session ends, and one more that never was.
fn end(turns: &mut Turns, plan: Interleaving, number: u32, n: usize) {
    let gid = format!("walbrook {number}/{n}");
    let other = lost(number, 5000 + n);
    if !plan.two_phase || number.is_multiple_of(2) {
        turns.push_back(Some("COMMIT".to_owned()));
        turns.push_back(Some(format!("BEGIN; {other}")));
        turns.push_back(Some("ROLLBACK".to_owned()));
        return;
    }
    for (begun, decided) in [
        (format!("PREPARE TRANSACTION '{gid}'"), "COMMIT"),
        (
            format!("BEGIN; {other}; PREPARE TRANSACTION '{gid}'"),
            "ROLLBACK",
        ),
    ] {
        turns.push_back(Some(begun));
        turns.extend(std::iter::repeat_n(None, PREPARED_TURNS));
        turns.push_back(Some(format!("{decided} PREPARED '{gid}'")));
    }
}

/// Rows with keys that nobody else has, which must not come out.
fn lost(number: u32, at: usize) -> String {
    let first = -(i64::from(number) * KEYS + at as i64 * 1000);
    format!(
        "INSERT INTO {TABLE} SELECT {first} - n, 'lost', 'lost.example', '2025-01-01' FROM generate_series(1, 300) AS n; \
         UPDATE {TABLE} SET category = 'lost twice' WHERE id BETWEEN {first} - 100 AND {first} - 1"
    )
}

fn shifted(run: Run, by: i64) -> Run {
    let row = |row: Row| Row {
        id: row.id + by,
        ..row
    };
    let change = |change: Change| Change {
        before: change.before.map(row),
        after: change.after.map(row),
    };
    Run {
        operation: run.operation,
        changes: run.changes.into_iter().map(change).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::Images;

    #[test]
    fn every_transaction_ends_and_the_truth_has_every_change() {
        let plan = Interleaving {
            changes: 16_000,
            seed: 1,
            sessions: 4,
            two_phase: true,
        };
        let mut history = History::new(Images::Key);
        for number in 0..plan.sessions {
            let turns = turns(plan, number, &mut history);
            let text: Vec<String> = turns.into_iter().flatten().collect();
            let count = |words: &str| text.iter().filter(|turn| turn.contains(words)).count();
            assert!(count("ROLLBACK TO lost") > 1 && count("RELEASE kept") > 1);
            let ends = match number % 2 {
                0 => count("COMMIT"),
                _ => count("COMMIT PREPARED"),
            };
            assert_eq!(ends, TRANSACTIONS);
            assert_eq!(
                count("ROLLBACK PREPARED"),
                number as usize % 2 * TRANSACTIONS
            );
        }
        let truth = history.truth();
        assert_eq!((truth.changes, truth.inserts), (16_000, 8000));
    }
}
