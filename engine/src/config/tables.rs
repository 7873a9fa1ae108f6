//! Which tables a source captures: globs of `database.table`, `!` excludes, system schemas never.

use std::fmt::Write as _;

use globset::{Glob, GlobMatcher};
use sha2::{Digest as _, Sha256};

/// Schemas of the server's own, never captured whatever the globs say.
const SYSTEM_SCHEMAS: [&str; 6] = [
    "mysql",
    "information_schema",
    "performance_schema",
    "sys",
    "pg_catalog",
    "pg_toast",
];

/// One glob: a pattern for the database and one for the table, split at the first dot.
#[derive(Debug, Clone)]
struct Pattern {
    schema: GlobMatcher,
    table: GlobMatcher,
}

impl Pattern {
    fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.is_match(schema) && self.table.is_match(table)
    }
}

/// The `tables` of a source, compiled.
///
/// A table is captured when a glob includes it and none excludes it, whatever their order; with excluding globs alone,
/// everything else is captured.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    texts: Vec<String>,
}

/// A glob that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{glob}\": {reason}")]
pub struct InvalidGlob {
    /// The glob as written.
    pub glob: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Selection {
    /// Compiles globs such as `shop.*`, `*.events_{eu,us}`, `!shop.audit`.
    ///
    /// # Errors
    /// The first glob that has no dot or is not a glob.
    pub fn new<S: AsRef<str>>(globs: &[S]) -> Result<Self, InvalidGlob> {
        let mut selection = Self {
            include: Vec::new(),
            exclude: Vec::new(),
            texts: Vec::new(),
        };
        for text in globs {
            let text = text.as_ref().trim();
            let (glob, list) = match text.strip_prefix('!') {
                Some(rest) => (rest, &mut selection.exclude),
                None => (text, &mut selection.include),
            };
            list.push(compile(glob).map_err(|reason| InvalidGlob {
                glob: text.to_owned(),
                reason,
            })?);
            selection.texts.push(text.to_owned());
        }
        Ok(selection)
    }

    /// Every table but the system's.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            texts: vec!["*.*".to_owned()],
        }
    }

    /// Whether nothing is left out but the system's tables.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let all = |glob: &String| glob == "*.*";
        self.exclude.is_empty() && (self.include.is_empty() || self.texts.iter().any(all))
    }

    /// Whether changes of `schema.table` are captured. Costs some hundred nanoseconds: ask once per table version.
    #[must_use]
    pub fn includes(&self, schema: &str, table: &str) -> bool {
        if SYSTEM_SCHEMAS
            .iter()
            .any(|system| system.eq_ignore_ascii_case(schema))
        {
            return false;
        }
        let wanted =
            self.include.is_empty() || self.include.iter().any(|p| p.matches(schema, table));
        wanted && !self.exclude.iter().any(|p| p.matches(schema, table))
    }

    /// Whether any table of this schema could be captured: whether DDL or a plain statement there concerns us at all.
    #[must_use]
    pub fn may_include_schema(&self, schema: &str) -> bool {
        !SYSTEM_SCHEMAS
            .iter()
            .any(|system| system.eq_ignore_ascii_case(schema))
            && (self.include.is_empty() || self.include.iter().any(|p| p.schema.is_match(schema)))
    }

    /// The globs as written.
    #[must_use]
    pub fn globs(&self) -> &[String] {
        &self.texts
    }

    /// A short text that differs when the selection does, whatever the order of the globs: the checkpoint keeps it, because a
    /// restart with another selection cannot know from the topics what has been written.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        texts.sort_unstable();
        texts.dedup();
        short_digest(&texts.join("\n"))
    }
}

/// 16 hexadecimal digits that differ when the text does.
pub(super) fn short_digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn compile(glob: &str) -> Result<Pattern, String> {
    let (schema, table) = glob
        .split_once('.')
        .filter(|(schema, table)| !schema.is_empty() && !table.is_empty())
        .ok_or_else(|| {
            format!(
                "expected DATABASE.TABLE, for example \"{}.*\"",
                if glob.is_empty() { "shop" } else { glob }
            )
        })?;
    let matcher = |text: &str| {
        Glob::new(text)
            .map(|g| g.compile_matcher())
            .map_err(|e| e.kind().to_string())
    };
    Ok(Pattern {
        schema: matcher(schema)?,
        table: matcher(table)?,
    })
}

#[cfg(test)]
mod tests {
    use super::Selection;

    #[test]
    fn excludes_win_and_system_schemas_never_show() {
        let s = Selection::new(&["*.*", "!shop.audit"]).unwrap();
        assert!(s.includes("shop", "orders"));
        assert!(!s.includes("shop", "audit"));
        assert!(s.includes("shop2", "audit"));
        assert!(!s.includes("mysql", "user"));
        assert!(!s.includes("MYSQL", "user"));
        assert!(!s.includes("performance_schema", "threads"));
        assert!(!Selection::everything().includes("sys", "sys_config"));
    }

    #[test]
    fn globs_split_at_the_first_dot() {
        let s = Selection::new(&["shop.a*", "x?.{one,two}", "odd.a.b"]).unwrap();
        assert!(s.includes("shop", "a"));
        assert!(!s.includes("shop", "b"));
        assert!(s.includes("xy", "two"));
        assert!(!s.includes("xyz", "two"));
        assert!(s.includes("odd", "a.b"));
        assert!(s.may_include_schema("xz") && !s.may_include_schema("other"));
    }

    #[test]
    fn only_excludes_mean_all_the_rest() {
        let s = Selection::new(&["!a.*"]).unwrap();
        assert!(s.includes("b", "t") && !s.includes("a", "t"));
    }

    #[test]
    fn bad_globs_are_named() {
        assert_eq!(
            Selection::new(&["shop"]).unwrap_err().to_string(),
            "\"shop\": expected DATABASE.TABLE, for example \"shop.*\""
        );
        assert!(
            Selection::new(&["shop.[a"])
                .unwrap_err()
                .to_string()
                .starts_with("\"shop.[a\": ")
        );
    }

    #[test]
    fn digest_ignores_order() {
        let a = Selection::new(&["a.*", "!a.b"]).unwrap().digest();
        assert_eq!(a, Selection::new(&["!a.b", "a.*"]).unwrap().digest());
        assert_ne!(a, Selection::new(&["a.*"]).unwrap().digest());
        assert_eq!(a.len(), 16);
    }
}
