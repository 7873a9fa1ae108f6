//! The cluster as metadata describe it, and the one connection over which it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;

use super::connection::{Connection, Connector, Endpoint, Fault};
use super::error::ProducerError;
use super::response::{Metadata, Response};

/// Brokers that are known, and a connection to one of them.
pub(super) struct Cluster {
    connector: Arc<Connector>,
    bootstrap: Vec<Endpoint>,
    brokers: BTreeMap<i32, Endpoint>,
    controller: Option<i32>,
    cluster_id: Option<Box<str>>,
    control: Option<(Endpoint, Connection)>,
    /// Which candidate is asked first, so that one that hangs is not the first each time.
    turn: usize,
}

impl Cluster {
    /// Knows the brokers of the configuration, to begin with.
    ///
    /// # Errors
    /// An address that is none.
    pub(super) fn new(
        connector: Arc<Connector>,
        brokers: &[String],
    ) -> Result<Self, ProducerError> {
        let parse = |text: &String| {
            Endpoint::parse(text).ok_or_else(|| {
                ProducerError::broker(text, "not an address: kafka.brokers takes \"host:port\"")
            })
        };
        Ok(Self {
            connector,
            bootstrap: brokers.iter().map(parse).collect::<Result<_, _>>()?,
            brokers: BTreeMap::new(),
            controller: None,
            cluster_id: None,
            control: None,
            turn: 0,
        })
    }

    /// How connections are made.
    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// Where the brokers listen, by node id.
    pub(super) fn brokers(&self) -> &BTreeMap<i32, Endpoint> {
        &self.brokers
    }

    /// The cluster's own name for itself, once metadata have said it.
    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Asks any broker; goes through all that are known until one answers. What lasts at one of them, such as a wrong certificate, is a
    /// lasting fault only where it is so at all of them.
    pub(super) async fn call<R: Response>(&mut self, request: &R::Request) -> Result<R, Fault> {
        Ok(self.call_with::<R, R>(request, None).await?.0)
    }

    /// As [`call`](Self::call), with a second question in the same round trip, where the broker understands it.
    async fn call_with<R: Response, A: Response>(
        &mut self,
        request: &R::Request,
        along: Option<&A::Request>,
    ) -> Result<(R, Option<A>), Fault> {
        let mut before = None;
        if let Some((endpoint, mut connection)) = self.control.take() {
            match connection.call_with::<R, A>(request, along).await {
                Ok(answer) => {
                    self.control = Some((endpoint, connection));
                    return Ok(answer);
                }
                Err(fault) => before = Some(fault),
            }
        }
        let (mut lasting, mut passing) = (None, None);
        for endpoint in self.candidates() {
            match self.call_at::<R, A>(endpoint, request, along).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Passing(reason)) => passing = Some(reason),
                Err(Fault::Lasting(error)) => lasting = Some(error),
            }
        }
        Err(match (lasting, passing) {
            (Some(error), None) => Fault::Lasting(error),
            (Some(error), Some(reason)) => Fault::Passing(format!("{reason}; {error}")),
            (None, Some(reason)) => Fault::Passing(reason),
            (None, None) => {
                before.unwrap_or_else(|| Fault::Passing("no broker is known".to_owned()))
            }
        })
    }

    /// Asks the controller, where the cluster says who it is and it can be had: others may pass the question on (with KRaft they do).
    pub(super) async fn call_controller<R: Response>(
        &mut self,
        request: &R::Request,
    ) -> Result<R, Fault> {
        match self
            .controller
            .and_then(|id| self.brokers.get(&id))
            .cloned()
        {
            Some(endpoint) if self.control.as_ref().is_none_or(|(of, _)| *of != endpoint) => {
                match self.call_at::<R, R>(endpoint, request, None).await {
                    Ok((answer, _)) => Ok(answer),
                    Err(Fault::Lasting(_)) => self.call::<R>(request).await,
                    passing => passing.map(|(answer, _)| answer),
                }
            }
            _ => self.call::<R>(request).await,
        }
    }

    async fn call_at<R: Response, A: Response>(
        &mut self,
        endpoint: Endpoint,
        request: &R::Request,
        along: Option<&A::Request>,
    ) -> Result<(R, Option<A>), Fault> {
        self.turn = self.turn.wrapping_add(1);
        let at = |fault| match fault {
            Fault::Passing(reason) => Fault::Passing(format!("{endpoint}: {reason}")),
            lasting => lasting,
        };
        let mut connection = self.connector.connect(&endpoint).await.map_err(at)?;
        let answers = connection.call_with::<R, A>(request, along).await;
        let answers = answers.map_err(at)?;
        self.control = Some((endpoint, connection));
        Ok(answers)
    }

    /// Asks about topics, and learns the brokers on the way.
    pub(super) async fn metadata(&mut self, topics: &[Arc<str>]) -> Result<Metadata, Fault> {
        Ok(self.metadata_with::<Metadata>(topics, None).await?.0)
    }

    /// As [`metadata`](Self::metadata), with a second question in the same round trip, where the broker understands it.
    pub(super) async fn metadata_with<A: Response>(
        &mut self,
        topics: &[Arc<str>],
        along: Option<&A::Request>,
    ) -> Result<(Metadata, Option<A>), Fault> {
        let topics = topics
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect();
        let request = MetadataRequest::default()
            .with_topics(Some(topics))
            .with_allow_auto_topic_creation(false);
        let (metadata, along) = self.call_with::<Metadata, A>(&request, along).await?;
        if metadata.brokers.is_empty() {
            // A broker that has just started may know neither brokers nor topics (KAFKA-7924), and what it says of those is no answer:
            // Java's `NetworkClient` passes it over, too.
            self.ask_another();
            let reason = "the broker that was asked knows of no brokers yet";
            return Err(Fault::Passing(reason.to_owned()));
        }
        for (id, host, port) in &metadata.brokers {
            if let Ok(port) = u16::try_from(*port) {
                let host = host.as_str().into();
                self.brokers.insert(*id, Endpoint { host, port });
            }
        }
        self.brokers
            .retain(|id, _| metadata.brokers.iter().any(|(of, ..)| of == id));
        if let Some(id) = &metadata.cluster_id {
            self.cluster_id = Some(id.as_str().into());
        }
        self.controller = Some(metadata.controller).filter(|id| *id >= 0);
        Ok((metadata, along))
    }

    /// The next question goes to another broker, where there is one.
    pub(super) fn ask_another(&mut self) {
        self.control = None;
    }

    fn candidates(&self) -> Vec<Endpoint> {
        let mut candidates: Vec<Endpoint> = self.brokers.values().cloned().collect();
        if !candidates.is_empty() {
            let turn = self.turn % candidates.len();
            candidates.rotate_left(turn);
        }
        for endpoint in &self.bootstrap {
            if !candidates.contains(endpoint) {
                candidates.push(endpoint.clone());
            }
        }
        candidates
    }
}

/// A topic's name as requests carry it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName::from(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests;
