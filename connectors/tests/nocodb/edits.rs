//! Live edits on the real server: after them the target is what the edits say.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use serde_json::{Value, json};
use slackwater_connectors::nocodb::Noco;
use slackwater_topics::Position;

use crate::base::{Base, Table, column, followed};
use crate::store::Store;
use crate::target::{Target, numbers};

/// A small generator, so that a run can be made again.
pub(crate) struct Dice(u64);

impl Dice {
    /// From the seed in `SLACKWATER_TEST_SEED`, or a new one.
    pub(crate) fn new(what: &str) -> Self {
        let given = std::env::var("SLACKWATER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one(what));
        println!("{what}: SLACKWATER_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, some: &[T]) -> Option<T> {
        (!some.is_empty()).then(|| some[self.below(some.len())])
    }
}

/// What a boat has, as the edits made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Boat {
    name: String,
    berth: Option<i64>,
    tags: BTreeSet<i64>,
}

/// Two tables with links between them, and what is in them.
struct Marina {
    base: Base,
    boats: Table,
    berths: Table,
    afloat: BTreeMap<i64, Boat>,
    places: BTreeSet<i64>,
    edits: usize,
}

impl Marina {
    async fn new() -> Self {
        let base = Base::new().await;
        let name = || json!([column("Name", "SingleLineText")]);
        let (mut boats, mut berths) = (base.table("Boats", name()).await, base.table("Berths", name()).await);
        berths = base.link(&berths, "Boats", "hm", "Links", &boats).await;
        boats = base.link(&boats, "Tags", "mm", "Links", &berths).await;
        Self { base, boats, berths, afloat: BTreeMap::new(), places: BTreeSet::new(), edits: 0 }
    }

    async fn add(&mut self, count: usize) {
        let name = |edits: usize, n| format!("boat {edits} {n}");
        let records: Vec<Value> = (0..count).map(|n| json!({"Name": name(self.edits, n)})).collect();
        for (n, id) in self.base.create(&self.boats, &records).await.into_iter().enumerate() {
            self.afloat.insert(id, Boat { name: name(self.edits, n), ..Boat::default() });
        }
        self.edits += 1;
    }

    async fn add_berths(&mut self, count: usize) {
        let records: Vec<Value> = (0..count).map(|n| json!({"Name": format!("berth {n}")})).collect();
        self.places.extend(self.base.create(&self.berths, &records).await);
    }

    async fn edit(&mut self, dice: &mut Dice) {
        let boats: Vec<i64> = self.afloat.keys().copied().collect();
        let places: Vec<i64> = self.places.iter().copied().collect();
        let (boat, place) = (dice.one_of(&boats), dice.one_of(&places));
        self.edits += 1;
        match (dice.below(9), boat, place) {
            (0, ..) => self.add(1).await,
            (1, ..) => self.add(7).await,
            (2 | 3, Some(id), _) => {
                let name = format!("renamed {}", self.edits);
                self.base.update(&self.boats, &[json!({"Id": id, "Name": name})]).await;
                self.afloat.entry(id).or_default().name = name;
            }
            (4, Some(_), _) => {
                let some: Vec<i64> = boats.iter().copied().filter(|_| dice.below(3) == 0).collect();
                let name = format!("all {}", self.edits);
                let records: Vec<Value> = some.iter().map(|id| json!({"Id": id, "Name": name})).collect();
                self.base.update(&self.boats, &records).await;
                for id in some {
                    self.afloat.entry(id).or_default().name.clone_from(&name);
                }
            }
            (5, Some(id), Some(place)) => {
                self.base.connect(&self.berths, "Boats", place, &[id]).await;
                self.afloat.entry(id).or_default().berth = Some(place);
            }
            (6, Some(id), Some(place)) => {
                let tags = &mut self.afloat.entry(id).or_default().tags;
                if tags.remove(&place) {
                    self.base.disconnect(&self.boats, "Tags", id, &[place]).await;
                } else {
                    tags.insert(place);
                    self.base.connect(&self.boats, "Tags", id, &[place]).await;
                }
            }
            (7, Some(id), _) => {
                self.base.delete(&self.boats, &[id]).await;
                self.afloat.remove(&id);
            }
            (8, _, Some(place)) if self.places.len() > 3 => {
                self.base.delete(&self.berths, &[place]).await;
                self.places.remove(&place);
                for boat in self.afloat.values_mut() {
                    boat.tags.remove(&place);
                    boat.berth = boat.berth.filter(|berth| *berth != place);
                }
            }
            _ => self.add_berths(1).await,
        }
    }

    async fn noco(&self, store: &std::sync::Arc<Store>) -> Noco {
        let tables = vec![followed(0, "Boats", &["Name", "Tags"]), followed(1, &self.berths.id, &["Name"])];
        self.base.noco().await.remembering(store.clone(), tables).await.expect("remembers")
    }

    fn holds(&self, target: &Target) {
        let found: BTreeMap<i64, Boat> = target
            .of(0)
            .into_iter()
            .map(|(id, document)| {
                let berth =
                    document.iter().find(|(name, _)| name.starts_with("Berths") && *name != "Berths_id");
                let boat = Boat {
                    name: document.get_str("Name").expect("a name").to_owned(),
                    berth: berth.and_then(|(_, id)| id.as_i32().map(i64::from)),
                    tags: numbers(document, "Tags").into_iter().collect(),
                };
                (id, boat)
            })
            .collect();
        assert_eq!(found, self.afloat);
        let berths: BTreeMap<i64, Vec<i64>> =
            target.of(1).into_iter().map(|(id, document)| (id, numbers(document, "Boats"))).collect();
        let boats_at = |place: i64| {
            let there = self.afloat.iter().filter(|(_, boat)| boat.berth == Some(place));
            there.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let places: BTreeMap<i64, Vec<i64>> =
            self.places.iter().map(|place| (*place, boats_at(*place))).collect();
        assert_eq!(berths, places);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_edits_arrive() {
    let mut dice = Dice::new("random_edits_arrive");
    let mut marina = Marina::new().await;
    marina.add(40).await;
    marina.add_berths(12).await;
    let store = Store::shared();
    let mut target = Target::default();
    let mut position = Position::default();
    for _ in 0..3 {
        // A process of its own each time: only the store and the position are left of the one before.
        let noco = marina.noco(&store).await;
        let mut stream = noco.stream(&position, 1).expect("a stream");
        for _ in 0..2 {
            for _ in 0..12 {
                marina.edit(&mut dice).await;
            }
            target.catch_up(&mut stream, &noco).await;
            marina.holds(&target);
        }
        position.moment = noco.now();
        drop(stream);
        // While nobody looks.
        for _ in 0..8 {
            marina.edit(&mut dice).await;
        }
    }
    let noco = marina.noco(&store).await;
    let mut stream = noco.stream(&position, 1).expect("a stream");
    stream.hurry(Duration::from_millis(4));
    target.catch_up(&mut stream, &noco).await;
    marina.holds(&target);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_sent_again() {
    let mut marina = Marina::new().await;
    marina.add(20).await;
    let store = Store::shared();
    let mut target = Target::default();
    let noco = marina.noco(&store).await;
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    target.catch_up(&mut stream, &noco).await;
    assert_eq!(target.changes, 20);
    drop(stream);
    let noco = marina.noco(&store).await;
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let name = "another";
    marina.base.update(&marina.boats, &[json!({"Id": 3, "Name": name})]).await;
    target.catch_up(&mut stream, &noco).await;
    assert_eq!(target.changes, 21);
    target.pass(&mut stream, &noco).await;
    assert_eq!(target.changes, 21);
}

/// What is written after a first look shows in a second one; what was written before it does not.
#[tokio::test(flavor = "multi_thread")]
async fn writers_that_go_on_are_seen() {
    let mut marina = Marina::new().await;
    marina.add(20).await;
    let noco = marina.base.noco().await;
    let tables = ["Boats".to_owned()];
    let look = async || noco.glance(&tables, None).await.expect("a look");
    let first = look().await;
    let later = async || noco.glance(&tables, Some(&first)).await.expect("a look");
    assert_eq!(first.written_until(&later().await), None);
    // Within the same second, maybe.
    marina.base.update(&marina.boats, &[json!({"Id": 3, "Name": "once more"})]).await;
    let said = first.written_until(&later().await);
    assert_eq!(said.as_deref(), Some("records of Boats were created or changed"));
    let first = look().await;
    marina.base.delete(&marina.boats, &[3]).await;
    let later = noco.glance(&tables, Some(&first)).await.expect("a look");
    assert_eq!(first.written_until(&later).as_deref(), Some("Boats has 19 records and had 20"));
}

/// A pass that somebody waits for brings everything, be it in several pages, and whatever else is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_waited_for_brings_everything() {
    let mut marina = Marina::new().await;
    marina.add(130).await;
    marina.add_berths(40).await;
    let mut settings = marina.base.settings();
    // Nothing else would bring it.
    (settings.page, settings.every, settings.sweep) =
        (25, Duration::from_secs(3_600), Duration::from_secs(3_600));
    let tables = vec![followed(0, "Boats", &[]), followed(1, "Berths", &[])];
    let noco = Noco::connect(&settings).await.expect("a connection");
    let noco = noco.remembering(Store::shared(), tables).await.expect("remembers");
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    target.pass(&mut stream, &noco).await;
    marina.holds(&target);
    let mut dice = Dice::new("a_pass_that_is_waited_for_brings_everything");
    for _ in 0..4 {
        for _ in 0..12 {
            marina.edit(&mut dice).await;
        }
        // More than the last page had room for.
        marina.add(40).await;
        target.pass(&mut stream, &noco).await;
        marina.holds(&target);
    }
}

/// A table of several pages is polled by time; what a poll cannot see a sweep finds.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_several_pages() {
    let mut marina = Marina::new().await;
    marina.add(130).await;
    marina.add_berths(40).await;
    let store = Store::shared();
    let mut settings = marina.base.settings();
    settings.page = 25;
    let tables = vec![followed(0, "Boats", &[]), followed(1, "Berths", &[])];
    let noco = Noco::connect(&settings).await.expect("a connection");
    let noco = noco.remembering(store.clone(), tables).await.expect("remembers");
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    target.catch_up(&mut stream, &noco).await;
    marina.holds(&target);
    let mut dice = Dice::new("tables_of_several_pages");
    for _ in 0..3 {
        for _ in 0..12 {
            marina.edit(&mut dice).await;
        }
        target.catch_up(&mut stream, &noco).await;
        marina.holds(&target);
    }
}

/// A created and an updated record are found by a poll, long before the next sweep.
#[tokio::test(flavor = "multi_thread")]
async fn a_poll_finds_what_is_new() {
    let mut marina = Marina::new().await;
    marina.add(60).await;
    let mut settings = marina.base.settings();
    (settings.page, settings.sweep) = (25, Duration::from_secs(3_600));
    let noco = Noco::connect(&settings).await.expect("a connection");
    let tables = vec![followed(0, "Boats", &[])];
    let noco = noco.remembering(Store::shared(), tables).await.expect("remembers");
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    target.until(&mut stream, |target| target.documents.len() == 60).await;
    marina.base.update(&marina.boats, &[json!({"Id": 5, "Name": "five"})]).await;
    marina.add(1).await;
    let five =
        |target: &Target| target.of(0).get(&5).is_some_and(|five| five.get_str("Name").ok() == Some("five"));
    target.until(&mut stream, |target| target.documents.len() == 61 && five(target)).await;
    // The count shows that something went away, and a sweep says what.
    marina.base.delete(&marina.boats, &[7, 9]).await;
    target.until(&mut stream, |target| target.deletes.len() == 2).await;
    assert_eq!(target.changes, 60 + 2 + 2);
}
