//! The tokens of a statement, comments and blanks skipped.

/// Bits of a session's `@@sql_mode`, of which two say how its statements are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SqlMode(pub u64);

impl SqlMode {
    /// `"` quotes names instead of strings.
    pub const ANSI_QUOTES: Self = Self(0x4);
    /// A backslash in a string is a character like any other.
    pub const NO_BACKSLASH_ESCAPES: Self = Self(0x10_0000);

    const fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, plain name or number.
    Word(&'a str),
    /// A name in quotes.
    Name(String),
    /// A string.
    Text(String),
    /// Anything else, one character.
    Sign(char),
}

impl Token<'_> {
    /// Whether this is the keyword `word`.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

/// Reads tokens from a statement.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a str,
    mode: SqlMode,
}

impl<'a> Tokens<'a> {
    pub(super) const fn new(text: &'a str, mode: SqlMode) -> Self {
        Self { rest: text, mode }
    }

    /// The token after `skipped` others, without reading it.
    pub(super) fn lookahead(&self, skipped: usize) -> Option<Token<'a>> {
        self.clone().nth(skipped)
    }

    /// Blanks, comments, and the brackets of version comments, whose insides are text.
    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest.trim_start();
            let after = if let Some(comment) = rest.strip_prefix("/*!") {
                Some(comment.trim_start_matches(|c: char| c.is_ascii_digit()))
            } else if let Some(comment) = rest.strip_prefix("/*M!") {
                Some(comment.trim_start_matches(|c: char| c.is_ascii_digit()))
            } else if let Some(comment) = rest.strip_prefix("/*") {
                Some(comment.split_once("*/").map_or("", |(_, after)| after))
            } else if let Some(after) = rest.strip_prefix("*/") {
                Some(after)
            } else if rest.starts_with('#') || is_dash_comment(rest) {
                Some(rest.split_once('\n').map_or("", |(_, after)| after))
            } else {
                None
            };
            match after {
                Some(after) => self.rest = after,
                None => {
                    self.rest = rest;
                    return;
                }
            }
        }
    }

    /// What stands in quotes, the opening one read already; a doubled quote (and in strings a backslash) makes the next plain.
    fn quoted(&mut self, quote: char, backslashes: bool) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                if chars.next_if(|(_, next)| *next == quote).is_none() {
                    end = at + c.len_utf8();
                    break;
                }
                text.push(c);
            } else if c == '\\' && backslashes {
                match chars.next().map(|(_, c)| c) {
                    Some('0') => text.push('\0'),
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some(other) => text.push(other),
                    None => {}
                }
            } else {
                text.push(c);
            }
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        text
    }
}

/// `--` starts a comment only where a blank or the end follows.
fn is_dash_comment(rest: &str) -> bool {
    rest.strip_prefix("--")
        .is_some_and(|after| after.is_empty() || after.starts_with(|c: char| c <= ' '))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '@' || c as u32 >= 0x80
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let first = self.rest.chars().next()?;
        if is_word(first) {
            let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest;
            return Some(Token::Word(word));
        }
        self.rest = self.rest.get(first.len_utf8()..).unwrap_or_default();
        Some(match first {
            '`' => Token::Name(self.quoted('`', false)),
            '"' if self.mode.has(SqlMode::ANSI_QUOTES) => Token::Name(self.quoted('"', false)),
            '"' | '\'' => {
                let backslashes = !self.mode.has(SqlMode::NO_BACKSLASH_ESCAPES);
                Token::Text(self.quoted(first, backslashes))
            }
            sign => Token::Sign(sign),
        })
    }
}
