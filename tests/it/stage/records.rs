//! The contents of a test's topics, read without slackwater: by records, and by how many an applier must count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use slackwater_topics::{CollectionId, Mark, Op, Part, Position, Record};

use crate::stage::{PATIENCE, until};

/// How long a broker may take for one answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// The topics whose names begin with a prefix and a dot.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    brokers: String,
    prefix: String,
}

/// A record as it is.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    /// The header of a mark.
    pub(crate) mark: Option<Bytes>,
}

/// What an applier of one partition must have counted once it has seen all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: i64,
    pub(crate) duplicates: i64,
    pub(crate) superseded: i64,
}

/// The contents of a partition, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Where the next record will be.
    pub(crate) end: i64,
    pub(crate) records: i64,
    /// Changes of documents that are one record.
    pub(crate) events: i64,
    pub(crate) parts: i64,
    pub(crate) marks: i64,
    pub(crate) tombstones: i64,
    /// Reckoned from its records alone.
    pub(crate) counts: Counts,
}

impl Topics {
    pub(crate) fn new(brokers: &str, prefix: &str) -> Self {
        Self { brokers: brokers.into(), prefix: prefix.into() }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("log_level", "0");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("options that fit")
    }

    fn reader(&self) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", "a reader without a group").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "false").create().expect("options that fit")
    }

    /// Asks on a thread that may block.
    async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(Self) -> T + Send + 'static) -> T {
        let topics = self.clone();
        tokio::task::spawn_blocking(move || ask(topics)).await.expect("a task")
    }

    fn partitions<C: ConsumerContext>(&self, reader: &BaseConsumer<C>) -> BTreeMap<String, i32> {
        let metadata = reader.fetch_metadata(None, ANSWER).expect("the broker answers");
        let beginning = format!("{}.", self.prefix);
        let ours = metadata.topics().iter().filter(|topic| topic.name().starts_with(&beginning));
        ours.map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32)).collect()
    }

    /// Their names, and how many partitions each has.
    pub(crate) async fn names(&self) -> BTreeMap<String, i32> {
        self.ask(|topics| topics.partitions(&topics.reader())).await
    }

    /// Makes one.
    pub(crate) async fn make(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let made = self.admin().create_topics(&[topic], &AdminOptions::new()).await;
        made.expect("the broker answers").pop().expect("an answer").expect("a topic can be made");
    }

    /// Gives one more partitions, so many in all, and waits until they are there.
    pub(crate) async fn widen(&self, name: &str, partitions: i32) {
        let more = NewPartitions::new(name, partitions as usize);
        let made = self.admin().create_partitions(&[more], &AdminOptions::new()).await;
        made.expect("the broker answers").pop().expect("an answer").expect("partitions can be added");
        until("the partitions are there", PATIENCE, async || {
            (self.names().await.get(name) == Some(&partitions)).then_some(())
        })
        .await;
    }

    /// Removes everything in them, as retention does; how many records.
    pub(crate) async fn cut(&self) -> i64 {
        let ends = self.offsets().await;
        let mut places = TopicPartitionList::new();
        for ((topic, partition), (_, end)) in &ends {
            places.add_partition_offset(topic, *partition, Offset::Offset(*end)).expect("an offset");
        }
        let cut = self.admin().delete_records(&places, &AdminOptions::new()).await;
        for element in cut.expect("the broker answers").elements() {
            element.error().expect("records can be removed");
        }
        ends.values().map(|(begin, end)| end - begin).sum()
    }

    /// Sends a record of anybody's, and waits until it is there.
    pub(crate) async fn send(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) -> i64 {
        let producer: FutureProducer = self.config().create().expect("options that fit");
        let record = FutureRecord::to(topic).partition(partition).key(key).payload(value);
        producer.send(record, PATIENCE).await.expect("a record can be sent").offset
    }

    /// Removes them, and waits until they are gone.
    pub(crate) async fn delete(&self) {
        let names: Vec<String> = self.names().await.into_keys().collect();
        self.delete_some(&names).await;
    }

    /// Removes these, and waits until they are gone.
    pub(crate) async fn delete_some(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let named: Vec<&str> = names.iter().map(String::as_str).collect();
        let deleted = self.admin().delete_topics(&named, &AdminOptions::new()).await;
        for answer in deleted.expect("the broker answers") {
            answer.expect("a topic can be deleted");
        }
        until("the topics are gone", PATIENCE, async || {
            let left = self.names().await;
            (!names.iter().any(|name| left.contains_key(name))).then_some(())
        })
        .await;
    }

    /// Removes a group, as soon as nobody is a member of it.
    pub(crate) async fn delete_group(&self, group: &str) {
        until("the group can be deleted", PATIENCE, async || {
            let answers = self.admin().delete_groups(&[group], &AdminOptions::new()).await;
            match answers.expect("the broker answers").pop().expect("an answer") {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => Some(()),
                // A member that was killed is one until its session is over.
                Err((_, RDKafkaErrorCode::NonEmptyGroup)) => None,
                Err((_, error)) => panic!("the group cannot be deleted: {error}"),
            }
        })
        .await;
    }

    /// Joins a group under a name that is kept, takes partitions, and is gone again without a word.
    pub(crate) async fn join(&self, group: &str, member: &str) {
        let (group, member) = (group.to_owned(), member.to_owned());
        self.ask(move |topics| {
            let mut config = topics.config();
            config.set("group.id", group).set("group.instance.id", member);
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("enable.auto.commit", "false");
            let client: BaseConsumer = config.create().expect("options that fit");
            let names = topics.partitions(&client);
            let names: Vec<&str> = names.keys().map(String::as_str).collect();
            client.subscribe(&names).expect("topics that are there");
            let end = Instant::now() + PATIENCE;
            while client.assignment().expect("an assignment").count() == 0 {
                assert!(Instant::now() < end, "the group gives it no partitions");
                // What it reads is nobody's.
                let _ = client.poll(Duration::from_millis(40));
            }
        })
        .await;
    }

    /// Joins a group under a name that is kept, takes all partitions and says so, and, as soon as the group tells it to let some go,
    /// is gone without a word.
    pub(crate) fn vanish_half_way(
        &self,
        group: &str,
        member: &str,
        has_all: Arc<AtomicBool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (topics, group, member) = (self.clone(), group.to_owned(), member.to_owned());
        async move {
            let stay = topics.ask(move |topics| {
                let mut config = topics.config();
                config.set("group.id", group).set("group.instance.id", member);
                config
                    .set("partition.assignment.strategy", "cooperative-sticky")
                    .set("session.timeout.ms", "6000")
                    .set("enable.auto.commit", "false");
                let client: BaseConsumer<Told> =
                    config.create_with_context(Told::default()).expect("options that fit");
                let names = topics.partitions(&client);
                let all = names.values().sum::<i32>() as usize;
                let names: Vec<&str> = names.keys().map(String::as_str).collect();
                client.subscribe(&names).expect("topics that are there");
                let end = Instant::now() + PATIENCE;
                while !client.context().to_let_go.load(Ordering::Relaxed) {
                    assert!(Instant::now() < end, "the group takes nothing back");
                    // What it reads is nobody's.
                    let _ = client.poll(Duration::from_millis(40));
                    has_all
                        .store(client.assignment().expect("an assignment").count() == all, Ordering::Relaxed);
                }
                client
            });
            // Who is killed does not close its client, and that would answer the group.
            std::mem::forget(stay.await);
        }
    }

    /// Where a group is, as the broker was told; none where it was told nothing.
    pub(crate) async fn committed(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let group = group.to_owned();
        self.ask(move |topics| {
            let client = topics.outsider(&group);
            let mut places = TopicPartitionList::new();
            for (name, partitions) in topics.partitions(&client) {
                places.add_partition_range(&name, 0, partitions - 1);
            }
            let told = client.committed_offsets(places, ANSWER).expect("the broker answers");
            let told = told.elements().into_iter().filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
                _ => None,
            });
            told.collect()
        })
        .await
    }

    /// Tells the broker where a group is, as soon as nobody is a member of it.
    pub(crate) async fn commit(&self, group: &str, offsets: &BTreeMap<(String, i32), i64>) {
        let mut places = TopicPartitionList::new();
        for ((topic, partition), offset) in offsets {
            places.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("an offset");
        }
        until("the group's offsets can be set", PATIENCE, async || {
            let (group, places) = (group.to_owned(), places.clone());
            let told =
                self.ask(move |topics| topics.outsider(&group).commit(&places, CommitMode::Sync)).await;
            match told {
                Ok(()) => Some(()),
                // A group that has members takes offsets from them only.
                Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)) => None,
                Err(error) => panic!("the group's offsets cannot be set: {error}"),
            }
        })
        .await;
        assert_eq!(self.committed(group).await, *offsets, "the broker was told so");
    }

    /// Speaks of a group without being in it.
    fn outsider(&self, group: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        config.create().expect("options that fit")
    }

    /// Where each partition begins and ends.
    pub(crate) async fn offsets(&self) -> BTreeMap<(String, i32), (i64, i64)> {
        self.ask(|topics| topics.ends(&topics.reader())).await
    }

    fn ends(&self, reader: &BaseConsumer) -> BTreeMap<(String, i32), (i64, i64)> {
        let mut ends = BTreeMap::new();
        for (name, partitions) in self.partitions(reader) {
            for partition in 0..partitions {
                let found = reader.fetch_watermarks(&name, partition, ANSWER).expect("the broker answers");
                ends.insert((name.clone(), partition), found);
            }
        }
        ends
    }

    /// Every record, partition by partition in order, as far as each partition goes now.
    pub(crate) async fn read(&self) -> Vec<Stored> {
        self.ask(|topics| {
            let reader = topics.reader();
            let mut ends = topics.ends(&reader);
            ends.retain(|_, (begin, end)| begin < end);
            let mut places = TopicPartitionList::new();
            for ((topic, partition), (begin, _)) in &ends {
                let added = places.add_partition_offset(topic, *partition, Offset::Offset(*begin));
                added.expect("an offset");
            }
            reader.assign(&places).expect("partitions that are there");
            let mut records = Vec::new();
            while !ends.is_empty() {
                let message = reader.poll(PATIENCE).expect("there are more records");
                let message = message.expect("records can be read");
                let place = (message.topic().to_owned(), message.partition());
                let Some((_, end)) = ends.get(&place).copied() else { continue };
                let owned = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
                let mark = message.headers().and_then(|headers| {
                    let mark = headers.iter().find(|header| header.key == Mark::HEADER)?;
                    mark.value.map(owned)
                });
                let (topic, partition) = place.clone();
                records.push(Stored {
                    topic,
                    partition,
                    offset: message.offset(),
                    key: owned(message.key().unwrap_or_default()),
                    value: message.payload().map(owned),
                    mark: mark.filter(|_| message.payload().is_none()),
                });
                if message.offset() + 1 >= end {
                    ends.remove(&place);
                }
            }
            records.sort_by(|one, other| {
                (&one.topic, one.partition, one.offset).cmp(&(&other.topic, other.partition, other.offset))
            });
            records
        })
        .await
    }

    /// Reads everything, and reckons what appliers must have counted.
    pub(crate) async fn reckon(&self) -> BTreeMap<(String, i32), Standing> {
        let mut partitions: BTreeMap<(String, i32), Vec<Record>> = BTreeMap::new();
        for stored in self.read().await {
            let collection = stored.topic.strip_prefix(&format!("{}.", self.prefix)).expect("our prefix");
            let record = read(stored.value.as_ref(), stored.mark.as_deref(), collection);
            partitions.entry((stored.topic, stored.partition)).or_default().push(record);
        }
        let ends = self.offsets().await.into_iter();
        ends.map(|(place, (_, end))| {
            let collection = place.0.strip_prefix(&format!("{}.", self.prefix)).expect("our prefix");
            let records = partitions.remove(&place).unwrap_or_default();
            (place.clone(), Standing::of(end, records, collection))
        })
        .collect()
    }
}

/// Hears that partitions have to be let go, and does not answer.
#[derive(Default)]
struct Told {
    to_let_go: AtomicBool,
}

impl ClientContext for Told {}

impl ConsumerContext for Told {
    fn rebalance(
        &self,
        client: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                client.incremental_assign(partitions).expect("partitions can be taken");
            }
            _ => self.to_let_go.store(true, Ordering::Relaxed),
        }
    }
}

fn read(value: Option<&Bytes>, mark: Option<&[u8]>, collection: &str) -> Record {
    Record::read(value, mark, CollectionId(0), collection).expect("a record of ours")
}

fn epoch_of(record: &Record) -> Option<i64> {
    match record {
        Record::Event(_, stamp) => Some(stamp.epoch),
        Record::Mark(mark) => Some(mark.epoch),
        Record::Part(part) => Some(part.epoch),
        Record::Tombstone => None,
    }
}

/// Puts events that travelled in parts at the place of their first part, if no newer capture spoke before their last.
fn whole(records: Vec<Record>, collection: &str) -> Vec<Record> {
    let mut groups: BTreeMap<(i64, i64), Vec<(usize, Part)>> = BTreeMap::new();
    let mut newest = 0;
    for (place, record) in records.iter().enumerate() {
        if let Record::Part(part) = record
            && part.epoch >= newest
        {
            groups.entry((part.epoch, part.group)).or_default().push((place, part.clone()));
        }
        newest = epoch_of(record).unwrap_or_default().max(newest);
    }
    let mut records: Vec<Option<Record>> = records.into_iter().map(Some).collect();
    for parts in groups.into_values() {
        let (first, Part { count, .. }) = &parts[0];
        if parts.len() != *count as usize {
            continue;
        }
        let value: Vec<u8> = parts.iter().flat_map(|(_, part)| part.bytes.iter().copied()).collect();
        parts.iter().for_each(|(place, _)| records[*place] = None);
        records[*first] = Some(read(Some(&value.into()), None, collection));
    }
    records.into_iter().flatten().collect()
}

impl Standing {
    /// The rule in short: what an older capture sent is superseded, a place in the source that was passed is a duplicate.
    fn of(end: i64, records: Vec<Record>, collection: &str) -> Self {
        let mut standing = Self { end, records: records.len() as i64, ..Self::default() };
        for record in &records {
            match record {
                Record::Event(..) => standing.events += 1,
                Record::Part(_) => standing.parts += 1,
                Record::Mark(_) => standing.marks += 1,
                Record::Tombstone => standing.tombstones += 1,
            }
        }
        let (mut newest, mut high) = (0, Position::default());
        for record in whole(records, collection) {
            let Some(epoch) = epoch_of(&record) else { continue };
            if epoch < newest {
                standing.counts.superseded += 1;
                continue;
            }
            newest = epoch;
            let Record::Event(event, _) = record else { continue };
            // The copy has no place in the stream.
            let streamed = event.op != Op::Snapshot && event.position != Position::default();
            if streamed && event.position <= high {
                standing.counts.duplicates += 1;
                continue;
            }
            if streamed {
                high = event.position;
            }
            standing.counts.events += 1;
        }
        standing
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.end += other.end;
        self.records += other.records;
        self.events += other.events;
        self.parts += other.parts;
        self.marks += other.marks;
        self.tombstones += other.tombstones;
        self.counts.events += other.counts.events;
        self.counts.duplicates += other.counts.duplicates;
        self.counts.superseded += other.counts.superseded;
    }
}
