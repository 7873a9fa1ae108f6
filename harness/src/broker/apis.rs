//! The APIs that the broker speaks, in the version ranges that the clients insist on, and the frame around them.
//!
//! ```text
//! request:  i32 length · i16 api key · i16 version · i32 correlation id · nullable string client id · [tagged fields] · body
//! response: i32 length · i32 correlation id · [tagged fields] · body
//! ```
//!
//! Versions are capped by hand: newer ones name topics by id, and librdkafka and the Java clients look for exact ranges.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, RequestHeader, RequestKind, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::Error;

/// API, lowest and highest version as advertised. Produce below 3 is advertised and not served: without it librdkafka believes
/// that the broker cannot decompress.
const ADVERTISED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 9),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 7),
    (ApiKey::FindCoordinator, 0, 3),
    (ApiKey::JoinGroup, 0, 7),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 4),
    (ApiKey::SyncGroup, 0, 4),
    (ApiKey::SaslHandshake, 0, 1),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 5),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::SaslAuthenticate, 0, 2),
];

/// Lowest version of Produce that carries record batches.
const PRODUCE_MIN: i16 = 3;

/// A request's frame, read.
pub(super) struct Request {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) client_id: String,
    /// The body; `None`: an ApiVersions request of a version that is not known here, to be answered with error 35.
    pub(super) body: Option<RequestKind>,
}

impl Request {
    /// Reads a frame without its length. Byte strings of the body share the frame's memory.
    pub(super) fn parse(mut frame: Bytes) -> Result<Self, Error> {
        let (Some(&[a, b]), Some(&[c, d])) = (
            frame.first_chunk(),
            frame.get(2..).and_then(|f| f.first_chunk()),
        ) else {
            return Err(Error::Protocol("a request of less than four bytes".into()));
        };
        let (key, version) = (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]));
        let api = ApiKey::try_from(key).map_err(|_| Error::Protocol(format!("api key {key}")))?;
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version))
            .map_err(|error| {
                Error::Protocol(format!("header of {api:?} version {version}: {error}"))
            })?;
        let served = is_served(api, version);
        if !served && api != ApiKey::ApiVersions {
            return Err(Error::Protocol(format!(
                "{api:?} version {version}, which was not advertised"
            )));
        }
        let body = served
            .then(|| RequestKind::decode(api, &mut frame, version))
            .transpose()
            .map_err(|error| Error::Protocol(format!("{api:?} version {version}: {error}")))?;
        Ok(Self {
            api,
            version,
            correlation_id: header.correlation_id,
            client_id: header
                .client_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            body,
        })
    }
}

fn is_served(api: ApiKey, version: i16) -> bool {
    let lowest = |key, min| {
        if key == ApiKey::Produce {
            PRODUCE_MIN
        } else {
            min
        }
    };
    ADVERTISED
        .iter()
        .any(|&(key, min, max)| key == api && (lowest(key, min)..=max).contains(&version))
}

/// A response with its length, ready to be sent.
pub(super) fn frame<R: Encodable + HeaderVersion>(
    response: &R,
    version: i16,
    correlation_id: i32,
) -> Result<Bytes, Error> {
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(&mut out, R::header_version(version))
        .and_then(|()| response.encode(&mut out, version))
        .map_err(|error| Error::Answer(format!("version {version}: {error}")))?;
    let length =
        i32::try_from(out.len() - 4).map_err(|_| Error::Answer("more than 2 GiB".into()))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}

/// What ApiVersions answers.
pub(super) fn versions(error_code: i16) -> ApiVersionsResponse {
    let api = |&(key, min, max): &(ApiKey, i16, i16)| {
        ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(min)
            .with_max_version(max)
    };
    ApiVersionsResponse::default()
        .with_error_code(error_code)
        .with_api_keys(ADVERTISED.iter().map(api).collect())
}
