//! Arrays in the server's text form.
//!
//! ```text
//! {1,NULL,3}    {{1,2},{3,4}}    {"a,b",NULL,"NULL","c\"d"}    [0:1][2:3]={{1,2},{3,4}}    {(3,4),(1,2);(7,8),(5,6)}
//! ```
//! Manual: section 8.15.6, "Array Input and Output Syntax" (<https://www.postgresql.org/docs/current/arrays.html>).

use crate::error::DecodeError;
use crate::limits;

use super::scan::Scan;

/// What an array's text is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A (sub-)array begins.
    Open,
    /// The last one that began ends.
    Close,
    /// An element that is NULL.
    Null,
    /// An element's text.
    Plain(&'a [u8]),
    /// An element's text with escapes: [`unescape`] it.
    Escaped(&'a [u8]),
}

/// An array's text being read.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    scan: Scan<'a>,
    delimiter: u8,
    depth: usize,
    /// What may come next.
    expected: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// An element or an array begins.
    Item,
    /// As `Item`, or the array that has just begun ends.
    ItemOrClose,
    /// The delimiter, or an array ends.
    Next,
    /// Nothing.
    End,
}

impl<'a> Tokens<'a> {
    /// Begins to read `text`, whose elements are parted by `delimiter`. Lower bounds other than 1 (`[0:1]=`) are skipped: JSON has none.
    ///
    /// # Errors
    /// A text that is no array.
    pub fn new(text: &'a [u8], delimiter: u8) -> Result<Self, DecodeError> {
        let mut scan = Scan::new(text, "array");
        if scan.peek() == Some(b'[') {
            while scan.eat(b"[") {
                for end in [b":", b"]"] {
                    scan.eat(b"-");
                    scan.number(1, 10)?;
                    scan.expect(end)?;
                }
            }
            scan.expect(b"=")?;
        }
        if scan.peek() != Some(b'{') {
            return Err(scan.error());
        }
        Ok(Self {
            scan,
            delimiter,
            depth: 0,
            expected: Expected::Item,
        })
    }

    /// The next token; `None` at the end.
    ///
    /// # Errors
    /// A text that is no array.
    pub fn next_token(&mut self) -> Result<Option<Token<'a>>, DecodeError> {
        if self.expected == Expected::End {
            self.scan.finish()?;
            return Ok(None);
        }
        if self.expected == Expected::Next && self.scan.eat(&[self.delimiter]) {
            self.expected = Expected::Item;
        }
        match (self.scan.peek(), self.expected) {
            (Some(b'}'), Expected::ItemOrClose | Expected::Next) => {
                self.scan.skip(1);
                self.depth = self.depth.saturating_sub(1);
                self.expected = if self.depth == 0 {
                    Expected::End
                } else {
                    Expected::Next
                };
                Ok(Some(Token::Close))
            }
            (Some(b'{'), Expected::Item | Expected::ItemOrClose)
                if self.depth < limits::POSTGRES_ARRAY_DIMENSIONS_MAX =>
            {
                self.scan.skip(1);
                self.depth += 1;
                self.expected = Expected::ItemOrClose;
                Ok(Some(Token::Open))
            }
            (Some(b'"'), Expected::Item | Expected::ItemOrClose) => {
                let (text, escaped) = quoted(&mut self.scan)?;
                self.expected = Expected::Next;
                Ok(Some(if escaped {
                    Token::Escaped(text)
                } else {
                    Token::Plain(text)
                }))
            }
            (Some(_), Expected::Item | Expected::ItemOrClose) => {
                let rest = self.scan.rest();
                let end = rest.iter().position(|byte| {
                    *byte == self.delimiter || matches!(byte, b'{' | b'}' | b'"' | b'\\')
                });
                // Neither empty nor with what would have been quoted.
                let text = rest.get(..end.unwrap_or(0)).unwrap_or_default();
                self.scan.skip(text.len());
                let ends_well = matches!(self.scan.peek(), Some(b'}'))
                    || self.scan.peek() == Some(self.delimiter);
                if text.is_empty() || !ends_well {
                    return Err(self.scan.error());
                }
                self.expected = Expected::Next;
                Ok(Some(if text == b"NULL" {
                    Token::Null
                } else {
                    Token::Plain(text)
                }))
            }
            _ => Err(self.scan.error()),
        }
    }
}

/// A quoted text: what is between the quotes, and whether there are escapes in it.
pub(super) fn quoted<'a>(scan: &mut Scan<'a>) -> Result<(&'a [u8], bool), DecodeError> {
    scan.expect(b"\"")?;
    let rest = scan.rest();
    let (mut length, mut escaped) = (0, false);
    while let Some(found) = rest
        .get(length..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        length += found;
        if rest.get(length) == Some(&b'"') {
            scan.skip(length + 1);
            return Ok((rest.get(..length).unwrap_or_default(), escaped));
        }
        escaped = true;
        length += 2;
    }
    scan.skip(rest.len());
    Err(scan.error())
}

/// Appends `text` without its backslashes: each stands before a byte that is meant as it is.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(before);
        out.extend(from.get(1));
        rest = from.get(2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tokens as a text that shows them all.
    fn shown(text: &str, delimiter: u8) -> Result<String, DecodeError> {
        let mut tokens = Tokens::new(text.as_bytes(), delimiter)?;
        let mut out = String::new();
        while let Some(token) = tokens.next_token()? {
            match token {
                Token::Open => out.push('<'),
                Token::Close => out.push('>'),
                Token::Null => out.push('~'),
                Token::Plain(text) => out += &format!("({})", String::from_utf8_lossy(text)),
                Token::Escaped(text) => {
                    let mut plain = Vec::new();
                    unescape(text, &mut plain);
                    out += &format!("({})", String::from_utf8(plain).unwrap());
                }
            }
        }
        Ok(out)
    }

    #[test]
    fn what_a_server_writes() {
        for (text, expected) in [
            ("{}", "<>"),
            ("{1,NULL,3}", "<(1)~(3)>"),
            ("[0:1][2:3]={{1,2},{3,NULL}}", "<<(1)(2)><(3)~>>"),
            ("[-2:-1]={1,2}", "<(1)(2)>"),
            (
                r#"{"NULL",null,NULL,""," a","a b","{","\\","\""}"#,
                "<(NULL)(null)~()( a)(a b)({)(\\)(\")>",
            ),
            ("{a;b}", "<(a;b)>"),
            (r#"{"{\"a\": 1}"}"#, r#"<({"a": 1})>"#),
        ] {
            assert_eq!(shown(text, b',').as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(
            shown("{(3,4),(1,2);NULL}", b';').as_deref(),
            Ok("<((3,4),(1,2))~>")
        );
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for text in [
            "",
            "1",
            "{",
            "}",
            "{1",
            "{1,}",
            "{,1}",
            "{1}}",
            "{1} ",
            "{\"a}",
            "{\"a\\",
            "{a\"b\"}",
            "{a{b}}",
            "[0:1]",
            "[0:1]={",
            "[a:1]={1}",
            "{{{{{{{1}}}}}}}",
            "{{1}{2}}",
            "{a\\b}",
        ] {
            assert!(shown(text, b',').is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(text in "[0-9{},;\"\\\\NUL=:\\[\\] ]{0,40}") {
            let _ = shown(&text, b',');
        }

        /// Elements quoted as `array_out` quotes them come back.
        #[test]
        fn quoted_elements_come_back(elements in proptest::collection::vec("\\PC{0,8}|[\"\\\\{},]{0,5}", 1..6)) {
            let quote = |e: &String| format!("\"{}\"", e.replace('\\', "\\\\").replace('"', "\\\""));
            let text = format!("{{{}}}", elements.iter().map(quote).collect::<Vec<_>>().join(","));
            let expected: String = elements.iter().map(|e| format!("({e})")).collect();
            prop_assert_eq!(shown(&text, b','), Ok(format!("<{expected}>")));
        }
    }
}
