//! What opens a connection: ApiVersions, SaslHandshake, SaslAuthenticate.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{ApiVersionsRequest, SaslAuthenticateRequest, SaslHandshakeRequest};
use protocol::{Cursor, DecodeError};

use super::{Response, array, nullable_bytes, nullable_string, string};

/// What a broker speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct ApiVersions {
    /// 0, or 35 where the broker does not know the version of our question (it answers all the same).
    pub(in crate::producer) code: i16,
    /// API key, lowest, highest version.
    pub(in crate::producer) ranges: Vec<(i16, i16, i16)>,
}

impl Response for ApiVersions {
    type Request = ApiVersionsRequest;
    const KEY: i16 = 18;
    const NAME: &'static str = "ApiVersions";
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        Ok(Self {
            code: cursor.i16_be("ApiVersions error code")?,
            ranges: array(cursor, "ApiVersions api keys", |cursor| {
                Ok((
                    cursor.i16_be("ApiVersions api key")?,
                    cursor.i16_be("ApiVersions min version")?,
                    cursor.i16_be("ApiVersions max version")?,
                ))
            })?,
        })
    }
}

/// Whether the broker knows the mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct SaslHandshake {
    /// Error code.
    pub(in crate::producer) code: i16,
    /// Mechanisms that it knows.
    pub(in crate::producer) mechanisms: Vec<String>,
}

impl Response for SaslHandshake {
    type Request = SaslHandshakeRequest;
    const KEY: i16 = 17;
    const NAME: &'static str = "SaslHandshake";
    const VERSIONS: RangeInclusive<i16> = 1..=1;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        Ok(Self {
            code: cursor.i16_be("SaslHandshake error code")?,
            mechanisms: array(cursor, "SaslHandshake mechanisms", |cursor| {
                string(cursor, "SaslHandshake mechanism")
            })?,
        })
    }
}

/// One step of an authentication exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct SaslAuthenticate {
    /// Error code.
    pub(in crate::producer) code: i16,
    /// The broker's words.
    pub(in crate::producer) message: Option<String>,
    /// The mechanism's own message.
    pub(in crate::producer) bytes: Vec<u8>,
    /// Milliseconds after which the broker takes no requests over this connection (`connections.max.reauth.ms`); 0: no end.
    pub(in crate::producer) session_lifetime_ms: i64,
}

impl Response for SaslAuthenticate {
    type Request = SaslAuthenticateRequest;
    const KEY: i16 = 36;
    const NAME: &'static str = "SaslAuthenticate";
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        Ok(Self {
            code: cursor.i16_be("SaslAuthenticate error code")?,
            message: nullable_string(cursor, "SaslAuthenticate error message")?,
            bytes: nullable_bytes(cursor, "SaslAuthenticate bytes")?.unwrap_or_default(),
            session_lifetime_ms: match version {
                0 => 0,
                _ => cursor.i64_be("SaslAuthenticate session lifetime")?,
            },
        })
    }
}
