//! Random histories in rounds: changes, a kill, a start, and in the end the rows that the books say.

use slackwater_migrations::Chance;

use super::{PATIENCE, Slackwater, Stage, number, until};
use crate::letters::letters;

/// Rows as text, sorted, and how many rows are held.
pub(crate) type Shown = (Vec<String>, usize);

/// Changes in one round.
const CHANGES: usize = 120;

/// Changes the source, and after each round but the last kills one of the processes and starts it again.
///
/// The first rounds may meet the copy. Then it is waited until what changes is verified, and the rest of the history is.
pub(crate) async fn change_and_kill(
    stage: &Stage,
    chance: &mut Chance,
    processes: &mut Vec<Slackwater>,
    start: impl Fn(usize) -> Slackwater,
    mut change: impl AsyncFnMut(&mut Chance),
) {
    let kills = number("SLACKWATER_TEST_KILLS", 4);
    for round in 0..=kills {
        if round == kills / 2 {
            stage.follows(processes).await;
        }
        for _ in 0..CHANGES {
            change(chance).await;
        }
        if round < kills {
            let which = chance.below(processes.len() as u64) as usize;
            processes.remove(which).kill().await;
            processes.insert(which, start(which));
        }
    }
    // A collection that is copied again in the middle is followed anew after that.
    until("what changes is verified", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        for _ in 0..3 {
            change(chance).await;
        }
        (stage.has_followed().await > 0).then_some(())
    })
    .await;
}

/// Waits until the target shows this, and no letter is left.
pub(crate) async fn ends_as(
    wanted: &Shown,
    stage: &Stage,
    processes: &mut [Slackwater],
    shown: impl AsyncFn() -> Vec<String>,
) {
    let mut last = (Vec::new(), 0);
    until("the target is equal", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let mut rows = shown().await;
        rows.sort();
        let held = stage.target.query("SELECT FROM slackwater.waiting_rows WHERE held", &[]).await;
        let now = (rows, held.map_or(0, |held| held.len()));
        let letters = letters(stage).await;
        if now != last {
            let more = now.0.iter().filter(|row| !wanted.0.contains(row)).count();
            let missing = wanted.0.iter().find(|row| !now.0.contains(row));
            println!(
                "{} of {} rows, {more} others, {} held of {}, {letters:?}; missing: {missing:?}",
                now.0.len(),
                wanted.0.len(),
                now.1,
                wanted.1
            );
            last.clone_from(&now);
        }
        (now == *wanted && letters.is_empty()).then_some(())
    })
    .await;
}
