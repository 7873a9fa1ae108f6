//! The start of a session: protection of the line, who we are, and the proof of it (section "Start-up").
//!
//! ```text
//! SSLRequest ─► S | N ─► TLS ─► StartupMessage ─► AuthenticationX ─► answer … ─► AuthenticationOk ─► ParameterStatus … ─► ReadyForQuery
//! ```

use std::fmt;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};

use super::packet::{write, write_text, write_untagged};
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// Asks whether the server has TLS; it answers with one byte, `S` or `N`.
pub fn write_ssl_request(out: &mut Vec<u8>) {
    write_untagged(out, |out| {
        out.extend_from_slice(&80_877_103_u32.to_be_bytes())
    });
}

/// Says who we are and what we want, as (name, value): `user`, `database`, `replication`, `options`, `application_name`.
pub fn write_startup(out: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    write_untagged(out, |out| {
        out.extend_from_slice(&(3_u32 << 16).to_be_bytes());
        for (name, value) in parameters {
            write_text(out, name);
            write_text(out, value);
        }
        out.push(0);
    });
}

/// Why the server's wish cannot be granted.
#[derive(Debug)]
pub enum AuthError {
    /// The message cannot be read.
    Decode(DecodeError),
    /// A way that we do not go: `value` is the number of the Authentication message (7: GSSAPI, 9: SSPI …).
    Unsupported {
        /// Its number.
        value: u32,
    },
    /// None of the server's SASL mechanisms.
    Mechanisms(String),
    /// The password in clear text, on a line without TLS.
    Cleartext,
    /// The server asks for a password and there is none.
    NoPassword,
    /// The server's part of the proof is wrong, or comes at the wrong time: it may be somebody else.
    Sasl(String),
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::Unsupported { value } => write!(
                f,
                "the server wants authentication method {value} (7: GSSAPI, 9: SSPI), which this version does not have; let it ask \
                 for scram-sha-256 in pg_hba.conf"
            ),
            Self::Mechanisms(names) => write!(f, "the server offers {names}, none of which this version has"),
            Self::Cleartext => f.write_str(
                "the server wants the password in clear text and the line is not encrypted; connect with ?tls=require, or let it ask for \
                 scram-sha-256 in pg_hba.conf",
            ),
            Self::NoPassword => f.write_str("the server asks for a password, and the url has none"),
            Self::Sasl(what) => write!(f, "the server's proof is wrong: {what}"),
        }
    }
}

impl std::error::Error for AuthError {}

impl From<DecodeError> for AuthError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// What an Authentication message asks of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The server is satisfied.
    Done,
    /// Nothing yet.
    Wait,
    /// Send this message.
    Send(Vec<u8>),
}

/// The client's side.
pub struct Client<'a> {
    user: &'a str,
    password: &'a [u8],
    /// Whether the line is encrypted.
    secure: bool,
    /// `tls-server-end-point` of the line (RFC 5929): the hash of the server's certificate.
    binding: Option<Vec<u8>>,
    scram: Option<ScramSha256>,
    proven: bool,
}

impl fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl<'a> Client<'a> {
    /// Ready to answer. `binding`: the hash of the server's certificate as RFC 5929 has it, on a line with TLS.
    #[must_use]
    pub fn new(user: &'a str, password: &'a [u8], secure: bool, binding: Option<Vec<u8>>) -> Self {
        Self {
            user,
            password,
            secure,
            binding,
            scram: None,
            proven: true,
        }
    }

    /// Answers an Authentication message's body.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn answer(&mut self, body: &[u8]) -> Result<Step, AuthError> {
        let mut cursor = Cursor::new(body);
        let kind = cursor.u32_be("Authentication")?;
        if matches!(kind, 3 | 5 | 10) && self.password.is_empty() {
            return Err(AuthError::NoPassword);
        }
        match kind {
            // After SCRAM has begun, only its end proves that the server knows us.
            0 if self.proven => Ok(Step::Done),
            0 => Err(AuthError::Sasl(
                "it says that all is well without having proven itself".into(),
            )),
            3 if !self.secure => Err(AuthError::Cleartext),
            3 => Ok(Step::Send(password(self.password))),
            5 => {
                let salt = *cursor.chunk::<4>("MD5 salt")?;
                let hash = md5_hash(self.user.as_bytes(), self.password, salt);
                Ok(Step::Send(password(hash.as_bytes())))
            }
            10 => self.begin_scram(&mut cursor),
            11 => {
                let scram = self.scram.as_mut().ok_or_else(unexpected)?;
                scram
                    .update(cursor.rest())
                    .map_err(|error| AuthError::Sasl(error.to_string()))?;
                let mut out = Vec::new();
                write(&mut out, b'p', |out| out.extend_from_slice(scram.message()));
                Ok(Step::Send(out))
            }
            12 => {
                let scram = self.scram.as_mut().ok_or_else(unexpected)?;
                scram
                    .finish(cursor.rest())
                    .map_err(|error| AuthError::Sasl(error.to_string()))?;
                self.proven = true;
                Ok(Step::Wait)
            }
            value => Err(AuthError::Unsupported { value }),
        }
    }

    fn begin_scram(&mut self, cursor: &mut Cursor<'_>) -> Result<Step, AuthError> {
        let mut offered = Vec::new();
        loop {
            let name = cursor.until_nul("SASL mechanism")?;
            if name.is_empty() {
                break;
            }
            offered.push(String::from_utf8_lossy(name).into_owned());
        }
        let has = |name: &str| offered.iter().any(|offer| offer == name);
        let (mechanism, binding) = match &self.binding {
            Some(hash) if has(SCRAM_SHA_256_PLUS) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(hash.clone()),
            ),
            // We could bind, the server says that it cannot: it will notice if somebody between us made it look so.
            Some(_) if has(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None if has(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(AuthError::Mechanisms(offered.join(", "))),
        };
        let scram = ScramSha256::new(self.password, binding);
        self.proven = false;
        let mut out = Vec::new();
        write(&mut out, b'p', |out| {
            write_text(out, mechanism);
            let first = scram.message();
            let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(first);
        });
        self.scram = Some(scram);
        Ok(Step::Send(out))
    }
}

fn unexpected() -> AuthError {
    AuthError::Sasl("it goes on with SASL before that began".into())
}

fn password(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, b'p', |out| {
        out.extend_from_slice(bytes);
        out.push(0);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_up_is_the_manuals() {
        let mut out = Vec::new();
        write_ssl_request(&mut out);
        assert_eq!(out, [0, 0, 0, 8, 4, 210, 22, 47]);
        out.clear();
        write_startup(&mut out, &[("user", "cdc"), ("replication", "database")]);
        assert_eq!(
            out,
            *b"\0\0\0\x27\0\x03\0\0user\0cdc\0replication\0database\0\0"
        );
    }

    #[test]
    fn md5_is_what_a_server_computes() {
        // md5(md5("secretcdc") || salt), computed by md5sum.
        let mut client = Client::new("cdc", b"secret", false, None);
        let step = client
            .answer(&[0, 0, 0, 5, b'a', b'b', b'c', b'd'])
            .unwrap();
        let Step::Send(message) = step else {
            panic!("{step:?}")
        };
        assert_eq!(message.len(), 1 + 4 + 35 + 1);
        assert_eq!(&message[..8], b"p\0\0\0\x28md5");
    }

    #[test]
    fn a_password_does_not_travel_in_the_clear() {
        assert!(matches!(
            Client::new("cdc", b"secret", false, None).answer(&[0, 0, 0, 3]),
            Err(AuthError::Cleartext)
        ));
        let step = Client::new("cdc", b"secret", true, None)
            .answer(&[0, 0, 0, 3])
            .unwrap();
        assert_eq!(step, Step::Send(b"p\0\0\0\x0bsecret\0".to_vec()));
        assert!(matches!(
            Client::new("cdc", b"", true, None).answer(&[0, 0, 0, 3]),
            Err(AuthError::NoPassword)
        ));
    }

    #[test]
    fn a_server_that_breaks_scram_off_is_not_believed() {
        let mut client = Client::new("cdc", b"secret", false, None);
        let offer = b"\0\0\0\x0aSCRAM-SHA-256\0\0";
        assert!(matches!(client.answer(offer), Ok(Step::Send(_))));
        assert!(matches!(
            client.answer(&[0, 0, 0, 0]),
            Err(AuthError::Sasl(_))
        ));
        let mut client = Client::new("cdc", b"secret", false, None);
        assert!(matches!(
            client.answer(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"),
            Err(AuthError::Mechanisms(_))
        ));
        assert!(matches!(
            client.answer(&[0, 0, 0, 12]),
            Err(AuthError::Sasl(_))
        ));
        assert!(matches!(
            client.answer(&[0, 0, 0, 7]),
            Err(AuthError::Unsupported { value: 7 })
        ));
    }
}
