//! What the users of the file lack, right by right, and what they have too much of.

use slackwater_connectors::error::Kind;
use slackwater_connectors::kafka::Right;
use slackwater_connectors::mongodb::{Privileges, Resource};

use super::Round;
use crate::config::{KafkaLog, Log, Migration, Source};
use crate::grants::mongodb::{FREEZE, needs, remedy};
use crate::log::kafka::rights::{Lack, REMEDY, lacks};
use crate::log::kafka::topics::specs;

/// What the user of a source lacks; true if that is anything.
pub(super) fn source(
    migration: &Migration,
    source: &Source,
    has: &Privileges,
    freezes: bool,
    round: &mut Round,
) -> bool {
    let needs = needs(source.database(), migration.freeze_of(source));
    let mut lacks = false;
    // A right that the server does not know cannot be given; that it cannot be frozen is told by itself.
    let needs = needs.iter().filter(|need| freezes || need.action != FREEZE);
    for need in needs.filter(|need| !has.allow(need.action, &need.resource)) {
        lacks = true;
        let on = match &need.resource {
            Resource::Cluster => "the cluster".to_owned(),
            Resource::Database(database) => format!("the database {database}"),
            Resource::Collection(database, collection) => format!("{database}.{collection}"),
        };
        let message = format!("the user lacks the right `{}` on {on}: {}", need.action, need.why);
        let mut help = remedy(need);
        if need.action == FREEZE {
            help += "; where nobody can be given it (managed MongoDB), write `freeze: by_hand` or commands under `cutover`, or under the source \
                     (docs/operating.md, \"Freezing without the right\")";
        }
        if need.optional {
            round.warning(source.place, message, help);
        } else {
            round.unfit(source.place, Kind::Denied, message, help);
        }
    }
    if let Some(more) = has.mighty() {
        let message = format!("the user of {} {more}, more than this migration needs", source.name.value);
        round.warning(source.place, message, "give it only the role that `slackwater grants FILE` prints");
    }
    lacks
}

/// What the user of Kafka lacks; none where it could not be asked.
pub(super) async fn kafka(migration: &Migration) -> Option<Vec<Lack>> {
    let Log::Kafka(log) = &migration.log else { return None };
    let topics: Vec<String> = specs(migration, log).ok()?.into_iter().map(|spec| spec.name).collect();
    let rights = [Right::Write, Right::Read, Right::Group];
    lacks(&log.settings("check"), &topics, &log.group, &rights).await.ok()
}

/// One user may do all, or each part its own. Whoever can do one part whole lacks nothing for it. True if this one can `apply`.
pub(super) fn parts(log: &KafkaLog, lacks: &[Lack], round: &mut Round) -> bool {
    let missing = |right| lacks.iter().any(|lack| lack.right == right);
    let captures = !missing(Right::Write);
    let applies = !missing(Right::Read) && !missing(Right::Group);
    for lack in lacks {
        if captures || applies {
            let (can, other) = if captures { ("capture", "apply") } else { ("apply", "capture") };
            let help = format!("this user can `{can}`; if it is to `{other}` too: {REMEDY}");
            round.warning(log.place, lack.text(), help);
        } else {
            round.unfit(log.place, Kind::Denied, lack.text(), REMEDY);
        }
    }
    applies
}
