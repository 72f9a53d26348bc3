//! The direct log of a capture: a lane for the stream and one for each worker of the copy, in the same process.

use std::sync::Arc;

use slackwater_connectors::error::Error;
use slackwater_connectors::postgres::control::{Owner, lanes};
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_topics::Position;

use super::Process;
use super::capture::{Joined, Origin, in_time, take_over};
use crate::apply::lane::Lane;
use crate::apply::{chunks, stream};
use crate::failure::Failure;
use crate::letters::Letters;
use crate::log::{ChunkLog, direct};

/// Takes the source over and starts its lanes.
pub(super) async fn join(process: &mut Process, origin: &Origin) -> Result<Joined, Failure> {
    let name = &origin.named.name;
    let stream_lane = lanes::stream(name);
    let workers = process.migration.snapshot.workers;
    let copy_lanes: Vec<String> = (0..workers).map(|worker| lanes::copy(name, worker)).collect();
    let all: Vec<&str> = std::iter::once(&stream_lane).chain(&copy_lanes).map(String::as_str).collect();
    let (mut control, takeover) = take_over(process, origin, "direct", &all).await?;
    control.forget_seen().await?;
    let letters = Arc::new(Letters::new(control.has_dead_letters(&process.plan.migration).await?));
    let owner = takeover.owner;

    let sink = open(process, &owner, &stream_lane).await?;
    let mut lane = lane(process, stream_lane, sink, &letters);
    let (position, horizon) = {
        let progress = lane.sink().progress();
        (progress.position.clone(), progress.horizon)
    };
    let position = match position {
        Some(position) => position,
        None => {
            // On the first run the stream begins at the source's present.
            let position = Position::new(origin.named.source.now().await?, Vec::new());
            stream::keep_first(&mut lane, &position).await.map_err(in_time)?;
            position
        }
    };
    let (log, end) = direct::stream();
    let stream = stream::Stream {
        lane,
        plan: Arc::clone(&process.plan),
        end,
        reach: Arc::clone(&origin.reach),
        gauges: Arc::clone(&process.gauges),
        stop: process.stop.clone(),
    };
    process.spawn("apply", stream.run());
    let mut senders = Vec::with_capacity(copy_lanes.len());
    for name in copy_lanes {
        let mut sink = open(process, &owner, &name).await?;
        // A chunk whose commit is lost is read again: who finishes the copy, or connects anew, finds that it is open. The stream's commits wait for
        // the disk and take these with them.
        sink.commit_lazily().await?;
        let (sender, pending) = direct::chunks(&process.stop);
        let lane = self::lane(process, name, sink, &letters);
        process.spawn("apply chunks", chunks::run(lane, pending));
        senders.push(ChunkLog::Direct(sender));
    }
    Ok(Joined {
        owner,
        first_run: takeover.first_run,
        log,
        chunks: senders,
        letters,
        now: position.moment,
        position,
        horizon,
        lost: Vec::new(),
    })
}

async fn open(process: &Process, owner: &Owner, lane: &str) -> Result<Sink, Error> {
    let target = &process.migration.target.uri;
    Sink::open(target, &owner.migration, lane, owner.epoch, Arc::clone(&process.plan.tables)).await
}

fn lane(process: &Process, name: String, sink: Sink, letters: &Arc<Letters>) -> Lane {
    Lane::new(
        name,
        sink,
        Arc::clone(&process.plan),
        Arc::clone(letters),
        Arc::clone(&process.gauges),
        process.stop.clone(),
        process.schema.clone(),
    )
}
