//! Errors as a server sends them.
//!
//! ```text
//! ErrorResponse = 'E' length:4 (field:1 text 00)* 00     S severity, V the same never translated, C SQLSTATE, M message, H hint, W context
//! ```

/// An error of a command, or one that ends the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// SQLSTATE.
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) context: Option<String>,
    /// Whether the session ends with it.
    pub(super) fatal: bool,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            context: None,
            fatal: false,
        }
    }

    /// An error that ends the session.
    pub(super) fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            fatal: true,
            ..Self::new(code, message)
        }
    }

    /// The message.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.code)),
            (b'M', Some(self.message.as_str())),
            (b'H', self.hint.as_deref()),
            (b'W', self.context.as_deref()),
        ];
        super::wire::message(out, b'E', |out| {
            for (field, text) in fields {
                if let Some(text) = text {
                    out.push(field);
                    out.extend(text.bytes());
                    out.push(0);
                }
            }
            out.push(0);
        });
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
