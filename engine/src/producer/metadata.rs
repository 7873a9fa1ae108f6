//! The cluster as metadata describe it, and the one connection over which it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{Connection, Connector, Endpoint, Fault, within};
use super::error::ProducerError;
use super::response::{Metadata, Response};

/// How long a broker may keep us waiting for a connection before the next one is tried beside it: a machine that is gone answers nothing
/// at all, and over a long line with TLS and authentication a connection takes seconds.
const NEXT_AFTER: Duration = Duration::from_secs(2);

/// How long metadata may take before others are asked: no broker needs anybody else to know them.
const METADATA_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Those that are asked only after all others.
    avoided: Vec<Endpoint>,
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
            avoided: Vec::new(),
        })
    }

    /// What this one knows, without its connection.
    pub(super) fn another(&self) -> Self {
        Self {
            connector: Arc::clone(&self.connector),
            bootstrap: self.bootstrap.clone(),
            brokers: self.brokers.clone(),
            controller: self.controller,
            cluster_id: self.cluster_id.clone(),
            control: None,
            turn: self.turn,
            avoided: self.avoided.clone(),
        }
    }

    /// Who answered last, where the connection is still there.
    pub(super) fn answering(&self) -> Option<&Endpoint> {
        self.control.as_ref().map(|(endpoint, _)| endpoint)
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
        let answers = self.call_with::<R, R>(request, None, Duration::MAX);
        Ok(answers.await?.0)
    }

    /// As [`call`](Self::call), with a second question in the same round trip, where the broker understands it. A broker is given up after
    /// `patience` where another one is left to be asked, and sooner where it is silent.
    async fn call_with<R: Response, A: Response>(
        &mut self,
        request: &R::Request,
        along: Option<&A::Request>,
        patience: Duration,
    ) -> Result<(R, Option<A>), Fault> {
        let mut before = None;
        if let Some((endpoint, mut connection)) = self.control.take() {
            let answers = connection.call_with::<R, A>(request, along);
            match within(Some(patience), answers).await {
                Ok(answer) => {
                    self.control = Some((endpoint, connection));
                    return Ok(answer);
                }
                Err(fault) => before = Some(fault),
            }
        }
        let (mut lasting, mut passing) = (None, None);
        let mut candidates = self.candidates().into_iter();
        // Those that were begun and are not open yet: whichever is first is asked.
        let mut opening = JoinSet::new();
        loop {
            match candidates.next() {
                Some(endpoint) => {
                    self.turn = self.turn.wrapping_add(1);
                    let connector = Arc::clone(&self.connector);
                    opening.spawn(async move {
                        let opened = connector.connect(&endpoint).await;
                        (endpoint, opened)
                    });
                }
                None if opening.is_empty() => break,
                None => {}
            }
            let opened = if candidates.len() == 0 {
                opening.join_next().await
            } else {
                timeout(NEXT_AFTER, opening.join_next())
                    .await
                    .unwrap_or(None)
            };
            let Some(Ok((endpoint, opened))) = opened else {
                continue;
            };
            let asked = match opened {
                Ok(mut connection) => {
                    let is_last = candidates.len() == 0 && opening.is_empty();
                    let answers = connection.call_with::<R, A>(request, along);
                    let answers = within((!is_last).then_some(patience), answers).await;
                    answers.map(|answers| (connection, answers))
                }
                Err(fault) => Err(fault),
            };
            match asked {
                Ok((connection, answers)) => {
                    self.control = Some((endpoint, connection));
                    return Ok(answers);
                }
                Err(Fault::Passing(reason)) => passing = Some(format!("{endpoint}: {reason}")),
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

    /// As [`call`](Self::call), of the controller, where the cluster says who it is and it can be had. With ZooKeeper only that one does
    /// what changes the cluster. With KRaft any broker passes it on, and metadata name one of them at random: to be asked where another
    /// one has refused, not at first.
    pub(super) async fn call_controller<R: Response>(
        &mut self,
        request: &R::Request,
    ) -> Result<R, Fault> {
        let controller = self.controller.and_then(|id| self.brokers.get(&id));
        match controller.cloned() {
            Some(endpoint) if self.control.as_ref().is_none_or(|(of, _)| *of != endpoint) => {
                match self.call_at::<R>(endpoint, request).await {
                    Err(Fault::Lasting(_)) => self.call::<R>(request).await,
                    answered => answered,
                }
            }
            _ => self.call::<R>(request).await,
        }
    }

    async fn call_at<R: Response>(
        &mut self,
        endpoint: Endpoint,
        request: &R::Request,
    ) -> Result<R, Fault> {
        let at = |fault| match fault {
            Fault::Passing(reason) => Fault::Passing(format!("{endpoint}: {reason}")),
            lasting => lasting,
        };
        let mut connection = self.connector.connect(&endpoint).await.map_err(at)?;
        let answer = connection.call::<R>(request).await.map_err(at)?;
        self.control = Some((endpoint, connection));
        Ok(answer)
    }

    /// The version of an API that the broker speaks with us which is asked next; `None` where it is yet to be connected to, or speaks
    /// none.
    pub(super) fn version<R: Response>(&self) -> Option<i16> {
        let (_, connection) = self.control.as_ref()?;
        connection.version(R::KEY, R::NAME, R::VERSIONS).ok()
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
        let answers = self.call_with::<Metadata, A>(&request, along, METADATA_PATIENCE);
        let (metadata, along) = answers.await?;
        if metadata.brokers.is_empty() {
            // A broker that has just started may know neither brokers nor topics (KAFKA-7924), and what it says of those is no answer:
            // Java's `NetworkClient` passes it over, too.
            self.ask_another();
            let reason = "the broker that was asked knows of no brokers yet";
            return Err(Fault::Passing(reason.to_owned()));
        }
        if let Some(other) = self.other_cluster(metadata.cluster_id.as_deref()) {
            self.ask_another();
            return Err(Fault::Passing(other));
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

    /// What is wrong with a broker that belongs to this cluster, by its own words, where it is not the one that was begun with: records would
    /// be divided among the two.
    fn other_cluster(&self, of: Option<&str>) -> Option<String> {
        let (control, _) = self.control.as_ref()?;
        differs(&control.to_string(), self.cluster_id.as_deref(), of)
    }

    /// The next question goes to another broker, where there is one.
    pub(super) fn ask_another(&mut self) {
        self.control = None;
    }

    /// From now on these brokers are asked only when none of the others answers: they do not answer, or may be cut off from the others
    /// without knowing it.
    pub(super) fn avoid(&mut self, brokers: &BTreeSet<i32>) {
        let known = |id| self.brokers.get(id).cloned();
        self.avoided = brokers.iter().filter_map(known).collect();
        let has_others = self.avoided.len() < self.brokers.len();
        // Who was asked under a name of the configuration that metadata do not know may be any of them.
        let is_known = |endpoint: &Endpoint| self.brokers.values().any(|known| known == endpoint);
        let is_avoided = |(endpoint, _): &(Endpoint, Connection)| match is_known(endpoint) {
            true => self.avoided.contains(endpoint),
            false => !self.avoided.is_empty(),
        };
        if has_others && self.control.as_ref().is_some_and(is_avoided) {
            self.ask_another();
        }
    }

    /// Who may be asked, in the order in which they are tried.
    fn candidates(&self) -> Vec<Endpoint> {
        let in_turn = |mut endpoints: Vec<Endpoint>| {
            if !endpoints.is_empty() {
                let turn = self.turn % endpoints.len();
                endpoints.rotate_left(turn);
            }
            endpoints
        };
        let mut candidates = in_turn(self.brokers.values().cloned().collect());
        for endpoint in in_turn(self.bootstrap.clone()) {
            if !candidates.contains(&endpoint) {
                candidates.push(endpoint);
            }
        }
        // A stable sort.
        candidates.sort_by_key(|endpoint| self.avoided.contains(endpoint));
        candidates
    }
}

/// What is wrong with `broker`, of the cluster `of`, where another one was `begun` with; nothing where one of the two is not known.
pub(super) fn differs(broker: &str, begun: Option<&str>, of: Option<&str>) -> Option<String> {
    let (begun, of) = (begun?, of?);
    (begun != of).then(|| {
        format!(
            "{broker} belongs to Kafka cluster {of}, and this run began to write to cluster {begun}: let the name lead there again, or \
             start again to go on in the other one"
        )
    })
}

/// A topic's name as requests carry it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName::from(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
pub(super) mod tests;
