//! What a writer knows of one team's documents, and what it does to them next.
//!
//! Pure: the plan is made against this knowledge and changes it at once; carrying it out comes after. A document that
//! another one refers to is never deleted, so a reference points to nothing at no moment of the source's history.

use std::collections::{BTreeMap, HashMap};

use bson::{Bson, Document, doc};

use super::Kind;
use super::documents::{
    Booking, Head, Invoice, booking, change, invoice, ledger, line, object_id, organisation, slot, user,
};
use super::operation::{Change, Operation, Step};
use crate::Chance;

/// Fewer than this of a kind are not deleted.
const LEAST: usize = 4;
const ROOM: usize = 8;

/// One `_id`, alive or deleted.
#[derive(Clone, Debug)]
struct Entity {
    id: Bson,
    v: i64,
    alive: bool,
    /// How often others refer to it.
    holders: u32,
    /// What it refers to; a guest who occurs twice is here twice.
    refs: BTreeMap<&'static str, Vec<(Kind, usize)>>,
    /// Keys of the elements of its array.
    keys: Vec<String>,
}

/// What a writer knows of a team.
#[derive(Clone, Debug)]
pub(super) struct Team {
    number: i32,
    run: u16,
    writer: u8,
    kinds: [Vec<Entity>; 5],
    index: HashMap<(Kind, String), usize>,
}

/// A name for an `_id` that is the same for equal ones.
pub(super) fn id_name(id: &Bson) -> String {
    match id {
        Bson::Double(number) => (*number as i64).to_string(),
        other => other.to_string(),
    }
}

impl Team {
    pub(super) fn new(number: i32, run: u16, writer: u8) -> Self {
        Self { number, run, writer, kinds: Default::default(), index: HashMap::new() }
    }

    /// Takes in a document that the database has. Referenced collections come first.
    pub(super) fn learn(&mut self, kind: Kind, document: &Document) {
        let mut refs = BTreeMap::new();
        let mut refer = |name: &'static str, to: Kind, id: &Bson| {
            if let Some(index) = self.index.get(&(to, id_name(id))) {
                self.kinds[to as usize][*index].holders += 1;
                refs.entry(name).or_insert_with(Vec::new).push((to, *index));
            }
        };
        for (name, to) in [
            ("organisation", Kind::Organisation),
            ("organiser", Kind::User),
            ("user", Kind::User),
            ("invoice", Kind::Invoice),
        ] {
            document.get(name).into_iter().for_each(|id| refer(name, to, id));
        }
        let items = |name: &str| document.get_array(name).map_or(&[][..], Vec::as_slice);
        items("guests").iter().for_each(|id| refer("guests", Kind::User, id));
        let key = |item: &Bson| {
            let item = item.as_document()?;
            item.get_str("code").or_else(|_| item.get_str("sku")).ok().map(str::to_owned)
        };
        let keys = items("slots").iter().chain(items("lines")).filter_map(key).collect();
        let id = document.get("_id").cloned().unwrap_or(Bson::Null);
        let v = document.get_i64("v").unwrap_or_default();
        self.add(kind, Entity { id, v, alive: true, holders: 0, refs, keys });
    }

    fn add(&mut self, kind: Kind, entity: Entity) -> usize {
        let entities = &mut self.kinds[kind as usize];
        self.index.insert((kind, id_name(&entity.id)), entities.len());
        entities.push(entity);
        entities.len() - 1
    }

    fn entity(&mut self, kind: Kind, index: usize) -> &mut Entity {
        &mut self.kinds[kind as usize][index]
    }

    fn find(&self, chance: &mut Chance, kind: Kind, fits: impl Fn(&Entity) -> bool) -> Option<usize> {
        let entities = &self.kinds[kind as usize];
        (0..24)
            .map(|_| chance.below(entities.len() as u64) as usize)
            .find(|at| entities.get(*at).is_some_and(&fits))
    }

    fn alive(&self, chance: &mut Chance, kind: Kind) -> Option<usize> {
        self.find(chance, kind, |entity| entity.alive)
    }

    fn id(&self, kind: Kind, index: usize) -> Bson {
        self.kinds[kind as usize][index].id.clone()
    }

    /// Replaces what a document refers to under a name.
    fn refer(&mut self, kind: Kind, index: usize, name: &'static str, to: Vec<(Kind, usize)>) {
        for (to, index) in &to {
            self.entity(*to, *index).holders += 1;
        }
        let before = self.entity(kind, index).refs.insert(name, to).unwrap_or_default();
        for (to, index) in before {
            self.entity(to, index).holders -= 1;
        }
    }

    fn release(&mut self, kind: Kind, index: usize) {
        let names: Vec<_> = self.entity(kind, index).refs.keys().copied().collect();
        names.into_iter().for_each(|name| self.refer(kind, index, name, Vec::new()));
    }

    fn new_id(&self, chance: &mut Chance, kind: Kind, count: u32) -> Bson {
        let (run, writer) = (self.run, self.writer);
        match kind {
            Kind::Organisation if chance.percent(20) => format!("a new one/{run}/{writer}/{count}").into(),
            Kind::Organisation => format!("org-{run}-{writer}-{count:06}").into(),
            Kind::Ledger => {
                let number = i64::from(run) << 42 | i64::from(writer) << 34 | i64::from(count);
                if chance.percent(30) { Bson::Double(number as f64) } else { Bson::Int64(number) }
            }
            // Anywhere among the others, not only at the end.
            _ => object_id(chance.between(1_600_000_000, 1_601_000_000) as u32, kind, run, writer, count)
                .into(),
        }
    }

    /// Everything of a document from chance, its references included, in the version after the present one.
    fn make(&mut self, chance: &mut Chance, kind: Kind, index: usize) -> Option<Document> {
        let entity = self.entity(kind, index);
        let head =
            Head { id: entity.id.clone(), team: self.number, v: self.kinds[kind as usize][index].v + 1 };
        let document = match kind {
            Kind::Organisation => organisation(chance, head),
            Kind::User => {
                let at = self.alive(chance, Kind::Organisation).filter(|_| chance.percent(90));
                self.refer(
                    kind,
                    index,
                    "organisation",
                    at.map(|at| (Kind::Organisation, at)).into_iter().collect(),
                );
                user(chance, head, at.map(|at| self.id(Kind::Organisation, at)))
            }
            Kind::Booking => {
                let organiser = self.alive(chance, Kind::User)?;
                let home = self.alive(chance, Kind::Organisation)?;
                let guests: Vec<_> =
                    (0..chance.below(4)).filter_map(|_| self.alive(chance, Kind::User)).collect();
                self.refer(kind, index, "organiser", vec![(Kind::User, organiser)]);
                self.refer(kind, index, "organisation", vec![(Kind::Organisation, home)]);
                self.refer(kind, index, "guests", guests.iter().map(|at| (Kind::User, *at)).collect());
                let slots = self.elements(chance, kind, index, slot);
                let parts = Booking {
                    organiser: self.id(Kind::User, organiser),
                    organisation: self.id(Kind::Organisation, home),
                    guests: guests.into_iter().map(|at| self.id(Kind::User, at)).collect(),
                    slots,
                };
                booking(chance, head, parts)
            }
            Kind::Invoice => {
                let home = self.alive(chance, Kind::Organisation)?;
                let payer = self.alive(chance, Kind::User).filter(|_| chance.percent(70));
                self.refer(kind, index, "organisation", vec![(Kind::Organisation, home)]);
                self.refer(kind, index, "user", payer.map(|at| (Kind::User, at)).into_iter().collect());
                let lines = self.elements(chance, kind, index, line);
                let parts = Invoice {
                    organisation: self.id(Kind::Organisation, home),
                    user: payer.map(|at| self.id(Kind::User, at)),
                    lines,
                };
                invoice(chance, head, parts)
            }
            Kind::Ledger => {
                let bill = self.alive(chance, Kind::Invoice).filter(|_| chance.percent(70));
                let payer = self.alive(chance, Kind::User).filter(|_| chance.percent(60));
                self.refer(kind, index, "invoice", bill.map(|at| (Kind::Invoice, at)).into_iter().collect());
                self.refer(kind, index, "user", payer.map(|at| (Kind::User, at)).into_iter().collect());
                let bill = bill.map(|at| self.id(Kind::Invoice, at));
                ledger(chance, head, bill, payer.map(|at| self.id(Kind::User, at)))
            }
        };
        let entity = self.entity(kind, index);
        entity.v += 1;
        entity.alive = true;
        Some(document)
    }

    /// New elements for the array, some with keys that it had before.
    fn elements(
        &mut self,
        chance: &mut Chance,
        kind: Kind,
        index: usize,
        make: impl Fn(&mut Chance, &str) -> Document,
    ) -> Vec<Document> {
        let prefix = if kind == Kind::Booking { "S" } else { "SKU-" };
        let mut keys: Vec<_> = (0..ROOM).map(|at| format!("{prefix}{at}")).collect();
        chance.shuffle(&mut keys);
        keys.truncate(chance.below(4) as usize);
        let elements = keys.iter().map(|key| make(chance, key)).collect();
        self.entity(kind, index).keys = keys;
        elements
    }

    fn step(&mut self, kind: Kind, index: usize, change: Change) -> Step {
        let entity = self.entity(kind, index);
        Step { kind, id: entity.id.clone(), v: entity.v, change }
    }

    fn insert(&mut self, chance: &mut Chance, kind: Kind, count: &mut u32) -> Option<Step> {
        *count += 1;
        let id = self.new_id(chance, kind, *count);
        let entity = Entity { id, v: 0, alive: false, holders: 0, refs: BTreeMap::new(), keys: Vec::new() };
        let index = self.add(kind, entity);
        let document = self.make(chance, kind, index)?;
        Some(self.step(kind, index, Change::Insert(document)))
    }

    fn update(&mut self, chance: &mut Chance, kind: Kind, index: usize, mut update: Document) -> Step {
        let entity = self.entity(kind, index);
        entity.v += 1;
        // Both ways in which applications count.
        let (operator, value) = if chance.percent(50) { ("$inc", 1) } else { ("$set", entity.v) };
        match update.get_document_mut(operator) {
            Ok(fields) => {
                fields.insert("v", value);
            }
            Err(_) => {
                update.insert(operator, doc! {"v": value});
            }
        }
        self.step(kind, index, Change::Update(update))
    }

    fn delete(&mut self, chance: &mut Chance, kind: Kind) -> Option<(usize, Step)> {
        let alive = self.kinds[kind as usize].iter().filter(|entity| entity.alive).count();
        let index = self
            .find(chance, kind, |entity| entity.alive && entity.holders == 0)
            .filter(|_| alive > LEAST)?;
        self.release(kind, index);
        self.entity(kind, index).alive = false;
        Some((index, self.step(kind, index, Change::Delete)))
    }

    fn again(&mut self, chance: &mut Chance, kind: Kind, index: usize) -> Option<Step> {
        let document = self.make(chance, kind, index)?;
        Some(self.step(kind, index, Change::Insert(document)))
    }

    fn retarget(&mut self, chance: &mut Chance) -> Option<Step> {
        let (kind, name, to) = *chance.pick(&[
            (Kind::User, "organisation", Kind::Organisation),
            (Kind::Booking, "organiser", Kind::User),
            (Kind::Invoice, "user", Kind::User),
            (Kind::Ledger, "invoice", Kind::Invoice),
        ]);
        let index = self.alive(chance, kind)?;
        if name != "organiser" && chance.percent(25) {
            self.refer(kind, index, name, Vec::new());
            return Some(self.update(chance, kind, index, doc! {"$unset": {name: ""}}));
        }
        let target = self.alive(chance, to)?;
        self.refer(kind, index, name, vec![(to, target)]);
        let id = self.id(to, target);
        Some(self.update(chance, kind, index, doc! {"$set": {name: id}}))
    }

    fn guests(&mut self, chance: &mut Chance) -> Option<Step> {
        let kind = Kind::Booking;
        let index = self.alive(chance, kind)?;
        let mut guests = self.entity(kind, index).refs.get("guests").cloned().unwrap_or_default();
        let update = match chance.below(3) {
            // A guest more, now and then one who is there already.
            0 if guests.len() < ROOM => {
                let there = (!guests.is_empty() && chance.percent(30)).then(|| *chance.pick(&guests));
                let guest = match there {
                    Some(guest) => guest,
                    None => (Kind::User, self.alive(chance, Kind::User)?),
                };
                guests.push(guest);
                doc! {"$push": {"guests": self.id(guest.0, guest.1)}}
            }
            1 if !guests.is_empty() => {
                let gone = *chance.pick(&guests);
                guests.retain(|guest| *guest != gone);
                doc! {"$pull": {"guests": self.id(gone.0, gone.1)}}
            }
            _ => {
                chance.shuffle(&mut guests);
                let ids: Vec<_> = guests.iter().map(|(kind, at)| self.id(*kind, *at)).collect();
                doc! {"$set": {"guests": ids}}
            }
        };
        self.refer(kind, index, "guests", guests);
        Some(self.update(chance, kind, index, update))
    }

    fn children(&mut self, chance: &mut Chance) -> Option<Step> {
        let (kind, array, by) =
            *chance.pick(&[(Kind::Booking, "slots", "code"), (Kind::Invoice, "lines", "sku")]);
        let make = |chance: &mut Chance, key: &str| {
            if kind == Kind::Booking { slot(chance, key) } else { line(chance, key) }
        };
        let index = self.alive(chance, kind)?;
        let mut keys = self.entity(kind, index).keys.clone();
        let prefix = if kind == Kind::Booking { "S" } else { "SKU-" };
        let free = (0..ROOM).map(|at| format!("{prefix}{at}")).find(|key| !keys.contains(key));
        let update = match (chance.below(4), free) {
            (0, Some(key)) => {
                let element = make(chance, &key);
                // In front, so that all others move.
                keys.insert(0, key);
                doc! {"$push": {array: {"$each": [element], "$position": 0}}}
            }
            (1, _) if !keys.is_empty() => {
                let gone = chance.pick(&keys).clone();
                keys.retain(|key| *key != gone);
                doc! {"$pull": {array: {by: gone}}}
            }
            (2, _) if !keys.is_empty() => {
                let at = chance.below(keys.len() as u64);
                let element = make(chance, &keys[at as usize]);
                doc! {"$set": {format!("{array}.{at}"): element}}
            }
            _ => {
                let elements = self.elements(chance, kind, index, make);
                keys.clone_from(&self.entity(kind, index).keys);
                doc! {"$set": {array: elements}}
            }
        };
        self.entity(kind, index).keys = keys;
        Some(self.update(chance, kind, index, update))
    }

    fn try_next(&mut self, chance: &mut Chance, count: &mut u32) -> Option<Operation> {
        let kind = *chance.pick(&Kind::ALL);
        let one = |name, step| Some(Operation { name, transaction: false, steps: vec![step] });
        match chance.below(100) {
            0..16 => one("insert", self.insert(chance, kind, count)?),
            16..42 => {
                let index = self.alive(chance, kind)?;
                let update = change(chance, kind);
                one("update", self.update(chance, kind, index, update))
            }
            42..47 => one("reference", self.retarget(chance)?),
            47..57 => {
                let index = self.alive(chance, kind)?;
                let document = self.make(chance, kind, index)?;
                one("replace", self.step(kind, index, Change::Replace(document)))
            }
            57..67 => one("delete", self.delete(chance, kind)?.1),
            67..74 => {
                let (index, gone) = self.delete(chance, kind)?;
                let transaction = chance.percent(30);
                let steps = std::iter::once(gone).chain(self.again(chance, kind, index)).collect();
                Some(Operation { name: "delete and insert again", transaction, steps })
            }
            74..79 => {
                let index = self.find(chance, kind, |entity| !entity.alive && entity.v > 0)?;
                one("insert again later", self.again(chance, kind, index)?)
            }
            79..86 => one("guests", self.guests(chance)?),
            86..92 => one("children", self.children(chance)?),
            _ => {
                let mut steps = Vec::new();
                for kind in Kind::ALL {
                    match chance.below(3) {
                        0 => steps.extend(self.insert(chance, kind, count)),
                        1 => {
                            let update = change(chance, kind);
                            let index = self.alive(chance, kind);
                            steps.extend(index.map(|index| self.update(chance, kind, index, update)));
                        }
                        _ => {}
                    }
                }
                steps.extend(self.delete(chance, Kind::Booking).map(|(_, step)| step));
                (!steps.is_empty()).then_some(Operation { name: "transaction", transaction: true, steps })
            }
        }
    }

    /// What to do next. `count` numbers the writer's new documents.
    pub(super) fn next(&mut self, chance: &mut Chance, count: &mut u32) -> Option<Operation> {
        // What does not fit the present state (nothing to delete, nobody to refer to) changes nothing: try another.
        (0..64).find_map(|_| self.try_next(chance, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm_demo::World;
    use std::collections::{HashMap, HashSet};

    fn learned(documents: &mut HashMap<(Kind, String), (i64, bool)>) -> Team {
        let world = World::new(1, 500);
        let mut team = Team::new(3, 1, 0);
        for kind in Kind::ALL {
            for index in 0..world.len(kind) {
                let document = world.document(kind, index);
                if document.get_i32("team").ok() == Some(3) {
                    team.learn(kind, &document);
                    let id = document.get("_id").expect("an _id");
                    documents.insert((kind, id_name(id)), (1, true));
                }
            }
        }
        team
    }

    /// Runs operations against a model: versions only grow by one, and what is deleted nobody refers to.
    #[test]
    fn versions_grow_and_references_hold() {
        let mut documents = HashMap::new();
        let mut team = learned(&mut documents);
        let (mut chance, mut count) = (Chance::new(5), 0);
        let mut names = HashSet::new();
        for round in 0..10_000 {
            let operation = team.next(&mut chance, &mut count).expect("something to do");
            names.insert(operation.name);
            for step in &operation.steps {
                let (v, alive) = documents.entry((step.kind, id_name(&step.id))).or_insert((0, false));
                let deleted = matches!(step.change, Change::Delete);
                let inserted = matches!(step.change, Change::Insert(_));
                assert_eq!(*alive, !inserted, "{operation:?}");
                assert_eq!(step.v, *v + i64::from(!deleted), "{operation:?}");
                (*v, *alive) = (step.v, !deleted);
            }
            if round % 50 != 0 {
                continue;
            }
            for entity in team.kinds.iter().flatten() {
                for (kind, index) in entity.refs.values().flatten() {
                    let target = &team.kinds[*kind as usize][*index];
                    assert!(target.alive && target.holders > 0, "{operation:?}");
                }
                assert!(entity.alive || (entity.refs.values().all(Vec::is_empty) && entity.holders == 0));
            }
        }
        assert_eq!(names.len(), 10, "{names:?}");
        for entities in &team.kinds {
            let alive = entities.iter().filter(|entity| entity.alive).count();
            assert!((LEAST..2_000).contains(&alive), "{alive} alive of {}", entities.len());
        }
    }

    #[test]
    fn the_same_seed_plans_the_same() {
        let plan = || {
            let mut team = learned(&mut HashMap::new());
            let (mut chance, mut count) = (Chance::new(8), 0);
            (0..500).map(|_| team.next(&mut chance, &mut count)).collect::<Vec<_>>()
        };
        assert_eq!(plan(), plan());
    }
}
