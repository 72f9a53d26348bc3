//! Reads partitions of topics as a member of a group, on a thread of its own.
//!
//! **Invariant**: a record is delivered under a claim that was made after the partition had been assigned, from the
//! offset which that claim gave, with no record left out in between. What the broker believes about offsets plays no
//! part: it is told for other people's tools and never asked.
//!
//! The group decides who *should* read a partition; who *may* write what it holds is decided by the claim, in the
//! database. So a member that was thought dead and goes on does no harm, and a revoked partition needs no farewell.
//!
//! **Crash**: nothing is kept here. The next owner claims and begins where the last commit in the database ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::batch::Batch;
use super::error::{explain, of_code};
use super::group::{Change, Group, assign};
use super::report::Trouble;
use super::settings::Settings;
use super::shares;
use crate::error::{Error, Kind, Result};

/// How long a full reader is waited for before its partitions are paused: what was fetched ahead is lost by that.
const PATIENCE: Duration = Duration::from_secs(20);
/// Offsets are told to the broker this often.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Partitions without a good place to begin are asked about this often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// While we do not have all partitions, the group is looked at this often, to see whether somebody has each.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
const WATERMARKS_WITHIN: Duration = Duration::from_secs(10);
const SEEK_WITHIN: Duration = Duration::from_secs(10);

/// A partition: the topic's place in the list that the consumer was opened with, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// Which topic.
    pub topic: u16,
    /// Which partition of it.
    pub number: i32,
}

/// What a group's member is called and reads.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// A name that stays the same over restarts: then a short absence moves no partition.
    pub member: Option<String>,
    /// The topics, and how many of their partitions count.
    pub topics: Vec<(Arc<str>, u32)>,
}

/// Of each partition that was asked for: the offset to begin at and the claim, or nothing where there is no place to begin
/// yet.
pub type Claims<C> = Vec<Option<(i64, C)>>;

/// Where partitions are claimed. Its methods are called on the consumer's thread and may wait. `None` ends the consumer, and
/// so does an error, with which it ends then.
pub trait Desk: Send + 'static {
    /// What a claim tells the reader.
    type Claim: Send + 'static;

    /// Claims partitions.
    fn claim(&mut self, wanted: &[Partition]) -> Result<Option<Claims<Self::Claim>>>;

    /// The partition does not hold the offset of its claim any more.
    fn lost(&mut self, partition: Partition, claim: &Self::Claim, text: String) -> Result<Option<()>>;

    /// Whether another process has taken our name over, as the broker says. It says so of a process that is alone as well,
    /// when the answer to its joining was lost on the way and it joins again.
    fn superseded(&mut self) -> Result<Option<bool>>;
}

/// A record as it came.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Its place in the partition.
    pub offset: i64,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
    /// The content of the header of a mark, where there is no value.
    pub mark: Option<Bytes>,
}

/// What a reader gets, in order.
#[derive(Debug)]
pub enum Delivery<C> {
    /// The partition is read under this claim from now on.
    Claimed {
        /// Which one.
        partition: Partition,
        /// From here.
        offset: i64,
        /// Under this.
        claim: C,
    },
    /// Somebody else will read it.
    Revoked(Partition),
    /// Records of claimed partitions.
    Records {
        /// Of each partition in its order.
        records: Vec<(Partition, Raw)>,
        /// What they take in memory.
        bytes: usize,
    },
}

/// What the consumer is told.
#[derive(Debug)]
enum Wish {
    /// The claim is not good any more: claim again, where the partition is still ours.
    Reclaim(Partition),
    /// Everything before this offset is in the target.
    Committed(Partition, i64),
}

/// Speaks to the consumer.
#[derive(Clone, Debug)]
pub struct Handle {
    wishes: UnboundedSender<Wish>,
    trouble: Arc<Trouble>,
}

impl Handle {
    /// The claim is not good any more: claim again, where the partition is still assigned.
    pub fn reclaim(&self, partition: Partition) {
        // A consumer that has ended needs no wishes.
        let _ = self.wishes.send(Wish::Reclaim(partition));
    }

    /// Everything before `offset` is in the target. For the broker's tools only.
    pub fn committed(&self, partition: Partition, offset: i64) {
        let _ = self.wishes.send(Wish::Committed(partition, offset));
    }

    /// Why nothing comes, where no broker was left and nothing has come since. Reading waits all the same.
    pub fn trouble(&self) -> Option<Error> {
        Some(of_code("reading from Kafka", self.trouble.outage()?))
    }
}

/// What the consumer hears of its [`Handle`]s.
#[derive(Debug)]
pub struct Wishes(UnboundedReceiver<Wish>, Arc<Trouble>);

/// A way to speak to a consumer that is still to be started with these settings.
pub fn handle(settings: &Settings) -> (Handle, Wishes) {
    let (wishes, heard) = unbounded_channel();
    let trouble = Arc::new(Trouble::of(settings));
    (Handle { wishes, trouble: Arc::clone(&trouble) }, Wishes(heard, trouble))
}

/// Starts the thread. It ends when all readers are gone, when the desk says so, or with an error.
pub fn start<D: Desk>(
    settings: &Settings,
    membership: Membership,
    desk: D,
    readers: Vec<Sender<Delivery<D::Claim>>>,
    wishes: Wishes,
) -> Result<JoinHandle<Result<()>>> {
    let Wishes(heard, trouble) = wishes;
    let consumer = Group::open(settings, &membership, trouble)?;
    let reading = Reading {
        consumer,
        settings: settings.clone(),
        topics: membership.topics.clone(),
        membership,
        desk,
        readers,
        wishes: heard,
        held: HashMap::new(),
        batches: Vec::new(),
        places: HashMap::new(),
        committed: HashMap::new(),
        told: Instant::now(),
        asked: Instant::now(),
        looked: Instant::now(),
        unread: Vec::new(),
    };
    let thread = std::thread::Builder::new().name("kafka-consumer".to_owned()).spawn(move || reading.run());
    thread.map_err(|error| Error::new(Kind::Exhausted, "starting the consumer", error.to_string()))
}

/// The state of a partition that is assigned to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It is delivered.
    Claimed,
    /// There is no place to begin; its records are not ours to deliver.
    Waiting,
}

struct Reading<D: Desk> {
    consumer: BaseConsumer<Group>,
    settings: Settings,
    membership: Membership,
    topics: Vec<(Arc<str>, u32)>,
    desk: D,
    readers: Vec<Sender<Delivery<D::Claim>>>,
    wishes: UnboundedReceiver<Wish>,
    held: HashMap<Partition, Held>,
    batches: Vec<Batch>,
    /// librdkafka's own pointer of a topic, so that its name need not be looked at for each record.
    places: HashMap<usize, Option<u16>>,
    /// How far the target is, of what we read.
    committed: HashMap<Partition, i64>,
    told: Instant,
    asked: Instant,
    looked: Instant,
    /// The partitions that nobody read at the last look.
    unread: Vec<(Arc<str>, i32)>,
}

/// Why the thread goes no further.
enum Ended {
    /// The readers are gone, or the desk wants no more.
    Asked,
    Failed(Error),
    /// The broker says that another process goes by our name.
    ShutOut(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

type Step<T = ()> = std::result::Result<T, Ended>;

impl<D: Desk> Reading<D> {
    fn run(mut self) -> Result<()> {
        match self.work() {
            Ok(()) | Err(Ended::Asked) => Ok(()),
            Err(Ended::Failed(error) | Ended::ShutOut(error)) => Err(error),
        }
    }

    fn work(&mut self) -> Step {
        self.batches.resize_with(self.readers.len(), Batch::default);
        self.subscribe()?;
        loop {
            match self.round() {
                Err(Ended::ShutOut(error)) => {
                    if self.desk.superseded()?.ok_or(Ended::Asked)? {
                        return Err(Ended::ShutOut(error));
                    }
                    tracing::info!("the consumer group has removed this member; joining again");
                    self.rejoin()?;
                }
                round => round?,
            }
        }
    }

    fn subscribe(&self) -> Result<()> {
        let names: Vec<&str> = self.topics.iter().map(|(name, _)| &**name).collect();
        self.consumer.subscribe(&names).map_err(|error| explain("subscribing", &error))
    }

    /// Joins the group as somebody new: a client that the broker has shut out stays so.
    fn rejoin(&mut self) -> Step {
        self.batches.iter_mut().for_each(|batch| *batch = Batch::default());
        self.places.clear();
        self.committed.clear();
        for (partition, _) in std::mem::take(&mut self.held) {
            self.deliver(partition, Delivery::Revoked(partition))?;
        }
        let trouble = Arc::clone(&self.consumer.context().trouble);
        self.consumer = Group::open(&self.settings, &self.membership, trouble)?;
        Ok(self.subscribe()?)
    }

    /// Takes what is there and hands it on.
    fn round(&mut self) -> Step {
        let mut wait = POLL;
        loop {
            let consumer = &self.consumer;
            let outcome = match consumer.poll(wait) {
                None => Polled::Nothing,
                Some(Ok(message)) => {
                    consumer.context().trouble.over();
                    let at = place_of(&mut self.places, &self.topics, &message);
                    match at {
                        Some(partition) if self.held.get(&partition) == Some(&Held::Claimed) => {
                            let readers = self.readers.len();
                            let batch = &mut self.batches[reader_of(partition, readers)];
                            batch.take(partition, &message);
                            Polled::Record(batch.is_full())
                        }
                        _ => Polled::Record(false),
                    }
                }
                Some(Err(error)) => Polled::Error(error),
            };
            match outcome {
                Polled::Nothing => break,
                Polled::Record(true) => break,
                Polled::Record(false) => {}
                Polled::Error(error) => self.trouble(&error)?,
            }
            if self.consumer.context().changed() {
                // What was taken before the change belongs to the time before it.
                self.hand_on()?;
                self.follow()?;
            }
            wait = Duration::ZERO;
        }
        self.hand_on()?;
        if self.consumer.context().changed() {
            self.follow()?;
        }
        if self.readers.iter().any(Sender::is_closed) {
            return Err(Ended::Asked);
        }
        self.hear()?;
        self.tell();
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look()?;
        }
        Ok(())
    }

    /// What the group has decided.
    fn follow(&mut self) -> Step {
        for change in self.consumer.context().take() {
            match change {
                Change::Assigned(names) => {
                    self.consumer.context().trouble.over();
                    self.join(&names)?;
                }
                Change::Revoked(names) => {
                    for partition in self.known(&names) {
                        self.held.remove(&partition);
                        self.committed.remove(&partition);
                        self.deliver(partition, Delivery::Revoked(partition))?;
                    }
                }
                Change::Failed(error) => {
                    let error = explain("joining the group", &error);
                    let shut_out = error.kind == Kind::Fenced;
                    return Err(if shut_out { Ended::ShutOut(error) } else { Ended::Failed(error) });
                }
            }
        }
        Ok(())
    }

    /// Claims what was assigned, and only then answers the group, with the offsets to begin at.
    fn join(&mut self, names: &[(String, i32)]) -> Step {
        let wanted = self.known(names);
        let outcome = self.claim(&wanted);
        let mut places = TopicPartitionList::new();
        for (name, number) in names {
            let claim = outcome.as_ref().ok().into_iter().flatten().find(|(partition, ..)| {
                partition.number == *number && *self.topics[usize::from(partition.topic)].0 == **name
            });
            // Without a place to begin nothing of it is delivered; it is asked about again.
            let place = claim.map_or(Offset::End, |(_, offset, _)| Offset::Offset(*offset));
            let added = places.add_partition_offset(name, *number, place);
            added.map_err(|error| explain("taking partitions", &error))?;
        }
        // Where we are to end, too: a group that gets no answer cannot be left.
        let answered = assign(&self.consumer, &places);
        let claims = outcome?;
        if let Err(error) = answered {
            // Taken away again meanwhile; the group says so at the next poll.
            tracing::debug!(%error, "taking partitions");
        }
        for partition in wanted {
            self.held.insert(partition, Held::Waiting);
        }
        self.begin(claims)
    }

    /// Partitions that count, of those the group names.
    fn known(&self, names: &[(String, i32)]) -> Vec<Partition> {
        let mut known = Vec::with_capacity(names.len());
        for (name, number) in names {
            let place = self.topics.iter().position(|(topic, _)| **topic == **name);
            match place {
                Some(topic) if (0..self.topics[topic].1 as i32).contains(number) => {
                    known.push(Partition { topic: topic as u16, number: *number });
                }
                Some(_) => tracing::warn!(
                    topic = name,
                    partition = number,
                    "this partition was added later; it is not used, since keys would change places"
                ),
                None => tracing::info!(
                    topic = name,
                    partition = number,
                    "the group has given us what this name read before; waiting for a share of our topics"
                ),
            }
        }
        known
    }

    /// Claims partitions: those that have a place to begin.
    fn claim(&mut self, wanted: &[Partition]) -> Step<Vec<(Partition, i64, D::Claim)>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self.desk.claim(wanted)?.ok_or(Ended::Asked)?;
        let mut good = Vec::with_capacity(claims.len());
        for (partition, claim) in wanted.iter().copied().zip(claims) {
            let Some((offset, claim)) = claim else { continue };
            match self.outside(partition, offset) {
                Some(text) => self.desk.lost(partition, &claim, text)?.ok_or(Ended::Asked)?,
                None => good.push((partition, offset, claim)),
            }
        }
        Ok(good)
    }

    /// From here on their records are delivered. The broker is told where that is, since nothing may come for long.
    fn begin(&mut self, claims: Vec<(Partition, i64, D::Claim)>) -> Step {
        for (partition, offset, claim) in claims {
            self.held.insert(partition, Held::Claimed);
            self.committed.insert(partition, offset);
            self.deliver(partition, Delivery::Claimed { partition, offset, claim })?;
        }
        Ok(())
    }

    /// Claims partitions that we read already, and moves to where each is to go on.
    fn claim_anew(&mut self, wanted: &[Partition]) -> Step {
        let mut claims = self.claim(wanted)?;
        if claims.is_empty() {
            return Ok(());
        }
        let mut places = TopicPartitionList::new();
        for (partition, offset, _) in &claims {
            let name = &self.topics[usize::from(partition.topic)].0;
            let added = places.add_partition_offset(name, partition.number, Offset::Offset(*offset));
            added.map_err(|error| explain("moving to an offset", &error))?;
        }
        let moved = match self.consumer.seek_partitions(places, SEEK_WITHIN) {
            Ok(moved) => moved,
            Err(error) => {
                // They stay waiting and are asked about again.
                tracing::debug!(%error, "moving to an offset");
                return Ok(());
            }
        };
        let mut stuck = TopicPartitionList::new();
        for element in moved.elements() {
            let Err(error) = element.error() else { continue };
            tracing::debug!(topic = element.topic(), partition = element.partition(), %error, "moving to an offset");
            let claim = claims.iter().find(|(partition, ..)| {
                partition.number == element.partition()
                    && *self.topics[usize::from(partition.topic)].0 == *element.topic()
            });
            let place = claim.map_or(Offset::End, |(_, offset, _)| Offset::Offset(*offset));
            let added = stuck.add_partition_offset(element.topic(), element.partition(), place);
            added.map_err(|error| explain("moving to an offset", &error))?;
        }
        if stuck.count() > 0 && !self.take_again(&stuck)? {
            claims.retain(|(partition, ..)| {
                let name = &self.topics[usize::from(partition.topic)].0;
                stuck.find_partition(name, partition.number).is_none()
            });
        }
        self.begin(claims)
    }

    /// A partition that the library does not read any more, since its offset was outside or its topic was gone for a while,
    /// cannot be moved. It is let go and taken again, which the group does not hear of. False where it is not ours any more.
    fn take_again(&self, places: &TopicPartitionList) -> Result<bool> {
        if let Err(error) = self.consumer.incremental_unassign(places) {
            tracing::debug!(%error, "letting partitions go");
            return Ok(false);
        }
        let taken = self.consumer.incremental_assign(places);
        taken.map_err(|error| explain("taking partitions again", &error))?;
        Ok(true)
    }

    /// Why the offset is not in the partition; `None` where it is, or where the broker does not say.
    fn outside(&self, partition: Partition, offset: i64) -> Option<String> {
        let name = &self.topics[usize::from(partition.topic)].0;
        match self.consumer.fetch_watermarks(name, partition.number, WATERMARKS_WITHIN) {
            Ok((low, _)) if offset < low => Some(format!(
                "{name}/{}: records {offset} to {} were removed by the topic's retention before they were applied",
                partition.number,
                low - 1
            )),
            Ok((_, high)) if offset > high => Some(format!(
                "{name}/{}: the next record would be {offset}, but the partition ends at {high}: the topic was re-created or \
                 cut",
                partition.number
            )),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(topic = &**name, %error, "the broker does not tell how far the partition reaches");
                None
            }
        }
    }

    /// An error in place of a record.
    fn trouble(&mut self, error: &KafkaError) -> Step {
        const DOING: &str = "reading from Kafka";
        match error {
            KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId) => {
                let what = "another process has joined the group under the same member name";
                Err(Ended::ShutOut(Error::new(Kind::Fenced, DOING, what)))
            }
            KafkaError::MessageConsumptionFatal(_) => Err(explain(DOING, error).into()),
            // The broker has no such offset: claiming again finds out which partition it is, and why.
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                tracing::debug!(%error, "an offset is outside its partition");
                for held in self.held.values_mut() {
                    *held = Held::Waiting;
                }
                Ok(())
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => Err(self.missing().unwrap_or_else(|| explain(DOING, error)).into()),
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(explain(DOING, error).into()),
            // Brokers that are away or refuse us are waited for by the library. With a group such errors come this way only.
            error => {
                self.consumer.context().trouble.note_refusal(error);
                tracing::debug!(%error, "reading from Kafka");
                Ok(())
            }
        }
    }

    /// The topic that is gone, or has too few partitions. The error that says so does not name it.
    fn missing(&self) -> Option<Error> {
        let seen = self.consumer.fetch_metadata(None, WATERMARKS_WITHIN).ok()?;
        self.topics.iter().find_map(|(name, partitions)| {
            let topic = seen.topics().iter().find(|topic| *topic.name() == **name);
            let found = topic.map_or(0, |topic| topic.partitions().len());
            let code = match found {
                0 => RDKafkaErrorCode::UnknownTopicOrPartition,
                _ => RDKafkaErrorCode::UnknownPartition,
            };
            (found < *partitions as usize).then(|| of_code(format!("reading topic {name}"), code))
        })
    }

    /// Does what was wished, and asks for what has no place to begin yet.
    fn hear(&mut self) -> Step {
        while let Ok(wish) = self.wishes.try_recv() {
            match wish {
                Wish::Reclaim(partition) => {
                    if let Some(held) = self.held.get_mut(&partition) {
                        *held = Held::Waiting;
                    }
                }
                Wish::Committed(partition, offset) => {
                    if self.held.contains_key(&partition) {
                        self.committed.insert(partition, offset);
                    }
                }
            }
        }
        if self.asked.elapsed() < ASK_EVERY {
            return Ok(());
        }
        self.asked = Instant::now();
        let waiting = self.held.iter().filter(|(_, held)| **held == Held::Waiting);
        let mut waiting: Vec<Partition> = waiting.map(|(partition, _)| *partition).collect();
        waiting.sort_unstable();
        self.claim_anew(&waiting)
    }

    /// Sees to it that somebody reads each partition. A group at peace that has left one out twice in a row will not give it to anybody by
    /// itself; a member that comes new has all of them shared out again.
    fn look(&mut self) -> Step {
        let all: usize = self.topics.iter().map(|(_, partitions)| *partitions as usize).sum();
        if self.held.len() == all {
            self.unread.clear();
            return Ok(());
        }
        let Some(shares) = self.shares() else {
            self.unread.clear();
            return Ok(());
        };
        let unread = shares::unread(&shares, &self.topics);
        let again = !unread.is_empty() && unread == self.unread;
        self.unread = unread;
        let held = self.held.keys();
        let ours: Vec<(&str, i32)> =
            held.map(|at| (&*self.topics[usize::from(at.topic)].0, at.number)).collect();
        if !again || !shares::has_the_first(&shares, &ours) {
            return Ok(());
        }
        let (topic, partition) = &self.unread[0];
        tracing::warn!(
            topic = &**topic,
            partition,
            partitions = self.unread.len(),
            "the consumer group has given these partitions to nobody; joining again, so that it shares out anew"
        );
        // Under the name that it knows, the broker would give us the same share again.
        self.membership.member = None;
        self.unread.clear();
        self.rejoin()
    }

    /// What each member reads; `None` while the group is not at peace, or where the broker does not say.
    fn shares(&self) -> Option<Vec<shares::Share>> {
        let groups = self.consumer.fetch_group_list(Some(&self.membership.group), LOOK_WITHIN);
        let groups = groups.inspect_err(|error| tracing::debug!(%error, "looking at the group")).ok()?;
        let group = groups.groups().first().filter(|group| group.state() == "Stable")?;
        let members = group.members().iter();
        let shares: Option<Vec<shares::Share>> =
            members.map(|member| shares::read(member.assignment().unwrap_or_default())).collect();
        let mut shares = shares?;
        shares::only(&mut shares, &self.topics);
        Some(shares)
    }

    /// Tells the broker how far the target is. Only for tools, but they are to see the end of it, too. While the group shares
    /// out its partitions the broker takes nothing, and its answers do not reach us (rust-rdkafka #856), so it is told again
    /// whether there is news or not.
    fn tell(&mut self) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        if self.committed.is_empty() {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in &self.committed {
            let name = &self.topics[usize::from(partition.topic)].0;
            // A partition twice, which cannot be.
            let _ = offsets.add_partition_offset(name, partition.number, Offset::Offset(*offset));
        }
        if let Err(error) = self.consumer.commit(&offsets, CommitMode::Async) {
            tracing::debug!(%error, "telling the broker how far we are");
        }
    }

    fn hand_on(&mut self) -> Step {
        for reader in 0..self.readers.len() {
            if self.batches[reader].is_empty() {
                continue;
            }
            let delivery = self.batches[reader].finish();
            self.push(reader, delivery)?;
        }
        Ok(())
    }

    fn deliver(&mut self, partition: Partition, delivery: Delivery<D::Claim>) -> Step {
        self.push(reader_of(partition, self.readers.len()), delivery)
    }

    /// Waits for a reader that is full. A short wait costs nothing; in a long one all partitions are paused and the
    /// group is kept company, or it would take us for dead.
    fn push(&mut self, reader: usize, mut delivery: Delivery<D::Claim>) -> Step {
        let since = Instant::now();
        let mut paused: Option<TopicPartitionList> = None;
        let outcome = loop {
            match self.readers[reader].try_send(delivery) {
                Ok(()) => break Ok(()),
                Err(TrySendError::Closed(_)) => break Err(Ended::Asked),
                Err(TrySendError::Full(back)) => delivery = back,
            }
            if since.elapsed() < PATIENCE {
                std::thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            if paused.is_none() {
                let all = self.consumer.assignment().unwrap_or_default();
                if let Err(error) = self.consumer.pause(&all) {
                    tracing::debug!(%error, "pausing");
                }
                paused = Some(all);
            }
            // Nothing comes of paused partitions. What comes all the same was on its way: it is claimed again.
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let at = place_of(&mut self.places, &self.topics, &message);
                    if let Some(held) = at.and_then(|partition| self.held.get_mut(&partition)) {
                        *held = Held::Waiting;
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "reading from Kafka"),
                None => {}
            }
        };
        if let Some(paused) = paused
            && let Err(error) = self.consumer.resume(&paused)
        {
            tracing::debug!(%error, "going on after a pause");
        }
        outcome
    }
}

enum Polled {
    Nothing,
    /// Whether it filled its batch.
    Record(bool),
    Error(KafkaError),
}

fn reader_of(partition: Partition, readers: usize) -> usize {
    (usize::from(partition.topic) + partition.number as usize) % readers.max(1)
}

fn place_of(
    places: &mut HashMap<usize, Option<u16>>,
    topics: &[(Arc<str>, u32)],
    message: &BorrowedMessage<'_>,
) -> Option<Partition> {
    let topic = *places.entry(message.topic_ptr() as usize).or_insert_with(|| {
        topics.iter().position(|(name, _)| **name == *message.topic()).map(|place| place as u16)
    });
    topic.map(|topic| Partition { topic, number: message.partition() })
}
