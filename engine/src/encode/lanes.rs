//! The record batches of one encoding: one open at a time for each partition that the batch touches.
//!
//! Builders carry a codec's tables, so they are pooled: a batch that touches three partitions of a thousand tables needs as many
//! builders as partitions that are really written to, and few are kept for the next one.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::kafka::Compression;
use protocol::kafka::record_batch::{BuildError, Builder};

use crate::encoded::{Buffer, EncodedBatch, Spares};

use super::error::EncodeErrorKind;
use super::template::Template;

/// Builders kept from one batch to the next.
const KEPT_MAX: usize = 16;

/// A partition of a topic, and the record batch that is being built for it.
#[derive(Debug)]
struct Lane {
    topic_id: u32,
    partition: u32,
    /// Index into `builders`.
    builder: Option<u32>,
    changes: u32,
    /// Bytes that a record batch of its topic may have as sent.
    batch_max: usize,
}

/// All partitions of one encoding.
pub(super) struct Lanes {
    compression: Compression,
    lanes: Vec<Lane>,
    /// First lane of each of the batch's tables.
    first_of_table: Vec<u32>,
    /// First lane and partitions of each topic.
    first_of_topic: HashMap<u32, (u32, u32)>,
    builders: Vec<Builder>,
    free: Vec<u32>,
    /// Lanes with a builder, in the order in which they were opened.
    open: Vec<u32>,
    done: Vec<EncodedBatch>,
    /// Memory of record batches that Kafka has.
    spares: Arc<Spares>,
}

impl Lanes {
    pub(super) fn new(compression: Compression) -> Self {
        Self {
            compression,
            lanes: Vec::new(),
            first_of_table: Vec::new(),
            first_of_topic: HashMap::new(),
            builders: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            done: Vec::new(),
            spares: Arc::default(),
        }
    }

    /// Builders of another codec are of no use any more.
    pub(super) fn set_compression(&mut self, compression: Compression) {
        if self.compression != compression {
            self.compression = compression;
            self.builders.clear();
        }
    }

    /// Begins an encoding for the tables of a batch. Tables that share a topic share its lanes, and the widest route counts.
    pub(super) fn start(&mut self, templates: &[Arc<Template>]) {
        self.lanes.clear();
        self.first_of_table.clear();
        self.first_of_topic.clear();
        self.open.clear();
        self.done.clear();
        self.builders.truncate(KEPT_MAX);
        self.builders.iter_mut().for_each(Builder::clear);
        self.free.clear();
        self.free.extend(0..self.builders.len() as u32);
        for template in templates {
            let (_, partitions) = self
                .first_of_topic
                .entry(template.route.topic_id)
                .or_default();
            *partitions = template.route.partitions.max(*partitions).max(1);
        }
        for template in templates {
            let topic_id = template.route.topic_id;
            let Some((first, partitions)) = self.first_of_topic.get_mut(&topic_id) else {
                continue;
            };
            let known = self
                .lanes
                .get(*first as usize)
                .is_some_and(|lane| lane.topic_id == topic_id);
            if !known {
                *first = self.lanes.len() as u32;
                self.lanes.extend((0..*partitions).map(|partition| Lane {
                    topic_id,
                    partition,
                    builder: None,
                    changes: 0,
                    batch_max: template.batch_max,
                }));
            }
            self.first_of_table.push(*first);
        }
    }

    /// The lane of a partition of a table's topic.
    #[inline]
    pub(super) fn lane(&self, table: u32, partition: u32) -> usize {
        let first = self
            .first_of_table
            .get(table as usize)
            .copied()
            .unwrap_or(0);
        (first + partition) as usize
    }

    /// Appends the records of one row to a lane, all of them into one record batch: `write` is called again for a fresh one where
    /// the open one would exceed the limit.
    ///
    /// # Errors
    /// What `write` returns, and [`EncodeErrorKind::Oversize`] (without its key) for a row that is too large by itself.
    #[inline]
    pub(super) fn append(
        &mut self,
        lane: usize,
        changes: u32,
        mut write: impl FnMut(&mut Builder) -> Result<(), EncodeErrorKind>,
    ) -> Result<(), EncodeErrorKind> {
        loop {
            let index = self.builder(lane)?;
            let Some(builder) = self.builders.get_mut(index as usize) else {
                return Err(EncodeErrorKind::Batch("a lane without its builder"));
            };
            let mark = builder.mark()?;
            if let Err(error) = write(builder) {
                builder.rollback(mark);
                return Err(error);
            }
            let limit = self.lanes[lane].batch_max;
            if builder.encoded_len_bound() <= limit {
                self.lanes[lane].changes += changes;
                return Ok(());
            }
            if mark.records() > 0 {
                builder.rollback(mark);
                self.close(lane)?;
                continue;
            }
            // Alone and beyond the bound: only compressing it tells whether it fits.
            self.lanes[lane].changes += changes;
            self.close(lane)?;
            let size = self.done.last().map_or(0, |batch| batch.bytes.len());
            if size > limit {
                let key = Box::default();
                return Err(EncodeErrorKind::Oversize { key, size, limit });
            }
            return Ok(());
        }
    }

    /// The builder of a lane, opened where it has none.
    #[inline]
    fn builder(&mut self, lane: usize) -> Result<u32, EncodeErrorKind> {
        let Some(of) = self.lanes.get_mut(lane) else {
            return Err(EncodeErrorKind::Batch("a partition beyond its topic's"));
        };
        if let Some(index) = of.builder {
            return Ok(index);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.builders.push(Builder::new(self.compression));
            self.builders.len() as u32 - 1
        });
        of.builder = Some(index);
        self.open.push(lane as u32);
        if let Some(builder) = self.builders.get_mut(index as usize) {
            builder.recycle(self.spares.take());
        }
        Ok(index)
    }

    /// Finishes the record batch of a lane.
    fn close(&mut self, lane: usize) -> Result<(), BuildError> {
        let Some(of) = self.lanes.get_mut(lane) else {
            return Ok(());
        };
        let Some(index) = of.builder.take() else {
            return Ok(());
        };
        self.open.retain(|open| *open as usize != lane);
        self.free.push(index);
        let changes = std::mem::take(&mut of.changes);
        let (topic_id, partition) = (of.topic_id, of.partition as i32);
        if let Some(builder) = self.builders.get_mut(index as usize) {
            let records = builder.records();
            let bytes = builder.finish()?;
            self.done.push(EncodedBatch {
                topic_id,
                partition,
                records,
                changes,
                bytes: Buffer::of(bytes, Arc::clone(&self.spares)),
            });
        }
        Ok(())
    }

    /// Finishes what is open and hands over everything that was built.
    pub(super) fn finish(&mut self) -> Result<Vec<EncodedBatch>, BuildError> {
        for lane in std::mem::take(&mut self.open) {
            self.close(lane as usize)?;
        }
        Ok(std::mem::take(&mut self.done))
    }
}
