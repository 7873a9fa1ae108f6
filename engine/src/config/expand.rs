//! `${NAME}` in values. `$${` stands for a literal `${`.

/// One piece of a text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// As written.
    Literal(&'a str),
    /// The name of a variable.
    Variable(&'a str),
}

/// Where variables come from: the environment, or a test's map.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Takes a text apart.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(kept) = before.strip_suffix('$') {
            pieces.push(Piece::Literal(kept));
            pieces.push(Piece::Literal("${"));
            rest = &from[2..];
            continue;
        }
        pieces.push(Piece::Literal(before));
        let end = from
            .find('}')
            .ok_or("\"${\" without \"}\": write ${NAME}, or $${ for a literal ${")?;
        let name = &from[2..end];
        let good = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            return Err(format!(
                "${{{name}}} does not name an environment variable: letters, digits and _ make a name"
            ));
        }
        pieces.push(Piece::Variable(name));
        rest = &from[end + 1..];
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|piece| *piece != Piece::Literal(""));
    Ok(pieces)
}

/// Puts the variables in, literal parts through `literal`.
pub(super) fn expand_with(
    text: &str,
    variables: Variables<'_>,
    literal: impl Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let mut expanded = String::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Literal(text) => expanded += &literal(text)?,
            Piece::Variable(name) => {
                expanded += &variables(name)
                    .ok_or_else(|| format!("environment variable {name} is not set"))?;
            }
        }
    }
    Ok(expanded)
}

/// Puts the variables in.
pub(super) fn expand(text: &str, variables: Variables<'_>) -> Result<String, String> {
    expand_with(text, variables, |literal| Ok(literal.to_owned()))
}

/// The process's own environment.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "TRICKY" => Some("${A}$}".into()),
            _ => None,
        }
    }

    #[test]
    fn puts_values_in_once() {
        assert_eq!(
            expand("x ${A}${A} $ y$", &variables).unwrap(),
            "x oneone $ y$"
        );
        assert_eq!(expand("${TRICKY}", &variables).unwrap(), "${A}$}");
        assert_eq!(expand("$${A} $$${A}", &variables).unwrap(), "${A} $${A}");
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(
            expand("${NO_SUCH}", &variables).unwrap_err(),
            "environment variable NO_SUCH is not set"
        );
        assert!(expand("${A", &variables).unwrap_err().contains("without"));
        assert!(
            expand("${A-b}", &variables)
                .unwrap_err()
                .starts_with("${A-b} does not name")
        );
    }
}
