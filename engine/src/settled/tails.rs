//! Reads the tails of the partitions into what they prove.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::mysql::{Gtid, GtidSet};

use super::pos::{self, Place, Pos};
use super::{Partition, Settled};
use crate::checkpoint::Checkpoint;
use crate::position::Position;
use crate::source::Identity;

/// Names of transactions that one message lists; the rest is counted.
const NAMED_MAX: usize = 8;

/// Why the tails cannot be continued on this server. All halt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettledError {
    /// Another server's records, and no GTIDs to recognise them by.
    #[error(
        "partition {partition} of topic {topic} holds changes after the checkpoint that were read from server {written_from} and carry no \
         GTID (the last is {pos}), so on server {server} it cannot be known which of its transactions they are; connect to \
         {written_from} again, or choose where to go on with `walbrook position set` (changes after that are written again)"
    )]
    NoGtids {
        /// Topic of the first such record.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The server that it was read from.
        written_from: String,
        /// The server that is read now.
        server: String,
        /// Its `pos`.
        pos: String,
    },
    /// Kafka has transactions that this server has not.
    #[error(
        "Kafka holds {count} transactions after the checkpoint that server {server} never had: {names}; it was probably promoted before \
         they reached it. Undo their changes downstream or replay them there; then go on with `walbrook position set`, naming a \
         position of this server"
    )]
    UnknownTransactions {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
        /// The server that is read now.
        server: String,
    },
    /// This server's records, from behind the end of its log.
    #[error(
        "partition {partition} of topic {topic} holds changes at {pos} that were read from server {server}, whose binary log ends before \
         that, at {end}: it lost them in a crash, was built anew, or is another server of the same name. Undo their changes downstream or \
         replay them there; then go on with `walbrook position set`, naming a position of this server"
    )]
    BehindTheEnd {
        /// Topic of the first such partition.
        topic: String,
        /// The partition.
        partition: i32,
        /// `pos` of its last record.
        pos: String,
        /// The server.
        server: String,
        /// Where its log ends.
        end: String,
    },
    /// A record of ours that we cannot have written.
    #[error(
        "record at offset {offset} of partition {partition} of topic {topic} is of producer {producer}, which is ours, but its header {header} \
         is \"{value}\": {why}; remove the topic or choose where to go on with `walbrook position set`"
    )]
    ForeignRecord {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Its producer id.
        producer: i64,
        /// `pos` or `gtid`.
        header: &'static str,
        /// What stands there.
        value: String,
        /// What was expected.
        why: String,
    },
}

/// Producer id of every producer that is not idempotent, ours among them where the client is rskafka: without a `pos` it is another's.
pub(crate) const NO_PRODUCER: i64 = -1;

/// What one partition's tail holds, in all that was read of it.
#[derive(Debug, Default)]
struct Tail {
    topic: Box<str>,
    /// The offset that must come next if nothing was compacted away.
    next: i64,
    /// Whether offsets are missing.
    gap: bool,
    /// Whether the log ends before the checkpoint's offset: created anew, or cut by an unclean election.
    cut: bool,
    /// Highest place per server (by its number in `Tails::servers`) and base name of its files.
    highest: Vec<(usize, Box<str>, Place)>,
    /// Servers that records of it were read from.
    servers: BTreeSet<usize>,
    /// Highest row per GTID, and the server that its first record was read from; none of the server that is read now, whose places
    /// say it all.
    gtids: HashMap<Box<str>, (u64, usize)>,
    /// The last record without a GTID of each server: its `pos`.
    without_gtid: BTreeMap<usize, String>,
}

/// Collects the tails of all partitions, then answers for one server.
#[derive(Debug)]
pub struct Tails {
    /// The server that is read now.
    server: String,
    /// The server that the checkpoint's position was read from.
    position_of: Option<String>,
    /// Producer id to the server that it wrote changes of; `AMBIGUOUS` when it wrote of several.
    producers: HashMap<i64, usize>,
    /// Producer ids that wrote changes of several servers, with these.
    several: Vec<(i64, Vec<usize>)>,
    servers: Vec<String>,
    partitions: BTreeMap<(u32, i32), Tail>,
    ancestors: Vec<(Identity, Position)>,
    /// Where the log of the server that is read now ends.
    end: Option<Position>,
}

/// Server number of records whose producer wrote changes of more than one: only their GTIDs say anything, unless the servers are of one
/// history ([`Tails::share_history`]).
const AMBIGUOUS: usize = usize::MAX;

impl Tails {
    /// Ready to take the records that the checkpoint's producers wrote, for a stream from `server`.
    #[must_use]
    pub fn new(checkpoint: &Checkpoint, server: &Identity) -> Self {
        let mut tails = Self {
            server: server.to_string(),
            position_of: checkpoint.server.as_ref().map(ToString::to_string),
            producers: HashMap::new(),
            several: Vec::new(),
            servers: Vec::new(),
            partitions: BTreeMap::new(),
            ancestors: Vec::new(),
            end: None,
        };
        for (id, servers) in &checkpoint.producers {
            let mut number = |server: &String| match tails.servers.iter().position(|s| s == server)
            {
                Some(number) => number,
                None => {
                    tails.servers.push(server.clone());
                    tails.servers.len() - 1
                }
            };
            let numbers: Vec<usize> = servers.iter().map(&mut number).collect();
            let number = match numbers[..] {
                [number] => number,
                _ => AMBIGUOUS,
            };
            tails.producers.insert(*id, number);
            tails.several.push((*id, numbers));
        }
        tails.several.retain(|(_, numbers)| numbers.len() > 1);
        tails
    }

    /// Servers whose history the present one shares up to a position, one after the other: rows before it are the same on both. To be told
    /// before the first record.
    pub fn share_history(&mut self, ancestors: &[(Identity, Position)]) {
        self.ancestors = ancestors.to_vec();
        for (id, numbers) in &self.several {
            if let Some(number) = self.one_of_history(numbers) {
                self.producers.insert(*id, number);
            }
        }
    }

    /// The server whose places all records of a producer can be judged by that wrote changes of several servers; `None` where these are not
    /// of one history.
    ///
    /// A batch is of one server, and a source goes on at the next one only behind what the two share. So once an end of the latest one was
    /// acknowledged (the checkpoint's position is of it), whatever was written of the others is of its history too, and all places are its
    /// own. Before that a row may be there that it never had: then all have to lie where the earliest one's history is everybody's.
    fn one_of_history(&self, numbers: &[usize]) -> Option<usize> {
        let rank = |number: &usize| {
            let name = self.servers.get(*number)?;
            let ancestor = |(ancestor, _): &(Identity, Position)| ancestor.to_string() == *name;
            match *name == self.server {
                true => Some(self.ancestors.len()),
                false => self.ancestors.iter().position(ancestor),
            }
        };
        let ranks: Option<Vec<(usize, usize)>> = (numbers.iter())
            .map(|number| Some((rank(number)?, *number)))
            .collect();
        let ranks = ranks?;
        let (_, earliest) = *ranks.iter().min()?;
        let (_, latest) = *ranks.iter().max()?;
        let is_reached = self.position_of.as_ref() == self.servers.get(latest);
        Some(if is_reached { latest } else { earliest })
    }

    /// Where the log of the server that is read now ends: none of its records is from behind that.
    pub fn end_at(&mut self, end: &Position) {
        self.end = Some(end.clone());
    }

    /// Tells by its producer and its `pos` whether a record says anything: others need only their offsets noted.
    pub fn ours(&self) -> impl Fn(i64, Option<&[u8]>) -> bool + Sync + use<> {
        let ids: BTreeSet<i64> = self.producers.keys().copied().collect();
        move |id, pos| ids.contains(&id) && (id != NO_PRODUCER || pos.is_some())
    }

    /// Begins a partition at the checkpoint's offset. `from` is where reading really began: later, when the broker has
    /// deleted what was before.
    pub fn begin(&mut self, topic: &str, topic_id: u32, partition: i32, wanted: i64, from: i64) {
        let tail = Tail {
            topic: topic.into(),
            next: from,
            gap: from > wanted,
            ..Tail::default()
        };
        self.partitions.insert((topic_id, partition), tail);
    }

    /// One record, in order of offsets, whoever wrote it. `pos` and `gtid` are the values of its headers.
    ///
    /// # Errors
    /// [`SettledError::ForeignRecord`] when it is of our producer and has no readable `pos`.
    pub fn record(
        &mut self,
        topic_id: u32,
        partition: i32,
        offset: i64,
        producer_id: i64,
        pos: Option<&[u8]>,
        gtid: Option<&[u8]>,
    ) -> Result<(), SettledError> {
        let tail = self.partitions.entry((topic_id, partition)).or_default();
        tail.gap |= offset != tail.next;
        tail.next = offset + 1;
        let Some(&server) = self.producers.get(&producer_id) else {
            return Ok(());
        };
        if producer_id == NO_PRODUCER && pos.is_none() {
            return Ok(());
        }
        let foreign = |header, value: Option<&[u8]>, why: String| SettledError::ForeignRecord {
            topic: tail.topic.to_string(),
            partition,
            offset,
            producer: producer_id,
            header,
            value: value.map_or_else(
                || "absent".into(),
                |v| String::from_utf8_lossy(v).into_owned(),
            ),
            why,
        };
        let read =
            Pos::parse(pos.unwrap_or_default()).map_err(|e| foreign("pos", pos, e.to_string()))?;
        let gtid = gtid
            .map(|value| {
                std::str::from_utf8(value).map_err(|e| foreign("gtid", Some(value), e.to_string()))
            })
            .transpose()?;
        let here = self.servers.get(server).is_some_and(|s| *s == self.server);
        tail.add(server, here, &read, gtid);
        Ok(())
    }

    /// The partition has been read up to `end`, its log end offset.
    pub fn finish(&mut self, topic_id: u32, partition: i32, end: i64) {
        if let Some(tail) = self.partitions.get_mut(&(topic_id, partition)) {
            tail.gap |= tail.next < end;
            tail.cut = end < tail.next;
            tail.next = end;
        }
    }

    /// What is settled. `executed` are the GTIDs that the server has executed; `None` without GTIDs.
    ///
    /// # Errors
    /// The tails hold another server's records that cannot be recognised on this one, or that it never had.
    pub fn settled(&self, executed: Option<&GtidSet>) -> Result<Settled, SettledError> {
        let here = self.here();
        self.check_end()?;
        let mut unknown = BTreeSet::new();
        let mut settled = Settled::nothing();
        for ((topic_id, partition), tail) in &self.partitions {
            let is_here = |number: usize| here.contains(&number);
            if let Some((number, pos)) = tail
                .without_gtid
                .iter()
                .find(|(number, _)| !is_here(**number))
            {
                return Err(SettledError::NoGtids {
                    topic: tail.topic.to_string(),
                    partition: *partition,
                    written_from: self
                        .servers
                        .get(*number)
                        .map_or_else(|| "unknown".into(), Clone::clone),
                    server: self.server.clone(),
                    pos: pos.clone(),
                });
            }
            // Where everything was read from this server, its order says it all.
            let elsewhere = tail.servers.iter().any(|number| !is_here(*number));
            if elsewhere {
                let had = |gtid: &str| {
                    let gtid = gtid.parse::<Gtid>();
                    gtid.is_ok_and(|gtid| executed.is_some_and(|set| set.contains(&gtid)))
                };
                let lost = tail
                    .gtids
                    .iter()
                    .filter(|(gtid, (_, number))| !is_here(*number) && !had(gtid));
                unknown.extend(lost.map(|(gtid, _)| gtid.clone()));
            }
            let proves_nothing = tail.cut || (elsewhere && tail.gap);
            let ends = match proves_nothing {
                true => &mut settled.restarted,
                false => &mut settled.ends,
            };
            ends.entry(tail.topic.to_string())
                .or_default()
                .insert(*partition, tail.next);
            if proves_nothing {
                continue;
            }
            let places = tail.highest.iter().filter(|(number, ..)| is_here(*number));
            let found = Partition {
                highest: places
                    .map(|(_, base, place)| (base.clone(), *place))
                    .collect(),
                gtids: match elsewhere {
                    true => tail
                        .gtids
                        .iter()
                        .map(|(gtid, (row, _))| (gtid.clone(), *row))
                        .collect(),
                    false => HashMap::new(),
                },
            };
            if !found.highest.is_empty() || !found.gtids.is_empty() {
                settled.partitions.insert((*topic_id, *partition), found);
            }
        }
        if unknown.is_empty() {
            return Ok(settled);
        }
        let mut names = unknown
            .iter()
            .take(NAMED_MAX)
            .map(|gtid| &**gtid)
            .collect::<Vec<_>>()
            .join(", ");
        if unknown.len() > NAMED_MAX {
            names += &format!(" and {} more", unknown.len() - NAMED_MAX);
        }
        Err(SettledError::UnknownTransactions {
            count: unknown.len(),
            names,
            server: self.server.clone(),
        })
    }
}

impl Tails {
    /// Refuses records of the server that is read now from behind the end of its log: its places are not what they were.
    fn check_end(&self) -> Result<(), SettledError> {
        let Some(Position::MySql { binlog: end, .. }) = &self.end else {
            return Ok(());
        };
        let (end_base, end_number) = pos::split_file(&end.file);
        let own = (self.servers.iter()).position(|server| *server == self.server);
        for ((_, partition), tail) in &self.partitions {
            let behind = tail.highest.iter().find(|(server, base, place)| {
                Some(*server) == own
                    && **base == *end_base
                    && (place.number, place.offset) >= (end_number, end.offset)
            });
            if let Some((_, base, place)) = behind {
                return Err(SettledError::BehindTheEnd {
                    topic: tail.topic.to_string(),
                    partition: *partition,
                    pos: format!("{base}.{:06}:{}/{}", place.number, place.offset, place.row),
                    server: self.server.clone(),
                    end: end.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Numbers of the servers whose places mean the same as on the one that is read now.
    fn here(&self) -> Vec<usize> {
        let shared = |number: usize, until: &Position| {
            let Position::Postgres { lsn: until } = until else {
                return false;
            };
            let mut places = self.partitions.values().flat_map(|tail| &tail.highest);
            places.all(|(server, _, place)| *server != number || place.offset < until.0)
        };
        (self.servers.iter().enumerate())
            .filter(|(number, server)| {
                **server == self.server
                    || self.ancestors.iter().any(|(ancestor, until)| {
                        ancestor.to_string() == **server && shared(*number, until)
                    })
            })
            .map(|(number, _)| number)
            .collect()
    }
}

impl Tail {
    fn add(&mut self, server: usize, here: bool, pos: &Pos<'_>, gtid: Option<&str>) {
        self.servers.insert(server);
        match gtid {
            // Its place proves it, now and after other servers' records. One entry per transaction would be what a tail that a
            // prepared XA transaction has held for hours takes.
            Some(_) if here => {}
            Some(gtid) => match self.gtids.get_mut(gtid) {
                Some((row, _)) => *row = (*row).max(pos.row),
                None => {
                    self.gtids.insert(gtid.into(), (pos.row, server));
                }
            },
            None => {
                self.without_gtid.insert(server, pos.to_string());
            }
        }
        if server == AMBIGUOUS {
            return;
        }
        let (base, number) = pos::split_file(pos.file);
        let place = Place {
            number,
            offset: pos.offset,
            row: pos.row,
        };
        match self
            .highest
            .iter_mut()
            .find(|(s, b, _)| *s == server && &**b == base)
        {
            Some((_, _, highest)) => *highest = (*highest).max(place),
            None => self.highest.push((server, base.into(), place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prepared XA transaction can hold the tail at where it was hours ago: millions of transactions, and one place.
    #[test]
    fn of_the_server_that_is_read_only_the_last_place_is_kept() {
        let position = "binlog.000001:4".parse().unwrap();
        let mut checkpoint = Checkpoint::set_by_operator(position);
        for (id, server) in [(7, "mysql:a"), (8, "mysql:b")] {
            checkpoint.producers.insert(id, [server.to_owned()].into());
        }
        let mut tails = Tails::new(&checkpoint, &"mysql:a".parse().unwrap());
        tails.begin("t", 0, 0, 0, 0);
        for (offset, producer) in [(0, 7), (1, 7), (2, 8)] {
            let pos = format!("binlog.000001:{}/0", 100 + offset);
            let gtid = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{}", 1 + offset);
            let (pos, gtid) = (Some(pos.as_bytes()), Some(gtid.as_bytes()));
            tails.record(0, 0, offset, producer, pos, gtid).unwrap();
        }
        let tail = &tails.partitions[&(0, 0)];
        let kept: Vec<&str> = tail.gtids.keys().map(|gtid| &**gtid).collect();
        assert_eq!(kept, ["3e11fa47-71ca-11e1-9e33-c80aa9429562:3"]);
        assert_eq!(tail.highest.len(), 2);
    }
}
