//! What is set up before records are sent: InitProducerId, CreateTopics, DescribeConfigs.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, InitProducerIdRequest,
};
use protocol::{Cursor, DecodeError};

use super::{Response, array, boolean, nullable_string, string};

/// A producer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct InitProducerId {
    /// Error code.
    pub(in crate::producer) code: i16,
    /// The producer id.
    pub(in crate::producer) producer_id: i64,
    /// Its epoch.
    pub(in crate::producer) producer_epoch: i16,
}

impl Response for InitProducerId {
    type Request = InitProducerIdRequest;
    const KEY: i16 = 22;
    const NAME: &'static str = "InitProducerId";
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("InitProducerId throttle time")?;
        Ok(Self {
            code: cursor.i16_be("InitProducerId error code")?,
            producer_id: cursor.i64_be("InitProducerId producer id")?,
            producer_epoch: cursor.i16_be("InitProducerId producer epoch")?,
        })
    }
}

/// What became of the topics that were to be created: name, error code, the broker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct CreateTopics {
    /// One entry per topic.
    pub(in crate::producer) topics: Vec<(String, i16, Option<String>)>,
}

impl Response for CreateTopics {
    type Request = CreateTopicsRequest;
    const KEY: i16 = 19;
    const NAME: &'static str = "CreateTopics";
    const VERSIONS: RangeInclusive<i16> = 2..=4;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("CreateTopics throttle time")?;
        let topics = array(cursor, "CreateTopics topics", |cursor| {
            Ok((
                string(cursor, "CreateTopics name")?,
                cursor.i16_be("CreateTopics error code")?,
                nullable_string(cursor, "CreateTopics error message")?,
            ))
        })?;
        Ok(Self { topics })
    }
}

/// Configurations of resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct DescribeConfigs {
    /// One entry per resource.
    pub(in crate::producer) resources: Vec<ResourceConfigs>,
}

/// One entry of [`DescribeConfigs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct ResourceConfigs {
    /// Error code.
    pub(in crate::producer) code: i16,
    /// The resource's name.
    pub(in crate::producer) name: String,
    /// The values asked for, by name.
    pub(in crate::producer) values: Vec<(String, Option<String>)>,
}

impl Response for DescribeConfigs {
    type Request = DescribeConfigsRequest;
    const KEY: i16 = 32;
    const NAME: &'static str = "DescribeConfigs";
    const VERSIONS: RangeInclusive<i16> = 1..=3;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("DescribeConfigs throttle time")?;
        let resources = array(cursor, "DescribeConfigs results", |cursor| {
            let code = cursor.i16_be("DescribeConfigs error code")?;
            nullable_string(cursor, "DescribeConfigs error message")?;
            cursor.i8("DescribeConfigs resource type")?;
            let name = string(cursor, "DescribeConfigs resource name")?;
            let values = array(cursor, "DescribeConfigs configs", |cursor| {
                config(cursor, version)
            })?;
            Ok(ResourceConfigs { code, name, values })
        })?;
        Ok(Self { resources })
    }
}

fn config(cursor: &mut Cursor<'_>, version: i16) -> Result<(String, Option<String>), DecodeError> {
    let name = string(cursor, "DescribeConfigs name")?;
    let value = nullable_string(cursor, "DescribeConfigs value")?;
    boolean(cursor, "DescribeConfigs read only")?;
    cursor.i8("DescribeConfigs source")?;
    boolean(cursor, "DescribeConfigs is sensitive")?;
    array(cursor, "DescribeConfigs synonyms", |cursor| {
        string(cursor, "DescribeConfigs synonym name")?;
        nullable_string(cursor, "DescribeConfigs synonym value")?;
        cursor.i8("DescribeConfigs synonym source")
    })?;
    if version >= 3 {
        cursor.i8("DescribeConfigs type")?;
        nullable_string(cursor, "DescribeConfigs documentation")?;
    }
    Ok((name, value))
}
