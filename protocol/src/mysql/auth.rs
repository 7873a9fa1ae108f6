//! Authentication: what both sides say between the client's response and the server's OK.
//!
//! ```text
//! server  | 00 … OK | ff … ERR | fe plugin NUL nonce [00]: switch to another plugin | 01 data: more data for the plugin |
//! client  the plugin's answer, as a bare payload
//!
//! caching_sha2_password   fast: scramble → 01 03, OK.   full: scramble → 01 04 → over TLS password 00
//!                                                        else 02 → 01 public key → RSA(password 00 xor nonce) → OK
//! sha256_password         over TLS: password 00.         else 01 → 01 public key → RSA(password 00 xor nonce) → OK
//! mysql_native_password   SHA1 scramble                  client_ed25519   signature of the nonce (MariaDB)
//! ```
//! Source: MySQL internals manual, "Authentication Phase" and "Caching SHA-2 Pluggable Authentication"; MariaDB knowledge
//! base, "Authentication Plugin - ed25519". Plugins that send the bare password to whoever asks (`mysql_clear_password`) are
//! refused. Scrambles come from mysql_common.

use std::fmt;

use mysql_common::auth::plugins::caching_sha2_password::scramble_sha256;
use mysql_common::auth::plugins::mysql_native_password::scramble_native;

use crate::cursor::Cursor;
use crate::error::DecodeError;
use crate::mysql::handshake::NONCE_LENGTH;

pub use client::{Client, ClientStep};
pub use server::{Server, ServerStep};

mod client;
mod rsa;
mod server;

/// An authentication plugin that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plugin {
    /// MySQL 8.0 and later.
    CachingSha2Password,
    /// MySQL 5.6 to 9.x.
    Sha256Password,
    /// Every server before MySQL 9.
    MysqlNativePassword,
    /// MariaDB.
    ClientEd25519,
}

impl Plugin {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::CachingSha2Password,
        Self::Sha256Password,
        Self::MysqlNativePassword,
        Self::ClientEd25519,
    ];

    /// The plugin of this name, as servers call it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.name() == name)
    }

    /// Its name, as servers call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CachingSha2Password => "caching_sha2_password",
            Self::Sha256Password => "sha256_password",
            Self::MysqlNativePassword => "mysql_native_password",
            Self::ClientEd25519 => "client_ed25519",
        }
    }

    /// Bytes of the nonce that the server sends for it.
    #[must_use]
    pub const fn nonce_length(self) -> usize {
        match self {
            Self::ClientEd25519 => 32,
            _ => NONCE_LENGTH,
        }
    }

    /// The first answer where it does not depend on the transport: scramble or signature.
    fn scramble(self, password: &[u8], nonce: &[u8]) -> Result<Vec<u8>, AuthError> {
        let short = || nonce.first_chunk().ok_or(AuthError::Nonce);
        Ok(match self {
            Self::MysqlNativePassword => {
                let nonce: &[u8; NONCE_LENGTH] = short()?;
                scramble_native(nonce, password).map_or_else(Vec::new, |s| s.to_vec())
            }
            Self::CachingSha2Password | Self::Sha256Password => {
                let nonce: &[u8; NONCE_LENGTH] = short()?;
                scramble_sha256(nonce, password).map_or_else(|| vec![0], |s| s.to_vec())
            }
            Self::ClientEd25519 => client::sign_ed25519(password, nonce)?,
        })
    }
}

/// Why authentication cannot go on. The server's own refusal is an ERR packet, not this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// The server asks for a plugin that we do not speak.
    Plugin(String),
    /// The nonce has not the plugin's length.
    Nonce,
    /// The server sent more data where its plugin has none, or other data than its plugin sends.
    Unexpected,
    /// The server's public key cannot be read or is too small for the password.
    PublicKey,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(name) => write!(
                f,
                "the server asks for authentication plugin {name:?}, which is not supported: create the user with caching_sha2_password (MySQL) or mysql_native_password or ed25519 (MariaDB)"
            ),
            Self::Nonce => f.write_str("the server's authentication nonce has the wrong length"),
            Self::Unexpected => {
                f.write_str("the server sent authentication data that its plugin does not send")
            }
            Self::PublicKey => f.write_str(
                "the server's RSA public key cannot be used to encrypt the password: connect with TLS (?tls=require)",
            ),
        }
    }
}

impl std::error::Error for AuthError {}

/// A packet of the server in the authentication phase that is neither OK nor ERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Start again with another plugin.
    Switch {
        /// The plugin's name.
        plugin: &'a [u8],
        /// The nonce for it.
        nonce: &'a [u8],
    },
    /// Data for the present plugin.
    More(&'a [u8]),
}

impl<'a> Request<'a> {
    /// Reads a payload that starts with 0xfe or 0x01; `None` for any other first byte.
    ///
    /// # Errors
    /// A switch without a plugin's name.
    pub fn decode(payload: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let mut cursor = Cursor::new(payload);
        Ok(match cursor.u8("authentication packet")? {
            0x01 => Some(Self::More(cursor.rest())),
            0xfe => {
                let plugin = cursor.until_nul("authentication switch plugin")?;
                let nonce = cursor.rest();
                // MySQL ends it with a NUL; MariaDB's ed25519 does not, and its nonce may well end with one.
                let nonce = match nonce.strip_suffix(&[0]) {
                    Some(shorter) if shorter.len() == NONCE_LENGTH => shorter,
                    _ => nonce,
                };
                Some(Self::Switch { plugin, nonce })
            }
            _ => None,
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Switch { plugin, nonce } => {
                out.push(0xfe);
                out.extend_from_slice(plugin);
                out.push(0);
                out.extend_from_slice(nonce);
                if nonce.len() == NONCE_LENGTH {
                    out.push(0);
                }
            }
            Self::More(data) => {
                out.push(0x01);
                out.extend_from_slice(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_both_ways() {
        let switch = Request::Switch {
            plugin: b"client_ed25519",
            nonce: &[7; 32],
        };
        let ends_with_nul = Request::Switch {
            plugin: b"client_ed25519",
            nonce: &[0; 32],
        };
        let short = Request::Switch {
            plugin: b"caching_sha2_password",
            nonce: &[7; 20],
        };
        for request in [
            switch,
            ends_with_nul,
            short,
            Request::More(&[4]),
            Request::More(b""),
        ] {
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            assert_eq!(Request::decode(&bytes), Ok(Some(request)));
        }
        assert_eq!(Request::decode(b"\x00\x00"), Ok(None));
        assert!(Request::decode(b"").is_err());
        assert!(Request::decode(b"\xfeplugin").is_err());
    }

    #[test]
    fn names_are_the_servers() {
        for plugin in Plugin::ALL {
            assert_eq!(Plugin::named(plugin.name()), Some(plugin));
        }
        assert_eq!(Plugin::named("mysql_clear_password"), None);
    }
}
