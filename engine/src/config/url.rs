//! Source URLs: `mysql://user:password@host:3306?tls=verify-full&ca=ca.pem`, `postgres://user:password@host:5432/database`.
//!
//! A URL is taken apart as written, and only then are `${NAME}` filled in: a variable's value is a part, not text to be parsed, so
//! that a password needs no percent-encoding. What is typed literally is percent-decoded as in any URL.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::error::{ConfigError, Origin, suggestion};
use super::expand::{Variables, expand, expand_with};
use super::{Secret, SourceAddress, SourceKind, SourceTls, TlsMode, WireCompression};

const EXAMPLE: &str = "expected mysql://USER:PASSWORD@HOST:3306, mariadb://USER:PASSWORD@HOST:3306 or \
     postgres://USER:PASSWORD@HOST:5432/DATABASE";

impl SourceAddress {
    /// Takes a URL apart. No message shows its password.
    ///
    /// # Errors
    /// What is wrong with it; a scheme or option that this version does not have.
    pub fn parse(
        url: &str,
        origin: &Origin,
        variables: Variables<'_>,
    ) -> Result<Self, ConfigError> {
        let error = |text: String| ConfigError::new(origin, text);
        // A variable that holds the whole URL is a URL: filled in first.
        let whole;
        let url = match url.trim().starts_with("${") {
            true => {
                whole = expand(url.trim(), variables).map_err(error)?;
                whole.as_str()
            }
            false => url.trim(),
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| error(format!("the url has no scheme: {EXAMPLE}")))?;
        let kind = match scheme {
            "mysql" => SourceKind::MySql,
            "mariadb" => SourceKind::MariaDb,
            "postgres" | "postgresql" => SourceKind::Postgres,
            other
                if other
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
            {
                return Err(error(format!(
                    "unknown url scheme {other}://{}",
                    suggestion(other, &["mysql", "mariadb", "postgres"])
                )));
            }
            _ => return Err(error(format!("the url has no scheme: {EXAMPLE}"))),
        };
        let (authority, query) = split_query(rest);
        let (credentials, place) = authority
            .rsplit_once('@')
            .ok_or_else(|| error(format!("the url names no user: {EXAMPLE}")))?;
        let part = |text: &str| expand_with(text, variables, decode).map_err(error);
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (part(user)?, Secret::from(part(password)?)),
            None => (part(credentials)?, Secret::default()),
        };
        if user.is_empty() {
            return Err(error(format!("the url names no user: {EXAMPLE}")));
        }
        let place = expand(place, variables).map_err(error)?;
        let (place, path) = place.split_once('/').unwrap_or((&place, ""));
        let database = match kind {
            SourceKind::Postgres => decode(path).map_err(error)?,
            SourceKind::MySql | SourceKind::MariaDb => String::new(),
        };
        if kind == SourceKind::Postgres && database.is_empty() {
            return Err(error(
                "the url names no database: a slot of PostgreSQL belongs to one; \
                 expected postgres://USER:PASSWORD@HOST:5432/DATABASE"
                    .into(),
            ));
        }
        if kind != SourceKind::Postgres && !path.is_empty() {
            return Err(error(format!(
                "the url names a database, \"{path}\": a source reads the whole server; choose with tables = [\"{path}.*\"]"
            )));
        }
        let (host, port) = split_port(place, kind).map_err(error)?;
        let (tls, compression) = parse_query(query, kind, origin, variables)?;
        Ok(Self {
            kind,
            host: host.into(),
            port,
            user: user.into(),
            password,
            database: database.into(),
            tls,
            compression,
        })
    }
}

/// The query begins at the first `?` behind the last `@`, so that a password may hold one.
fn split_query(rest: &str) -> (&str, &str) {
    let credentials = rest.rfind('@').map_or(0, |at| at + 1);
    match rest[credentials..].find('?') {
        Some(at) => (&rest[..credentials + at], &rest[credentials + at + 1..]),
        None => (rest, ""),
    }
}

fn decode(text: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| "a percent-encoded part of the url is not UTF-8".to_owned())
}

/// `host`, `host:port`, `[address]:port`.
fn split_port(place: &str, kind: SourceKind) -> Result<(&str, u16), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest
                .split_once(']')
                .ok_or("the url's address has \"[\" without \"]\"")?;
            (
                host,
                after
                    .strip_prefix(':')
                    .or((!after.is_empty()).then_some(after)),
            )
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(format!("the url names no host: {EXAMPLE}"));
    }
    let port = match port {
        None => kind.port_default(),
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => {
                return Err(format!(
                    "\"{text}\" is not a port (1 to 65535); an IPv6 address stands in brackets"
                ));
            }
        },
    };
    Ok((host, port))
}

fn parse_query(
    query: &str,
    kind: SourceKind,
    origin: &Origin,
    variables: Variables<'_>,
) -> Result<(SourceTls, WireCompression), ConfigError> {
    let mut compression = match kind {
        SourceKind::MySql | SourceKind::MariaDb => WireCompression::Auto,
        SourceKind::Postgres => WireCompression::Off,
    };
    let mut tls = SourceTls {
        mode: TlsMode::Prefer,
        ca: None,
    };
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value =
            expand_with(value, variables, decode).map_err(|text| ConfigError::new(origin, text))?;
        match name {
            "tls" => {
                tls.mode = match value.as_str() {
                    "disable" => TlsMode::Disable,
                    "prefer" => TlsMode::Prefer,
                    "require" => TlsMode::Require,
                    "verify-full" => TlsMode::VerifyFull,
                    other => {
                        let known =
                            suggestion(other, &["disable", "prefer", "require", "verify-full"]);
                        return Err(ConfigError::new(
                            origin,
                            format!("tls={other} is not known{known}"),
                        ));
                    }
                }
            }
            "ca" if value.is_empty() => return Err(ConfigError::new(origin, "ca= names no file")),
            "ca" => tls.ca = Some(PathBuf::from(value)),
            "compression" => {
                compression = parse_compression(&value, kind)
                    .map_err(|text| ConfigError::new(origin, text))?;
            }
            other => {
                let known = suggestion(other, &["tls", "ca", "compression"]);
                return Err(ConfigError::new(
                    origin,
                    format!(
                        "unknown option \"{other}\" in the {} url{known}",
                        kind.as_str()
                    ),
                ));
            }
        }
    }
    if tls.ca.is_some() && matches!(tls.mode, TlsMode::Disable | TlsMode::Prefer) {
        return Err(ConfigError::new(
            origin,
            "ca= verifies nothing without tls=verify-full (or tls=require)",
        ));
    }
    Ok((tls, compression))
}

fn parse_compression(value: &str, kind: SourceKind) -> Result<WireCompression, String> {
    if kind == SourceKind::Postgres {
        return Err(
            "compression= is of MySQL's protocol; PostgreSQL's has none: leave it out, and \
             compress the line outside (a VPN or an SSH tunnel) where that pays"
                .into(),
        );
    }
    match value {
        "auto" => Ok(WireCompression::Auto),
        "zstd" => Ok(WireCompression::Zstd),
        "zlib" => Ok(WireCompression::Zlib),
        "off" => Ok(WireCompression::Off),
        other => {
            let known = suggestion(other, &["auto", "zstd", "zlib", "off"]);
            Err(format!("compression={other} is not known{known}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<SourceAddress, String> {
        let variables = |name: &str| match name {
            "PW" => Some("p@ss:w/o?rd%41#".to_owned()),
            "PLACE" => Some("db1:3307".to_owned()),
            "URL" => Some("mysql://u:p%40@h".to_owned()),
            _ => None,
        };
        SourceAddress::parse(url, &Origin::Argument("URL"), &variables).map_err(|e| e.to_string())
    }

    #[test]
    fn takes_urls_apart() {
        let a = parse("mysql://cdc:${PW}@db1:3306").unwrap();
        assert_eq!(
            (&*a.user, a.password.reveal(), &*a.host, a.port),
            ("cdc", "p@ss:w/o?rd%41#", "db1", 3306)
        );
        assert_eq!(
            a.tls,
            SourceTls {
                mode: TlsMode::Prefer,
                ca: None
            }
        );
        let a = parse("mariadb://c%40d:a%3Ab${PW}@[::1]:3310/?tls=verify-full&ca=/etc/my%20ca.pem")
            .unwrap();
        assert_eq!(
            (a.kind, &*a.user, &*a.host, a.port),
            (SourceKind::MariaDb, "c@d", "::1", 3310)
        );
        assert_eq!(a.password.reveal(), "a:bp@ss:w/o?rd%41#");
        assert_eq!(
            a.tls,
            SourceTls {
                mode: TlsMode::VerifyFull,
                ca: Some("/etc/my ca.pem".into())
            }
        );
        let a = parse("mysql://root@[::1]").unwrap();
        assert_eq!(
            (a.password.is_empty(), &*a.host, a.port),
            (true, "::1", 3306)
        );
        let a = parse("mysql://u:a@b?c@${PLACE}?tls=disable").unwrap();
        assert_eq!(
            (a.password.reveal(), &*a.host, a.port, a.tls.mode),
            ("a@b?c", "db1", 3307, TlsMode::Disable)
        );
        assert_eq!(a.compression, WireCompression::Auto);
        for (value, expected) in [
            ("auto", WireCompression::Auto),
            ("zstd", WireCompression::Zstd),
            ("zlib", WireCompression::Zlib),
            ("off", WireCompression::Off),
        ] {
            let a = parse(&format!("mariadb://u@h?tls=disable&compression={value}")).unwrap();
            assert_eq!(a.compression, expected);
        }
        let a = parse("postgres://u@h/d").unwrap();
        assert_eq!(a.compression, WireCompression::Off);
        let a = parse("${URL}").unwrap();
        assert_eq!((a.password.reveal(), &*a.host), ("p@", "h"));
    }

    #[test]
    fn says_what_is_wrong_without_the_password() {
        for (url, expected) in [
            ("mysql:/u:sesame@h", "URL: the url has no scheme"),
            ("sesame", "URL: the url has no scheme"),
            (
                "postgres://u:sesame@h",
                "URL: the url names no database: a slot of PostgreSQL belongs to one",
            ),
            (
                "mysqll://u:sesame@h",
                "URL: unknown url scheme mysqll://; did you mean \"mysql\"?",
            ),
            ("mysql://h:3306", "URL: the url names no user"),
            ("mysql://:sesame@h", "URL: the url names no user"),
            ("mysql://u:sesame@", "URL: the url names no host"),
            ("mysql://u:sesame@h:99999", "URL: \"99999\" is not a port"),
            ("mysql://u:sesame@h:0", "URL: \"0\" is not a port"),
            ("mysql://u:sesame@::1:3306", "URL: the url names no host"),
            (
                "mysql://u:sesame@h/shop",
                "URL: the url names a database, \"shop\": a source reads the whole server; choose with tables = [\"shop.*\"]",
            ),
            (
                "mysql://u:${NONE}@h",
                "URL: environment variable NONE is not set",
            ),
            (
                "mysql://u:sesame@h?tls=verify_full",
                "URL: tls=verify_full is not known; did you mean \"verify-full\"?",
            ),
            (
                "mysql://u:sesame@h?tsl=prefer",
                "URL: unknown option \"tsl\" in the mysql url; did you mean \"tls\"?",
            ),
            (
                "mysql://u:sesame@h?compression=zst",
                "URL: compression=zst is not known; did you mean \"zstd\"?",
            ),
            (
                "postgres://u:sesame@h/d?compression=auto",
                "URL: compression= is of MySQL's protocol; PostgreSQL's has none",
            ),
            ("mysql://u:sesame@h?ca=x", "URL: ca= verifies nothing"),
            ("mysql://u:%ff@h", "URL: a percent-encoded part"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.starts_with(expected), "{url}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
