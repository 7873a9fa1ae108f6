//! Asks a server what its stream does not say, on a connection of its own.

use std::fmt;

use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::{SourceError, Verdict};

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
            let shape = persist(&catalog, &mut connection, &asked, rand::random).await;
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

/// Asks until there is an answer, however long the server is away: the stream waits for it just as long. `random` is uniform in
/// `0.0..1.0`.
async fn persist<C: Catalog>(
    catalog: &C,
    slot: &mut Option<C::Connection>,
    question: &C::Question,
    random: fn() -> f64,
) -> Result<C::Shape, SourceError> {
    let mut backoff = Backoff::default();
    loop {
        let error = match catalog.look_up(slot, question).await {
            Err(error) if error.verdict() == Verdict::Retry => error,
            done => return done,
        };
        *slot = None;
        let pause = backoff.next(random());
        tracing::warn!(
            attempts = backoff.attempts(),
            "asking {} again in {:.1} s: {error}",
            C::NAME,
            pause.as_secs_f64()
        );
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A server that is away for so many attempts.
    #[derive(Debug, Clone)]
    struct Away {
        attempts: Arc<AtomicUsize>,
        until: usize,
    }

    impl Catalog for Away {
        type Connection = ();
        type Question = Verdict;
        type Shape = usize;

        const NAME: &'static str = "the server";

        async fn look_up(
            &self,
            slot: &mut Option<()>,
            verdict: &Verdict,
        ) -> Result<usize, SourceError> {
            assert_eq!(slot.replace(()), None, "a connection that failed");
            let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
            match verdict {
                _ if attempt > self.until => Ok(attempt),
                Verdict::Retry => Err(SourceError::retry("it is being restarted")),
                _ => Err(SourceError::halt("there is no such table")),
            }
        }
    }

    fn away(until: usize) -> Away {
        Away {
            attempts: Arc::default(),
            until,
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_asked_until_it_answers() {
        let server = away(5);
        let answer = persist(&server, &mut None, &Verdict::Retry, || 0.0).await;
        assert_eq!(answer.unwrap(), 6);
        let server = away(5);
        let answer = persist(&server, &mut None, &Verdict::Halt, || 0.0).await;
        assert_eq!(answer.unwrap_err().verdict(), Verdict::Halt);
        assert_eq!(server.attempts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn asking_ends_with_whoever_asked() {
        let server = away(usize::MAX);
        let mut asker = Asker::new(server.clone());
        asker.ask(Verdict::Retry);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), asker.answer());
        assert!(waiting.await.is_err(), "there is no answer");
        // Every attempt has a copy of it, the task as long as it lives.
        assert_eq!(Arc::strong_count(&server.attempts), 3);
        drop(asker);
        while Arc::strong_count(&server.attempts) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
