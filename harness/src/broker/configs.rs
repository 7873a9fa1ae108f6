//! DescribeConfigs: the few settings that producers look at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Shared;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a value comes from: set for this topic, or the built-in default.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

/// What the resources are set to, or those of the keys that are asked for.
pub(super) fn describe(
    shared: &Arc<Shared>,
    request: DescribeConfigsRequest,
    error: Option<ResponseError>,
) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        let settings = error.map_or_else(|| settings(shared, &resource), Err);
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match settings {
            Err(error) => result.with_error_code(error.code()),
            Ok(settings) => {
                let asked = |name: &str| {
                    let keys = resource.configuration_keys.as_ref();
                    keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
                };
                let settings = settings.into_iter().filter(|(name, _)| asked(name));
                let settings = settings.map(|(name, (value, source))| {
                    DescribeConfigsResourceResult::default()
                        .with_name(StrBytes::from_string(name))
                        .with_value(Some(StrBytes::from_string(value)))
                        .with_config_source(source)
                });
                result.with_configs(settings.collect())
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

type Settings = BTreeMap<String, (String, i8)>;

fn settings(
    shared: &Shared,
    resource: &DescribeConfigsResource,
) -> Result<Settings, ResponseError> {
    let message_max = shared.message_max_bytes.load(Ordering::Relaxed).to_string();
    let default = |name: &str, value: String| (name.to_owned(), (value, SOURCE_DEFAULT));
    match resource.resource_type {
        TOPIC => {
            let topic = shared
                .topics
                .find(&resource.resource_name)
                .ok_or(ResponseError::UnknownTopicOrPartition)?;
            let mut settings = Settings::from([
                default("max.message.bytes", message_max),
                default("cleanup.policy", "delete".into()),
                default("compression.type", "producer".into()),
                default("min.insync.replicas", "1".into()),
                default("retention.ms", "-1".into()),
                default("message.timestamp.type", "CreateTime".into()),
            ]);
            let own = topic.configs.iter();
            settings.extend(own.map(|(name, value)| (name.clone(), (value.clone(), SOURCE_TOPIC))));
            Ok(settings)
        }
        BROKER => Ok(Settings::from([
            default("message.max.bytes", message_max),
            default("auto.create.topics.enable", shared.auto_create.to_string()),
            default("compression.type", "producer".into()),
            default("min.insync.replicas", "1".into()),
        ])),
        _ => Err(ResponseError::InvalidRequest),
    }
}
