//! Why a batch could not be encoded. Going on would lose or bend a row, so the answer to each is: halt.

use std::fmt;

use protocol::kafka::record_batch::BuildError;
use protocol::{DecodeError, DecodeErrorKind};

/// A row that cannot become a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    /// `schema.table`; empty where the batch does not even say that.
    pub table: Box<str>,
    /// The row: `file:offset/row` or `commit LSN/row`, as the `pos` header would say.
    pub position: Box<str>,
    /// What is wrong with it.
    pub kind: EncodeErrorKind,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodeErrorKind {
    /// A column's bytes do not decode.
    Value {
        /// The column; its number where it has no name.
        column: Box<str>,
        /// What the decoder says.
        error: DecodeError,
    },
    /// An ENUM or SET value without a label.
    Label {
        /// The column.
        column: Box<str>,
        /// The value: an ENUM's index from 1, a SET's bits.
        value: u64,
        /// Labels that the column has.
        labels: usize,
    },
    /// A key column that neither image holds.
    KeyColumn {
        /// The column.
        column: Box<str>,
    },
    /// PostgreSQL: a key column that neither image holds, or that the replica identity leaves out, the table's or a partition's.
    ReplicaIdentity {
        /// The column.
        column: Box<str>,
    },
    /// PostgreSQL: a value in binary, which is never asked for.
    Binary {
        /// The column.
        column: Box<str>,
    },
    /// The diff of a partial JSON update without the value that it changes.
    JsonBefore {
        /// The column.
        column: Box<str>,
    },
    /// A row whose records alone are larger than what the broker takes.
    Oversize {
        /// The key as in the record; empty for a null key.
        key: Box<str>,
        /// Bytes of the record batch that holds this row alone, as sent.
        size: usize,
        /// `kafka.batch_max`, or what broker and topic take where that is less.
        limit: usize,
    },
    /// The record batch could not be built.
    Build(BuildError),
    /// The batch points to something that it does not hold: a mistake in the source, not in the input.
    Batch(&'static str),
}

/// What else there is to do about rows that were written with a setting that is mended: the log keeps them as they are.
const GO_ON: &str = "reconnect the sessions that write, repeat the change or take a new snapshot, and go on behind what was written before by \
                     `walbrook position set`";

impl EncodeError {
    pub(super) fn unplaced(kind: EncodeErrorKind) -> Self {
        Self {
            table: Box::default(),
            position: Box::default(),
            kind,
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table {} at {}: {}",
            self.table, self.position, self.kind
        )
    }
}

impl fmt::Display for EncodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { column, error } => {
                write!(f, "column {column}: {error}")?;
                match error.kind {
                    // The log keeps what was written once.
                    DecodeErrorKind::Encoding => write!(
                        f,
                        "; correct the row on the server and go on behind its correction by `walbrook position set`, or exclude the table in \
                         source.tables"
                    ),
                    _ => Ok(()),
                }
            }
            Self::Label {
                column,
                value,
                labels,
            } => write!(
                f,
                "column {column}: value {value} has no label among the {labels} that are known; set binlog_row_metadata=FULL on the server so \
                 that it writes them with every table"
            ),
            Self::KeyColumn { column } => write!(
                f,
                "key column {column} is in neither row image; set binlog_row_image=FULL on the server, {GO_ON}"
            ),
            Self::ReplicaIdentity { column } => write!(
                f,
                "what key column {column} was before is in no row image; give the table, and each of its partitions, a replica identity that \
                 holds it: ALTER TABLE … REPLICA IDENTITY FULL"
            ),
            Self::Binary { column } => write!(
                f,
                "column {column}: the server sent a binary value; start replication without the option binary"
            ),
            Self::JsonBefore { column } => write!(
                f,
                "column {column}: a partial JSON update without the value before; set binlog_row_value_options='' or binlog_row_image=FULL \
                 on the server, {GO_ON}"
            ),
            Self::Oversize { key, size, limit } => {
                write!(f, "the record of key ")?;
                match key.is_empty() {
                    true => write!(f, "null")?,
                    false => write!(f, "{key}")?,
                }
                write!(
                    f,
                    " takes {size} bytes as sent, more than the {limit} that are allowed: raise kafka.batch_max here, message.max.bytes on the \
                     brokers and max.message.bytes on the topic, or exclude the table in source.tables"
                )
            }
            Self::Build(error) => write!(f, "{error}"),
            Self::Batch(what) => write!(f, "internal: {what}"),
        }
    }
}

impl std::error::Error for EncodeErrorKind {}

impl std::error::Error for EncodeError {}

impl From<EncodeErrorKind> for EncodeError {
    fn from(kind: EncodeErrorKind) -> Self {
        Self::unplaced(kind)
    }
}

impl From<BuildError> for EncodeErrorKind {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}
