//! Columns and their types.

/// A column of a table, as one version of the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: Box<str>,
    /// `pg_type.oid` of the column as declared: a domain's own, not its base type's.
    pub type_oid: u32,
    /// `atttypmod`: −1 for none.
    pub type_modifier: i32,
    /// What its values look like.
    pub kind: ColumnType,
}

/// How a column's values are written; domains are resolved to what they are based on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnType {
    /// The server's text says it all: `text`, `varchar`, `uuid`, `inet`, `xml`, and every type without a mapping of its own.
    Text,
}
