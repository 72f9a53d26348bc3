//! What librdkafka answers, as one of our kinds.
//!
//! Texts are our own, by code: what a broker or a file says may repeat a value. Codes below zero are librdkafka's,
//! the others the broker's.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::{Error, Kind};

/// Our error for one of librdkafka.
pub(super) fn explain(doing: impl Into<String>, error: &KafkaError) -> Error {
    if let KafkaError::PartitionEOF(_) = error {
        return of_code(doing, Code::PartitionEOF);
    }
    match error.rdkafka_error_code() {
        Some(code) => of_code(doing, code),
        None => without_code(doing, error),
    }
}

/// Our error for a code.
pub(super) fn of_code(doing: impl Into<String>, code: Code) -> Error {
    Error::new(kind(code), doing, what(code)).code(format!("{code:?}"))
}

/// Whether a broker was reached and did not let us in: by the password or the certificate, and not for the lack of a right.
pub fn is_refusal(error: &Error) -> bool {
    let refusals = [Code::Authentication, Code::SaslAuthenticationFailed, Code::SSL];
    error.kind == Kind::Denied
        && error.code.as_ref().is_some_and(|code| refusals.iter().any(|known| format!("{known:?}") == *code))
}

fn without_code(doing: impl Into<String>, error: &KafkaError) -> Error {
    // Answers to administration carry their code as text only.
    if let KafkaError::AdminOp(code) = error {
        return of_code(doing, *code);
    }
    let (kind, what) = match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => {
            (Kind::Unsuitable, "librdkafka makes no client with these options")
        }
        KafkaError::Canceled => (Kind::Unreachable, "the client was closed before the answer came"),
        KafkaError::Nul(_) => (Kind::Unsuitable, "a name or setting holds a zero byte"),
        KafkaError::AdminOpCreation(_) => (
            Kind::Unsuitable,
            "librdkafka refuses the request; look at names, counts and settings of the topics",
        ),
        KafkaError::NoMessageReceived => (Kind::Unreachable, "no record came in time"),
        _ => (Kind::Bug, "librdkafka refuses the call"),
    };
    Error::new(kind, doing, what)
}

fn kind(code: Code) -> Kind {
    use Code as C;
    match code {
        // Elections, restarts, lost connections, leaders that move: the same request works later.
        C::BrokerTransportFailure
        | C::Resolve
        | C::AllBrokersDown
        | C::OperationTimedOut
        | C::MessageTimedOut
        | C::TimedOutQueue
        | C::BrokerDestroy
        | C::DestroyBroker
        | C::NodeUpdate
        | C::UnknownBroker
        | C::WaitCache
        | C::Retry
        | C::Interrupted
        | C::Outdated
        | C::InProgress
        | C::PreviousInProgress
        | C::Partial
        | C::WaitingForCoordinator
        | C::ISRInsufficient
        | C::LeaderNotAvailable
        | C::NotLeaderForPartition
        | C::RequestTimedOut
        | C::BrokerNotAvailable
        | C::ReplicaNotAvailable
        | C::NetworkException
        | C::StaleControllerEpoch
        | C::CoordinatorLoadInProgress
        | C::CoordinatorNotAvailable
        | C::NotCoordinator
        | C::NotEnoughReplicas
        | C::NotEnoughReplicasAfterAppend
        | C::NotController
        | C::ReassignmentInProgress
        | C::ListenerNotFound
        | C::FencedLeaderEpoch
        | C::UnknownLeaderEpoch
        | C::StaleBrokerEpoch
        | C::OffsetNotAvailable
        | C::PreferredLeaderNotAvailable
        | C::EligibleLeadersNotAvailable
        | C::UnstableOffsetCommit
        | C::FetchSessionIdNotFound
        | C::InvalidFetchSessionEpoch
        | C::RebalanceInProgress
        | C::ConcurrentTransactions
        | C::RebootstrapRequired
        | C::PurgeQueue
        | C::PurgeInflight => Kind::Unreachable,
        C::Authentication
        | C::SaslAuthenticationFailed
        // A certificate that has expired is replaced at the broker or in a file; a process waits for that.
        | C::SSL
        | C::TopicAuthorizationFailed
        | C::GroupAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::TransactionalIdAuthorizationFailed
        | C::DelegationTokenAuthDisabled
        | C::DelegationTokenNotFound
        | C::DelegationTokenOwnerMismatch
        | C::DelegationTokenRequestNotAllowed
        | C::DelegationTokenAuthorizationFailed
        | C::DelegationTokenExpired => Kind::Denied,
        C::QueueFull
        | C::CriticalSystemResource
        | C::KafkaStorageError
        | C::LogDirNotFound
        | C::ThrottlingQuotaExceeded
        | C::GroupMaxSizeReached => Kind::Exhausted,
        C::OffsetOutOfRange | C::NoOffset | C::AutoOffsetReset | C::LogTruncation => Kind::HistoryLost,
        C::Fenced | C::FencedInstanceId | C::ProducerFenced | C::UnreleasedInstanceId => Kind::Fenced,
        C::IllegalGeneration
        | C::UnknownMemberId
        | C::FencedMemberEpoch
        | C::StaleMemberEpoch
        | C::MemberIdRequired
        | C::AssignmentLost
        | C::PollExceeded => Kind::Revoked,
        C::InvalidArgument
        | C::Conflict
        | C::State
        | C::ExistingSubscription
        | C::InvalidType
        | C::ReadOnly
        | C::NoEnt
        | C::Underflow
        | C::NotImplemented
        | C::NotConfigured
        | C::UnknownProtocol
        | C::InvalidRequest
        | C::KeySerialization
        | C::ValueSerialization
        | C::KeyDeserialization
        | C::ValueDeserialization
        | C::DuplicateResource => Kind::Bug,
        // A person has to change something, or to look: going on could do harm.
        _ => Kind::Unsuitable,
    }
}

/// What the code means for the person who reads it, and what to do.
fn what(code: Code) -> String {
    use Code as C;
    let text = match code {
        C::BrokerTransportFailure | C::NetworkException => {
            "the connection to the broker broke; check that it runs, its address, and whether it wants TLS"
        }
        C::AllBrokersDown => "no broker answers; check that they run, their addresses, TLS and firewall",
        C::Resolve => {
            "a broker's name cannot be resolved; check the addresses, and the brokers' advertised.listeners"
        }
        C::OperationTimedOut | C::RequestTimedOut | C::MessageTimedOut | C::TimedOutQueue => {
            "no answer in time; check that the brokers run and can be reached from here, also at the addresses that \
             they advertise"
        }
        C::LeaderNotAvailable
        | C::NotLeaderForPartition
        | C::ReplicaNotAvailable
        | C::BrokerNotAvailable
        | C::FencedLeaderEpoch
        | C::UnknownLeaderEpoch => {
            "the partition has no leader now; wait for the election, or look at the health of the brokers"
        }
        C::NotEnoughReplicas | C::NotEnoughReplicasAfterAppend | C::ISRInsufficient => {
            "fewer replicas are in sync than the topic's min.insync.replicas asks for; look at the health of the brokers"
        }
        C::CoordinatorLoadInProgress
        | C::CoordinatorNotAvailable
        | C::NotCoordinator
        | C::WaitingForCoordinator => "the group's coordinator is moving or not there yet",
        C::NotController | C::StaleControllerEpoch => "the controller of the cluster is moving",
        C::ListenerNotFound => "a broker does not listen where the others say; check the brokers' listeners",
        C::PurgeQueue | C::PurgeInflight => "the producer was closed before the record was acknowledged",
        C::Authentication | C::SaslAuthenticationFailed => {
            "the broker refuses this user or password; check sasl.username, sasl.password and sasl.mechanism"
        }
        C::TopicAuthorizationFailed => {
            "the user lacks a right on the topic; capture needs Describe and Write, apply Describe and Read, \
             `slackwater topics` Create, DescribeConfigs and AlterConfigs"
        }
        C::GroupAuthorizationFailed => {
            "the user lacks the right Read on the consumer group, which appliers join"
        }
        C::ClusterAuthorizationFailed => {
            "the user lacks a right on the cluster; making topics needs Create, and older brokers ask for \
             IdempotentWrite of a producer"
        }
        C::SSL => {
            "TLS with the broker failed; check ssl.ca.location, the certificates and their names, and that the port \
             speaks TLS"
        }
        C::UnsupportedSASLMechanism | C::IllegalSASLState | C::SecurityDisabled => {
            "the broker does not speak the way to log in that the options ask for; check security.protocol and \
             sasl.mechanism"
        }
        C::UnknownTopic | C::UnknownTopicOrPartition | C::UnknownTopicId => {
            "the topic is not there; `slackwater topics apply FILE` makes it"
        }
        C::UnknownPartition => {
            "the topic is gone, or was re-created with fewer partitions than were registered; `slackwater topics apply FILE` \
             makes a missing one as it has to be"
        }
        C::InvalidTopic => "the topic's name is not one that Kafka takes, or the topic is internal",
        C::TopicAlreadyExists => "the topic is there already",
        C::MessageSizeTooLarge | C::InvalidMessageSize | C::MessageBatchTooLarge => {
            "a record is larger than the topic takes; raise the topic's max.message.bytes, and message.max.bytes of the \
             producer"
        }
        C::InvalidTimestamp => {
            "a record's time is further from the broker's clock than the topic's message.timestamp settings allow"
        }
        C::InvalidRecord | C::InvalidDifferentRecord => {
            "the broker refuses a record; a topic with cleanup.policy=compact takes none without a key"
        }
        C::InvalidMessage | C::BadMessage | C::BadCompression => {
            "what answers is no Kafka broker, or wants TLS (check host, port and `security.protocol`); or a record was damaged on \
             its way or on the broker's disk"
        }
        C::PolicyViolation => {
            "a policy of the cluster forbids it; ask who runs the cluster for what it allows"
        }
        C::InvalidConfig => "the broker does not take a setting of the topic, by its name or its value",
        C::InvalidPartitions => "the broker does not take this number of partitions",
        C::InvalidReplicationFactor => "there are fewer brokers than the replication factor asks for",
        C::TopicDeletionDisabled => "the brokers are set to delete no topics",
        C::UnsupportedVersion
        | C::UnsupportedFeature
        | C::UnsupportedForMessageFormat
        | C::UnsupportedCompressionType => "the broker is too old for what is asked",
        C::KafkaStorageError | C::LogDirNotFound => {
            "the broker cannot use its disk; look at its logs and its room"
        }
        C::QueueFull => "the queue for records is full",
        C::CriticalSystemResource => "this machine has no memory or threads left for librdkafka",
        C::ThrottlingQuotaExceeded => "the quota of this client at the brokers is used up",
        C::GroupMaxSizeReached => "the consumer group has as many members as the brokers allow",
        C::OffsetOutOfRange | C::NoOffset | C::AutoOffsetReset => {
            "the position is outside of what the partition holds; its retention passed, or the topic was re-created"
        }
        C::LogTruncation => "the partition was cut back behind the position; brokers lost records",
        C::Fenced | C::FencedInstanceId | C::ProducerFenced | C::UnreleasedInstanceId => {
            "another process has taken the place of this one at the broker"
        }
        C::IllegalGeneration
        | C::UnknownMemberId
        | C::FencedMemberEpoch
        | C::StaleMemberEpoch
        | C::MemberIdRequired
        | C::AssignmentLost => "the group has given the partitions to another process",
        C::PollExceeded => "this process did not ask for records in time and was put out of the group",
        C::RebalanceInProgress => "the group is sharing out its partitions",
        // What breaks the promise of an idempotent producer.
        C::OutOfOrderSequenceNumber
        | C::UnknownProducerId
        | C::DuplicateSequenceNumber
        | C::InvalidProducerEpoch
        | C::InvalidProducerIdMapping
        | C::Inconsistent => {
            "the broker no longer knows what it took from this producer, so records may be lost; was the topic cut or \
             re-created, or did a broker lose its disk? Started again, capture sends from its saved position"
        }
        C::GaplessGuarantee => {
            "a record was refused, and those behind it were held back so that none is missing among them; the log names \
             the reason"
        }
        C::Fatal => "librdkafka gave up on this client; the log names the reason",
        C::FileSystem => "a file that the options name cannot be read",
        C::PartitionEOF => "the end of the partition is reached",
        // librdkafka's own words for a code are constants.
        _ => return code.to_string(),
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (code, expected) in [
            (Code::BrokerTransportFailure, Kind::Unreachable),
            (Code::AllBrokersDown, Kind::Unreachable),
            (Code::LeaderNotAvailable, Kind::Unreachable),
            (Code::NotEnoughReplicas, Kind::Unreachable),
            (Code::Authentication, Kind::Denied),
            (Code::TopicAuthorizationFailed, Kind::Denied),
            (Code::KafkaStorageError, Kind::Exhausted),
            (Code::OffsetOutOfRange, Kind::HistoryLost),
            (Code::UnknownMemberId, Kind::Revoked),
            (Code::UnknownTopicOrPartition, Kind::Unsuitable),
            (Code::MessageSizeTooLarge, Kind::Unsuitable),
            (Code::PolicyViolation, Kind::Unsuitable),
            (Code::OutOfOrderSequenceNumber, Kind::Unsuitable),
            (Code::GaplessGuarantee, Kind::Unsuitable),
            (Code::SSL, Kind::Denied),
            (Code::State, Kind::Bug),
        ] {
            assert_eq!(kind(code), expected, "{code:?}");
        }
    }

    #[test]
    fn who_is_not_let_in_is_told_from_who_lacks_a_right() {
        for (code, expected) in [
            (Code::Authentication, true),
            (Code::SSL, true),
            (Code::TopicAuthorizationFailed, false),
            (Code::BrokerTransportFailure, false),
        ] {
            assert_eq!(is_refusal(&of_code("sending", code)), expected, "{code:?}");
        }
        assert!(!is_refusal(&Error::new(Kind::Denied, "connecting", "refused")));
    }

    #[test]
    fn a_missing_topic_names_the_command() {
        for error in [
            KafkaError::MessageProduction(Code::UnknownTopic),
            KafkaError::MetadataFetch(Code::UnknownTopicOrPartition),
            KafkaError::AdminOp(Code::UnknownTopicOrPartition),
        ] {
            let error = explain("sending to shop.orders", &error);
            assert!(error.what.contains("slackwater topics apply FILE"), "{error}");
            assert!(error.code.is_some());
        }
    }

    #[test]
    fn nothing_of_the_options_gets_into_an_error() {
        for error in
            [KafkaError::ClientCreation("hunter2".into()), KafkaError::AdminOpCreation("hunter2".into())]
        {
            let error = explain("opening", &error);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
