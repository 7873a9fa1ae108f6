//! Statements cut into tokens, by SQL's rules as far as clients' start queries and replication commands need them.
//! <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, a name or a number, in lower case.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A string constant.
    Text(String),
    /// Anything else.
    Symbol(char),
}

impl Token {
    /// Whether it is this keyword (in lower case).
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word == keyword)
    }

    /// A name, quoted or not.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Name(name) => Some(name),
            _ => None,
        }
    }

    /// A word, a name or a constant.
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Name(text) | Self::Text(text) => Some(text),
            Self::Symbol(_) => None,
        }
    }
}

/// A token and where it begins.
type Placed = (Token, usize);

/// The tokens of `text`; `None` where a quote or comment does not end.
pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    Some(placed(text)?.into_iter().map(|(token, _)| token).collect())
}

/// The statements of a simple query, without the semicolons; empty ones are left out.
pub(super) fn statements(text: &str) -> Vec<&str> {
    let Some(tokens) = placed(text) else {
        return vec![text.trim()];
    };
    let ends = tokens
        .iter()
        .filter(|(token, _)| *token == Token::Symbol(';'))
        .map(|(_, at)| *at);
    let (mut start, mut all) = (0, Vec::new());
    for end in ends.chain([text.len()]) {
        all.push(text[start..end].trim());
        start = (end + 1).min(text.len());
    }
    all.retain(|statement| !statement.is_empty());
    all
}

fn placed(text: &str) -> Option<Vec<Placed>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let start = at;
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with("/*") {
            at += rest.find("*/")? + 2;
            continue;
        }
        let escapes = rest.starts_with("E'") || rest.starts_with("e'");
        let token = if c == '\'' || escapes {
            let open = if escapes { 2 } else { 1 };
            let (inner, length) = quoted(&rest[open..], '\'', escapes)?;
            at += open + length;
            Token::Text(inner)
        } else if c == '"' {
            let (inner, length) = quoted(&rest[1..], '"', false)?;
            at += 1 + length;
            Token::Name(inner)
        } else if is_word(c) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            at += length;
            Token::Word(rest[..length].to_lowercase())
        } else {
            at += c.len_utf8();
            Token::Symbol(c)
        };
        found.push((token, start));
    }
    Some(found)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// What stands before the closing quote, and the length with it.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<(String, usize)> {
    let (mut inner, mut characters) = (String::new(), text.char_indices().peekable());
    while let Some((at, c)) = characters.next() {
        if c == '\\' && escapes {
            inner.push(characters.next()?.1);
        } else if c != quote {
            inner.push(c);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hide_what_is_in_them() {
        let text = "SELECT 'it''s; -- no', \"A;b\" /* ; */, E'c\\'d'; -- ;\n Show X";
        assert_eq!(statements(text).len(), 2);
        let tokens = tokens(statements(text)[0]).unwrap();
        let expected = [
            Token::Word("select".into()),
            Token::Text("it's; -- no".into()),
            Token::Symbol(','),
            Token::Name("A;b".into()),
            Token::Symbol(','),
            Token::Text("c'd".into()),
        ];
        assert_eq!(tokens, expected);
        assert_eq!(statements(" ; ;"), Vec::<&str>::new());
        assert_eq!(super::tokens("SELECT 'x"), None);
    }
}
