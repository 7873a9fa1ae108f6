//! The handshake: the server's greeting, the client's answer, and the request for TLS between them.
//!
//! ```text
//! Greeting (version 10), from the server
//!   | 0a | server version NUL | connection id: 4 | nonce: 8 | 00 | capabilities: 2 low | charset: 1 | status: 2 |
//!   | capabilities: 2 high | nonce length + 1: 1 | 00 × 6 | MariaDB capabilities: 4, or 00 × 4 | nonce: 12 | 00 | plugin NUL |
//! SslRequest, from the client
//!   | capabilities: 4 | packet_max: 4 | charset: 1 | 00 × 19 | MariaDB capabilities: 4 |
//! Response (4.1), from the client
//!   | as SslRequest | user NUL | auth response: lenenc | [database NUL] | [plugin NUL] | [attributes: lenenc] | [zstd level: 1] |
//! ```
//! Source: MySQL internals manual, "Protocol::HandshakeV10" and "Protocol::HandshakeResponse41"; MariaDB knowledge base,
//! "Connecting". A peer that speaks neither protocol 4.1 nor authentication plugins is older than MySQL 5.5 and refused.

use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::mysql::gtid::Flavour;
use crate::mysql::lenenc;

/// Capability bits that both sides must name to use.
pub mod capability {
    /// On MySQL always set; a MariaDB server leaves it out to say that its extended capabilities follow.
    pub const LONG_PASSWORD: u32 = 1;
    /// More column flags; set by every server.
    pub const LONG_FLAG: u32 = 1 << 2;
    /// A database name follows in the response.
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    /// zlib wire compression.
    pub const COMPRESS: u32 = 1 << 5;
    /// Protocol 4.1.
    pub const PROTOCOL_41: u32 = 1 << 9;
    /// TLS.
    pub const SSL: u32 = 1 << 11;
    /// Status flags know transactions.
    pub const TRANSACTIONS: u32 = 1 << 13;
    /// Nonces of 20 bytes.
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    /// Authentication plugins.
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    /// Attributes of the connection follow in the response.
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    /// Authentication responses over 255 bytes.
    pub const PLUGIN_AUTH_LENENC_CLIENT_DATA: u32 = 1 << 21;
    /// OK packets instead of EOF packets at the end of result sets.
    pub const DEPRECATE_EOF: u32 = 1 << 24;
    /// zstd wire compression.
    pub const ZSTD_COMPRESSION: u32 = 1 << 26;

    /// What any connection of ours needs of a server.
    pub const REQUIRED: u32 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
}

/// Bytes of a nonce, for every plugin but `client_ed25519` (32).
pub const NONCE_LENGTH: usize = 20;

/// What the server says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Server version as written, e.g. `9.7.0` or `5.5.5-10.11.6-MariaDB-log`.
    pub version: String,
    /// Thread id of the connection.
    pub connection_id: u32,
    /// Random bytes that the answer proves the password with: 20, or 32 for `client_ed25519`.
    pub nonce: Vec<u8>,
    /// [`capability`] bits.
    pub capabilities: u32,
    /// Default collation.
    pub charset: u8,
    /// Status flags.
    pub status: u16,
    /// Name of the authentication plugin that the nonce is for.
    pub plugin: String,
}

impl Greeting {
    /// Which family the server is of.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        match self.version.contains("MariaDB") {
            true => Flavour::MariaDb,
            false => Flavour::MySql,
        }
    }

    /// Reads a greeting's payload.
    ///
    /// # Errors
    /// Truncated input, another protocol version than 10, or a server without [`capability::REQUIRED`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let protocol = cursor.u8("greeting protocol version")?;
        if protocol != 10 {
            return Err(unsupported("greeting protocol version", 0, protocol.into()));
        }
        let version = text(cursor.until_nul("greeting server version")?);
        let connection_id = cursor.u32_le("greeting connection id")?;
        let mut nonce = cursor.take(8, "greeting nonce")?.to_vec();
        cursor.skip(1, "greeting filler")?;
        let low = cursor.u16_le("greeting capabilities")?;
        let charset = cursor.u8("greeting charset")?;
        let status = cursor.u16_le("greeting status")?;
        let high = cursor.u16_le("greeting capabilities")?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        if capabilities & capability::REQUIRED != capability::REQUIRED {
            return Err(unsupported(
                "greeting capabilities",
                cursor.at() as u64,
                capabilities.into(),
            ));
        }
        let nonce_length = usize::from(cursor.u8("greeting nonce length")?);
        cursor.skip(10, "greeting reserved bytes")?;
        let rest = nonce_length.saturating_sub(8).max(13);
        nonce.extend_from_slice(cursor.take(rest, "greeting nonce")?);
        if nonce.last() == Some(&0) {
            nonce.pop();
        }
        // Some old servers leave out the NUL after the name (MySQL bug 59453).
        let plugin = match cursor.until_nul("greeting plugin") {
            Ok(plugin) => plugin,
            Err(_) => cursor.rest(),
        };
        Ok(Self {
            version,
            connection_id,
            nonce,
            capabilities,
            charset,
            status,
            plugin: text(plugin),
        })
    }

    /// Appends the greeting's payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let [low_a, low_b, high_a, high_b] = self.capabilities.to_le_bytes();
        let (first, second) = self.nonce.split_at(self.nonce.len().min(8));
        out.push(10);
        out.extend_from_slice(self.version.as_bytes());
        out.push(0);
        out.extend_from_slice(&self.connection_id.to_le_bytes());
        out.extend_from_slice(first);
        out.extend_from_slice(&[0, low_a, low_b, self.charset]);
        out.extend_from_slice(&self.status.to_le_bytes());
        let length = u8::try_from(self.nonce.len() + 1).unwrap_or(u8::MAX);
        out.extend_from_slice(&[high_a, high_b, length]);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(second);
        out.push(0);
        out.extend_from_slice(self.plugin.as_bytes());
        out.push(0);
    }
}

/// What the client answers; with [`Response::encode_ssl_request`] also what it asks for TLS with.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// [`capability`] bits that the connection uses from now on.
    pub capabilities: u32,
    /// Longest payload that the client accepts, in bytes.
    pub packet_max: u32,
    /// Collation of the connection: 45 is `utf8mb4_general_ci`.
    pub charset: u8,
    /// User name.
    pub user: String,
    /// The plugin's first answer to the nonce.
    pub auth_response: Vec<u8>,
    /// Default database.
    pub database: Option<String>,
    /// Plugin that the answer is of.
    pub plugin: String,
    /// Attributes of the connection, shown in `performance_schema.session_connect_attrs`.
    pub attributes: Vec<(String, String)>,
    /// Level of zstd wire compression.
    pub zstd_level: u8,
}

/// Leaves out the authentication response: over TLS it may be the password.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("capabilities", &format_args!("{:#x}", self.capabilities))
            .field("user", &self.user)
            .field("database", &self.database)
            .field("plugin", &self.plugin)
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

/// What a server reads after its greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The client asks for TLS; its whole response follows inside.
    Ssl {
        /// The capabilities that it names.
        capabilities: u32,
    },
    /// The client's response.
    Response(Response),
}

impl Response {
    /// Appends the payload of a request for TLS.
    pub fn encode_ssl_request(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.capabilities | capability::SSL).to_le_bytes());
        out.extend_from_slice(&self.packet_max.to_le_bytes());
        out.push(self.charset);
        out.extend_from_slice(&[0; 23]);
    }

    /// Appends the response's payload. Parts that the capabilities do not announce are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        out.extend_from_slice(&self.packet_max.to_le_bytes());
        out.push(self.charset);
        out.extend_from_slice(&[0; 23]);
        out.extend_from_slice(self.user.as_bytes());
        out.push(0);
        if self.has(capability::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            lenenc::write_string(out, &self.auth_response);
        } else {
            out.push(u8::try_from(self.auth_response.len()).unwrap_or(0));
            out.extend_from_slice(&self.auth_response);
        }
        if self.has(capability::CONNECT_WITH_DB) {
            out.extend_from_slice(self.database.as_deref().unwrap_or_default().as_bytes());
            out.push(0);
        }
        if self.has(capability::PLUGIN_AUTH) {
            out.extend_from_slice(self.plugin.as_bytes());
            out.push(0);
        }
        if self.has(capability::CONNECT_ATTRS) {
            let mut attributes = Vec::new();
            for (name, value) in &self.attributes {
                lenenc::write_string(&mut attributes, name.as_bytes());
                lenenc::write_string(&mut attributes, value.as_bytes());
            }
            lenenc::write_string(out, &attributes);
        }
        if self.has(capability::ZSTD_COMPRESSION) {
            out.push(self.zstd_level);
        }
    }

    const fn has(&self, bit: u32) -> bool {
        self.capabilities & bit != 0
    }
}

impl Answer {
    /// Reads what a client answers to a greeting.
    ///
    /// # Errors
    /// Truncated input, or a client that does not speak protocol 4.1.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let capabilities = cursor.u32_le("response capabilities")?;
        if capabilities & capability::PROTOCOL_41 == 0 {
            return Err(unsupported("response capabilities", 0, capabilities.into()));
        }
        let mut response = Response {
            capabilities,
            packet_max: cursor.u32_le("response packet length")?,
            charset: cursor.u8("response charset")?,
            ..Response::default()
        };
        cursor.skip(23, "response reserved bytes")?;
        if response.has(capability::SSL) && cursor.is_empty() {
            return Ok(Self::Ssl { capabilities });
        }
        response.user = text(cursor.until_nul("response user")?);
        response.auth_response = if response.has(capability::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            lenenc::string(&mut cursor, "auth response")?.to_vec()
        } else if response.has(capability::SECURE_CONNECTION) {
            let length = cursor.u8("auth response length")?;
            cursor.take(length.into(), "auth response")?.to_vec()
        } else {
            cursor.until_nul("auth response")?.to_vec()
        };
        if response.has(capability::CONNECT_WITH_DB) && !cursor.is_empty() {
            response.database = Some(text(cursor.until_nul("response database")?));
        }
        if response.has(capability::PLUGIN_AUTH) && !cursor.is_empty() {
            response.plugin = text(cursor.until_nul("response plugin")?);
        }
        if response.has(capability::CONNECT_ATTRS) && !cursor.is_empty() {
            let mut list = Cursor::new(lenenc::string(&mut cursor, "response attributes")?);
            while !list.is_empty() {
                let name = text(lenenc::string(&mut list, "attribute name")?);
                let value = text(lenenc::string(&mut list, "attribute value")?);
                response.attributes.push((name, value));
            }
        }
        if response.has(capability::ZSTD_COMPRESSION) && !cursor.is_empty() {
            response.zstd_level = cursor.u8("response zstd level")?;
        }
        // What later clients may append is theirs to announce by capabilities that we do not offer.
        Ok(Self::Response(response))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const fn unsupported(what: &'static str, at: u64, value: u64) -> DecodeError {
    DecodeError::new(what, at, DecodeErrorKind::Unsupported { value })
}

#[cfg(test)]
mod tests {
    use mysql_common::io::ParseBuf;
    use mysql_common::packets::{HandshakePacket, HandshakeResponse};
    use mysql_common::proto::MyDeserialize;

    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            version: "9.7.0".into(),
            connection_id: 77,
            nonce: (1..=20).collect(),
            capabilities: capability::REQUIRED | capability::LONG_PASSWORD | capability::SSL,
            charset: 255,
            status: 2,
            plugin: "caching_sha2_password".into(),
        }
    }

    fn response(more: u32) -> Response {
        Response {
            capabilities: capability::REQUIRED | more,
            packet_max: 1 << 24,
            charset: 45,
            user: "cdc".into(),
            auth_response: vec![9; 32],
            database: (more & capability::CONNECT_WITH_DB != 0).then(|| "shop".into()),
            plugin: "caching_sha2_password".into(),
            attributes: match more & capability::CONNECT_ATTRS {
                0 => Vec::new(),
                _ => vec![("_client_name".into(), "walbrook".into())],
            },
            zstd_level: if more & capability::ZSTD_COMPRESSION != 0 {
                3
            } else {
                0
            },
        }
    }

    #[test]
    fn greeting_both_ways_and_as_mysql_common_reads_it() {
        let mut bytes = Vec::new();
        greeting().encode(&mut bytes);
        assert_eq!(Greeting::decode(&bytes).unwrap(), greeting());
        let theirs = HandshakePacket::deserialize((), &mut ParseBuf(&bytes)).unwrap();
        assert_eq!(theirs.nonce(), greeting().nonce);
        assert_eq!(theirs.connection_id(), 77);
        assert_eq!(
            theirs.auth_plugin_name_ref(),
            Some(&b"caching_sha2_password"[..])
        );
        for cut in 0..bytes.len() - greeting().plugin.len() - 1 {
            assert!(Greeting::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn ed25519_greets_with_a_longer_nonce() {
        let mut long = greeting();
        long.nonce = (1..=32).collect();
        long.version = "5.5.5-10.11.6-MariaDB".into();
        let mut bytes = Vec::new();
        long.encode(&mut bytes);
        let read = Greeting::decode(&bytes).unwrap();
        assert_eq!(read.nonce, long.nonce);
        assert_eq!(read.flavour(), Flavour::MariaDb);
    }

    #[test]
    fn response_with_every_part() {
        let parts = [
            0,
            capability::CONNECT_WITH_DB,
            capability::CONNECT_ATTRS | capability::PLUGIN_AUTH_LENENC_CLIENT_DATA,
            capability::CONNECT_WITH_DB | capability::CONNECT_ATTRS | capability::ZSTD_COMPRESSION,
        ];
        for more in parts {
            let ours = response(more);
            let mut bytes = Vec::new();
            ours.encode(&mut bytes);
            assert_eq!(
                Answer::decode(&bytes).unwrap(),
                Answer::Response(ours.clone())
            );
            let theirs = HandshakeResponse::deserialize((), &mut ParseBuf(&bytes)).unwrap();
            assert_eq!(theirs.user(), b"cdc");
            assert_eq!(theirs.scramble_buf(), [9; 32]);
            // A cut may fall between optional parts: it must not panic, and never give the whole.
            for cut in 0..bytes.len() {
                assert_ne!(
                    Answer::decode(&bytes[..cut]),
                    Ok(Answer::Response(ours.clone()))
                );
            }
        }
    }

    #[test]
    fn ssl_request_is_told_from_a_response() {
        let mut bytes = Vec::new();
        response(0).encode_ssl_request(&mut bytes);
        assert_eq!(bytes.len(), 32);
        let capabilities = capability::REQUIRED | capability::SSL;
        assert_eq!(Answer::decode(&bytes), Ok(Answer::Ssl { capabilities }));
    }

    #[test]
    fn debug_does_not_show_the_answer() {
        let mut secret = response(0);
        secret.auth_response = b"hunter2".to_vec();
        assert!(!format!("{secret:?}").contains("104"));
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
