//! PostgreSQL's rows as JSON.

pub(super) mod template;
