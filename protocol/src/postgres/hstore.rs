//! The extension `hstore` in its text form: `"a"=>"1", "b"=>NULL`, backslashes before quotes and backslashes.
//!
//! Manual: appendix F, "hstore" (<https://www.postgresql.org/docs/current/hstore.html>).

use crate::error::DecodeError;

use super::array::quoted;
use super::scan::Scan;

/// A text between quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// As it stands, without the quotes.
    pub text: &'a [u8],
    /// Whether there are escapes in it: [`super::array::unescape`] it.
    pub escaped: bool,
}

/// The pairs of an hstore being read.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    scan: Scan<'a>,
}

impl<'a> Pairs<'a> {
    /// Begins to read `text`.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self {
            scan: Scan::new(text, "hstore"),
        }
    }

    /// The next pair; a value of `None` is NULL.
    ///
    /// # Errors
    /// A text that the server does not write for an hstore.
    pub fn next_pair(&mut self) -> Result<Option<(Quoted<'a>, Option<Quoted<'a>>)>, DecodeError> {
        if self.scan.is_done() {
            return Ok(None);
        }
        if self.scan.at() > 0 {
            self.scan.expect(b", ")?;
        }
        let key = self.quoted()?;
        self.scan.expect(b"=>")?;
        let value = match self.scan.eat(b"NULL") {
            true => None,
            false => Some(self.quoted()?),
        };
        Ok(Some((key, value)))
    }

    fn quoted(&mut self) -> Result<Quoted<'a>, DecodeError> {
        quoted(&mut self.scan).map(|(text, escaped)| Quoted { text, escaped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Result<Vec<(String, Option<String>)>, DecodeError> {
        let plain = |quoted: Quoted<'_>| {
            let mut out = Vec::new();
            super::super::array::unescape(quoted.text, &mut out);
            String::from_utf8(out).unwrap()
        };
        let mut pairs = Pairs::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some((key, value)) = pairs.next_pair()? {
            found.push((plain(key), value.map(plain)));
        }
        Ok(found)
    }

    #[test]
    fn what_a_server_writes() {
        let text = r#"""=>"a b", "x"=>NULL, "a\"b"=>"c\\d", "NULL"=>"NULL", "e=f,"=>"""#;
        let expected = [
            ("", Some("a b")),
            ("x", None),
            ("a\"b", Some("c\\d")),
            ("NULL", Some("NULL")),
            ("e=f,", Some("")),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(pairs(text), Ok(expected.to_vec()));
        assert_eq!(pairs(""), Ok(Vec::new()));
        for wrong in [
            "a",
            "\"a\"",
            "\"a\"=>",
            "\"a\"=>b",
            "\"a\"=>\"b",
            "\"a\"=>\"b\",",
            "\"a\"=>\"b\"\"c\"=>NULL",
            " ",
        ] {
            assert!(pairs(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(text in "[a\"\\\\=>NUL, ]{0,30}") {
            let _ = pairs(&text);
        }
    }
}
