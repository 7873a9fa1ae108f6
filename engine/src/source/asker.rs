//! Asks a server what its stream does not say, on a connection of its own.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{SourceError, Verdict};

/// Attempts to get an answer.
const ATTEMPTS: usize = 5;

/// Who knows the answers.
pub(super) trait Catalog: Clone + Send + Sync + 'static {
    /// A connection to it.
    type Connection: fmt::Debug + Send + 'static;
    /// What is asked.
    type Question: Clone + fmt::Debug + Send + Sync + 'static;
    /// What comes back.
    type Shape: fmt::Debug + Send + 'static;

    /// Its name, for the log.
    const NAME: &'static str;

    /// Asks once. Takes the connection out of `slot`, or makes one, and puts it back where it can be used again.
    fn look_up(
        &self,
        slot: &mut Option<Self::Connection>,
        question: &Self::Question,
    ) -> impl Future<Output = Result<Self::Shape, SourceError>> + Send;
}

/// An attempt's connection, and what came of it.
type Outcome<C> = (
    Option<<C as Catalog>::Connection>,
    Result<<C as Catalog>::Shape, SourceError>,
);

/// Asks one question at a time.
#[derive(Debug)]
pub(super) struct Asker<C: Catalog> {
    catalog: C,
    /// Kept open: thousands of tables may follow each other.
    connection: Option<C::Connection>,
    /// The answer that is awaited, in a task of its own so that nothing is lost when the future that waits is dropped.
    asking: Option<(C::Question, JoinHandle<Outcome<C>>)>,
}

impl<C: Catalog> Asker<C> {
    pub(super) fn new(catalog: C) -> Self {
        Self {
            catalog,
            connection: None,
            asking: None,
        }
    }

    pub(super) fn ask(&mut self, question: C::Question) {
        let catalog = self.catalog.clone();
        let connection = self.connection.take();
        let asked = question.clone();
        let task = tokio::spawn(async move {
            let mut connection = connection;
            let shape = persist(&catalog, &mut connection, &asked).await;
            (connection, shape)
        });
        self.asking = Some((question, task));
    }

    /// Waits for the answer; `None` when nothing was asked. Cancel-safe.
    ///
    /// # Errors
    /// The question cannot be answered.
    pub(super) async fn answer(&mut self) -> Result<Option<(C::Question, C::Shape)>, SourceError> {
        let Some((_, task)) = &mut self.asking else {
            return Ok(None);
        };
        let done = task.await;
        let question = self.asking.take().map(|(question, _)| question);
        let (connection, shape) =
            done.map_err(|error| SourceError::halt("asking for a table's shape").because(error))?;
        self.connection = connection;
        Ok(question.zip(Some(shape?)))
    }
}

impl<C: Catalog> Drop for Asker<C> {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.asking {
            task.abort();
        }
    }
}

/// Asks until there is an answer, or it is time to give up.
async fn persist<C: Catalog>(
    catalog: &C,
    slot: &mut Option<C::Connection>,
    question: &C::Question,
) -> Result<C::Shape, SourceError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match catalog.look_up(slot, question).await {
            Err(error) if error.verdict() == Verdict::Retry && attempt < ATTEMPTS => {
                tracing::warn!("asking {} again: {error}", C::NAME);
                *slot = None;
                tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
            }
            other => return other,
        }
    }
}
