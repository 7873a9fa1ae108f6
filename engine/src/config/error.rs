//! What is wrong with a configuration: where, what, and what was probably meant.

use std::fmt;
use std::sync::Arc;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Line of a file, from 1.
    Line(Arc<str>, usize),
    /// Given as `--set`, with its key.
    Set(Arc<str>),
    /// An argument of the command line, by its name in the help.
    Argument(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::Set(key) => write!(f, "--set {key}"),
            Self::Argument(name) => f.write_str(name),
        }
    }
}

/// A configuration that cannot be used: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {text}")]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// What; never with a secret in it.
    pub text: String,
}

impl ConfigError {
    pub(super) fn new(origin: &Origin, text: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            text: text.into(),
        }
    }

    /// A setting that the interface names and that this version does not have.
    pub(super) fn unavailable(origin: &Origin, what: impl fmt::Display) -> Self {
        Self::new(origin, format!("{what} is not available in this version"))
    }
}

/// The nearest of `known`, as the end of a message: `; did you mean "…"?`, or all of them when nothing is near.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(word, candidate),
                candidate,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, candidate)) if likeness >= 0.4 => {
            format!("; did you mean \"{candidate}\"?")
        }
        _ => format!("; known are {}", known.join(", ")),
    }
}
