//! Why a source stopped, answered as the caller needs it: try again, start from another position, or stop.

use std::error::Error;
use std::fmt;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same again may succeed: the connection was lost, the server is starting. Sources retry by themselves; others only see this
    /// verdict from calls that do not (connecting once, for `check` and `tap`).
    Retry,
    /// The stream cannot continue at this position (purged, reset, unknown to this server): only another position or a new
    /// snapshot helps. Nothing is skipped unless the operator says so.
    Resync,
    /// Going on would lose or bend data, or an operator has to change something first.
    Halt,
}

/// An error of a source. The text is for the operator: what, where, and what to do about it.
#[derive(Debug)]
pub struct SourceError {
    verdict: Verdict,
    text: Box<str>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl SourceError {
    /// Worth another attempt.
    #[must_use]
    pub fn retry(text: impl Into<String>) -> Self {
        Self::new(Verdict::Retry, text.into())
    }

    /// The position is lost.
    #[must_use]
    pub fn resync(text: impl Into<String>) -> Self {
        Self::new(Verdict::Resync, text.into())
    }

    /// Stop.
    #[must_use]
    pub fn halt(text: impl Into<String>) -> Self {
        Self::new(Verdict::Halt, text.into())
    }

    fn new(verdict: Verdict, text: String) -> Self {
        Self {
            verdict,
            text: text.into_boxed_str(),
            cause: None,
        }
    }

    /// The same error with what lies below it; its text follows after a colon.
    #[must_use]
    pub fn because(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self {
            cause: Some(Box::new(cause)),
            ..self
        }
    }

    /// What the caller can do.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

// The cause is part of the text already: `source()` would make reporters print it twice.
impl Error for SourceError {}
