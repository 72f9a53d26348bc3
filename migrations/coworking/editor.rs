//! What people do in the application while it is migrated: changes of every kind, entries into the ledger with their balance, and deletes
//! that ask nobody. What goes may come back, under the same `_id`.

use std::collections::BTreeMap;
use std::fmt;

use bson::{Bson, Document, doc};
use mongodb::{ClientSession, Database};

use super::documents::{MORE, World, address, anything, subject};
use super::load::balance;
use super::model::{Kind, Model, Needs, spec};
use super::specs::SPECS;
use crate::{Chance, Result};

/// What others point at or look up most: half of all edits are theirs.
const CENTRE: [Model; 18] = [
    "user",
    "user",
    "organisation",
    "organisation",
    "location",
    "invoice",
    "product",
    "room",
    "event",
    "ticket",
    "currency",
    "parkingcenter",
    "spacetype",
    "bookableitemtype",
    "producttype",
    "wallettype",
    "layout",
    "link",
];
const LEDGER: Model = "ledger";

/// Where a document is.
type Place = (Model, u32);

/// A change of one document.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// It is there, like this.
    Put(Document),
    /// Update operators.
    Update(Document),
    /// Stages that make it of what it was.
    Pipeline(Vec<Document>),
    /// It goes.
    Delete,
    /// A new entry of the ledger, and the balance with it.
    Book(Document),
}

/// Changes that belong together.
#[derive(Clone, Debug, PartialEq)]
struct Edit {
    name: &'static str,
    /// All of it or nothing.
    transaction: bool,
    steps: Vec<(Place, Change)>,
}

/// Knows which documents there are. Nobody else may write.
#[derive(Clone, Debug)]
pub struct Editor {
    world: World,
    chance: Chance,
    alive: BTreeMap<Model, Vec<u32>>,
    gone: Vec<Place>,
    /// The number of each user's address.
    emails: Vec<u32>,
    /// How often something was made.
    made: u64,
    counts: BTreeMap<&'static str, u64>,
    /// Entries of the ledger that somebody has changed, as they were first.
    firsts: BTreeMap<u32, Document>,
}

impl Editor {
    /// Of a database that was loaded and not changed since.
    pub fn new(world: World) -> Self {
        let all: Vec<u32> = (0..world.documents).collect();
        Self {
            world,
            chance: Chance::of(world.seed, u64::MAX, 0),
            alive: SPECS.iter().map(|spec| (spec.name, all.clone())).collect(),
            gone: Vec::new(),
            emails: all,
            made: 0,
            counts: BTreeMap::new(),
            firsts: BTreeMap::new(),
        }
    }

    /// Makes the next edit. What stands in the ledger is changed only after everything was copied: nobody knows which version a copy
    /// meets.
    pub async fn edit(
        &mut self,
        database: &Database,
        session: &mut ClientSession,
        copied: bool,
    ) -> Result<()> {
        if copied && self.chance.percent(2) {
            *self.counts.entry("tamper").or_default() += 1;
            return self.tamper(database).await;
        }
        let edit = self.next();
        *self.counts.entry(edit.name).or_default() += 1;
        if edit.transaction {
            return transact(database, session, &edit.steps).await;
        }
        for (place, change) in &edit.steps {
            carry_out(database, None, *place, change).await?;
        }
        Ok(())
    }

    /// Brings back everything that is gone.
    pub async fn restore(&mut self, database: &Database) -> Result<usize> {
        let mut back = std::mem::take(&mut self.gone);
        self.chance.shuffle(&mut back);
        for place in &back {
            let change = self.put(*place);
            carry_out(database, None, *place, &change).await?;
        }
        Ok(back.len())
    }

    /// Entries of the ledger that were changed, as they were first.
    pub fn firsts(&self) -> impl Iterator<Item = &Document> {
        self.firsts.values()
    }

    /// Somebody updates or deletes what stands in the ledger. The balance is right all the same.
    async fn tamper(&mut self, database: &Database) -> Result<()> {
        let Some(index) = self.some(LEDGER) else { return Ok(()) };
        let ledger = database.collection::<Document>(LEDGER);
        let by_id = doc! {"_id": World::id(LEDGER, index)};
        if let Some(found) = ledger.find_one(by_id.clone()).await? {
            self.firsts.entry(index).or_insert(found);
        }
        if self.chance.percent(40) {
            self.alive.entry(LEDGER).or_default().retain(|alive| *alive != index);
            ledger.delete_one(by_id).await?;
        } else {
            let wrong = self.chance.below(1_000) as i64;
            ledger.update_one(by_id, doc! {"$set": {"amount": wrong, "tampered": wrong}}).await?;
        }
        Ok(())
    }

    fn next(&mut self) -> Edit {
        // What does not fit the present state changes nothing: another.
        loop {
            if let Some(edit) = self.attempt() {
                return edit;
            }
        }
    }

    fn attempt(&mut self) -> Option<Edit> {
        let one = |name, step| Some(Edit { name, transaction: false, steps: vec![step] });
        match self.chance.below(100) {
            0..24 => one("update", self.update()?),
            24..40 => one("array", self.array()?),
            40..56 => match self.delete()? {
                (place, Change::Delete) => one("delete", (place, Change::Delete)),
                step => one("come back", step),
            },
            56..66 => one("come back", self.come_back()?),
            66..74 => one("create", self.create()),
            74..80 => one("replace", self.replace()?),
            80..86 => Some(Edit { name: "book", transaction: true, steps: vec![self.book()] }),
            86..90 => self.exchange_addresses(),
            90..93 => {
                // All at once, and the first of them again.
                let mut steps: Vec<_> = (0..2 + self.chance.below(4)).filter_map(|_| self.delete()).collect();
                steps.extend(self.come_back());
                Some(Edit { name: "many deletes", transaction: true, steps })
            }
            _ => {
                let mut steps = Vec::new();
                for _ in 0..2 + self.chance.below(5) {
                    let step = match self.chance.below(6) {
                        0 => self.delete(),
                        1 => Some(self.create()),
                        2 => self.come_back(),
                        3 => self.array(),
                        4 => Some(self.book()),
                        _ => self.update(),
                    };
                    steps.extend(step);
                }
                Some(Edit { name: "transaction", transaction: true, steps })
            }
        }
    }

    fn model(&mut self) -> Model {
        if self.chance.percent(50) {
            return self.chance.pick::<Model>(&CENTRE);
        }
        loop {
            let spec = self.chance.pick(SPECS);
            if !spec.append_only {
                return spec.name;
            }
        }
    }

    fn some(&mut self, model: Model) -> Option<u32> {
        let alive = &self.alive[&model];
        (!alive.is_empty()).then(|| *self.chance.pick(alive))
    }

    fn update(&mut self) -> Option<(Place, Change)> {
        let model = self.model();
        let index = self.some(model)?;
        let changes = |kind: Kind| match kind {
            Kind::Email | Kind::Fixed(_) | Kind::Peer(_) | Kind::LookBack(..) => false,
            Kind::Subject(_, word) => subject(index) == Some(word),
            _ => true,
        };
        let columns: Vec<_> = spec(model).columns.iter().filter(|column| changes(column.kind)).collect();
        if columns.is_empty() {
            return None;
        }
        let (mut set, mut unset) = (Document::new(), Document::new());
        for _ in 0..=self.chance.below(3) {
            let column = self.chance.pick(&columns);
            let (field, value) = match column.kind {
                // Names with dots and without letters cannot be set so.
                Kind::Rest => (*self.chance.pick(&MORE[..3]), Some(anything(&mut self.chance))),
                kind => (column.field, self.world.value(&mut self.chance, model, index, kind)),
            };
            if set.contains_key(field) || unset.contains_key(field) {
                continue;
            }
            match value {
                Some(value) => set.insert(field, value),
                None => unset.insert(field, 1),
            };
        }
        let mut update = Document::new();
        for (operator, fields) in [("$set", set), ("$unset", unset)] {
            if !fields.is_empty() {
                update.insert(operator, fields);
            }
        }
        Some(((model, index), Change::Update(update)))
    }

    /// Adds to an array of ids, takes away from it, says things twice, turns it round, empties it.
    fn array(&mut self) -> Option<(Place, Change)> {
        let mut arrays = Vec::new();
        for spec in SPECS {
            arrays.extend(spec.junctions.iter().map(|junction| (spec.name, junction.field, junction.to)));
            arrays.extend(spec.columns.iter().filter_map(|column| match column.kind {
                Kind::Refs(to) => Some((spec.name, column.field, to)),
                _ => None,
            }));
        }
        let (model, field, to) = *self.chance.pick(&arrays);
        let index = self.some(model)?;
        let now = || {
            let value = format!("${field}");
            doc! {"$cond": [{"$isArray": &value}, &value, []]}
        };
        let changed = match self.chance.below(100) {
            0..45 => {
                let more: Vec<Bson> = (0..=self.chance.below(2))
                    .map(|_| self.world.some(&mut self.chance, to, Needs::May))
                    .collect();
                doc! {"$slice": [{"$concatArrays": [more, now()]}, 10]}
            }
            45..65 => doc! {"$cond": [{"$lte": [{"$size": now()}, 1]}, [], {"$slice": [now(), 1, 20]}]},
            65..75 => doc! {"$slice": [{"$concatArrays": [now(), now()]}, 10]},
            75..85 => doc! {"$reverseArray": now()},
            85..90 => return Some(((model, index), Change::Update(doc! {"$set": {field: []}}))),
            90..95 => return Some(((model, index), Change::Update(doc! {"$set": {field: Bson::Null}}))),
            _ => return Some(((model, index), Change::Update(doc! {"$unset": {field: 1}}))),
        };
        Some(((model, index), Change::Pipeline(vec![doc! {"$set": {field: changed}}])))
    }

    /// Something goes. If much is gone already, something of it comes back instead.
    fn delete(&mut self) -> Option<(Place, Change)> {
        let all = self.world.documents as usize * self.alive.len();
        if self.gone.len() > (all / 30).max(20) {
            return self.come_back();
        }
        let model = self.model();
        let alive = self.alive.get_mut(&model)?;
        if alive.len() < 2 {
            return None;
        }
        let index = alive.swap_remove(self.chance.below(alive.len() as u64) as usize);
        self.gone.push((model, index));
        Some(((model, index), Change::Delete))
    }

    fn come_back(&mut self) -> Option<(Place, Change)> {
        if self.gone.is_empty() {
            return None;
        }
        let place = self.gone.swap_remove(self.chance.below(self.gone.len() as u64) as usize);
        Some((place, self.put(place)))
    }

    /// The next that nobody has seen. Some refer to it already.
    fn create(&mut self) -> (Place, Change) {
        let model = self.model();
        let gone = self.gone.iter().filter(|(of, _)| *of == model).count();
        let place = (model, (self.alive[&model].len() + gone) as u32);
        (place, self.put(place))
    }

    fn replace(&mut self) -> Option<(Place, Change)> {
        let model = self.model();
        let index = self.some(model)?;
        let document = self.make((model, index));
        Some(((model, index), Change::Put(document)))
    }

    fn book(&mut self) -> (Place, Change) {
        // What was deleted by mistake keeps its number.
        let alive = &self.alive[LEDGER];
        let index = alive.iter().chain(self.firsts.keys()).max().map_or(0, |last| last + 1);
        self.alive.entry(LEDGER).or_default().push(index);
        let document = self.make((LEDGER, index));
        ((LEDGER, index), Change::Book(document))
    }

    /// Two users have each other's address, in one step or in three, or one takes that of a user who is gone.
    fn exchange_addresses(&mut self) -> Option<Edit> {
        let (one, other) = (self.some("user")?, self.some("user")?);
        let left = self.gone.iter().find(|(model, _)| *model == "user").map(|(_, index)| *index);
        let set = |chance: &mut Chance, index, number| {
            (("user", index), Change::Update(doc! {"$set": {"email": address(chance, number)}}))
        };
        let way = self.chance.below(3);
        let other = match left {
            Some(left) if way == 2 => left,
            _ => other,
        };
        if one == other {
            return None;
        }
        self.emails.swap(one as usize, other as usize);
        let (ours, theirs) = (self.emails[one as usize], self.emails[other as usize]);
        let chance = &mut self.chance;
        let (name, transaction, steps) = match way {
            0 => ("exchange at once", true, vec![set(chance, one, ours), set(chance, other, theirs)]),
            1 => {
                let free = set(chance, one, u32::MAX - one);
                ("exchange in steps", false, vec![free, set(chance, other, theirs), set(chance, one, ours)])
            }
            // The other one is gone, or gives it up first.
            _ => {
                let free = set(chance, other, u32::MAX - other);
                ("take an address", false, vec![free, set(chance, one, ours), set(chance, other, theirs)])
            }
        };
        Some(Edit { name, transaction, steps })
    }

    fn put(&mut self, place: Place) -> Change {
        let (model, index) = place;
        self.alive.entry(model).or_default().push(index);
        Change::Put(self.make(place))
    }

    fn make(&mut self, (model, index): Place) -> Document {
        self.made += 1;
        let mut email = index;
        if model == "user" {
            let next = self.emails.len() as u32;
            self.emails.extend(next..=index);
            email = self.emails[index as usize];
        }
        self.world.document(model, index, self.made, email)
    }
}

impl fmt::Display for Editor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let all = self.counts.values().sum::<u64>();
        write!(f, "{all} edits: {}; {} are gone", counts.join(", "), self.gone.len())
    }
}

async fn transact(database: &Database, session: &mut ClientSession, steps: &[(Place, Change)]) -> Result<()> {
    loop {
        session.start_transaction().await?;
        let outcome = async {
            for (place, change) in steps {
                carry_out(database, Some(session), *place, change).await?;
            }
            Ok(session.commit_transaction().await?)
        };
        match outcome.await {
            Err(crate::Error::Source(error)) if error.contains_label("TransientTransactionError") => {
                let _ = session.abort_transaction().await;
            }
            outcome => return outcome,
        }
    }
}

async fn carry_out(
    database: &Database,
    session: Option<&mut ClientSession>,
    (model, index): Place,
    change: &Change,
) -> Result<()> {
    let collection = database.collection::<Document>(model);
    let by_id = doc! {"_id": World::id(model, index)};
    // With a session where there is one.
    macro_rules! done {
        ($action:expr, $session:expr) => {
            match $session {
                Some(session) => {
                    $action.session(session).await?;
                }
                None => {
                    $action.await?;
                }
            }
        };
    }
    match change {
        Change::Put(document) => done!(collection.replace_one(by_id, document).upsert(true), session),
        Change::Update(update) => done!(collection.update_one(by_id, update.clone()), session),
        Change::Pipeline(stages) => done!(collection.update_one(by_id, stages.clone()), session),
        Change::Delete => done!(collection.delete_one(by_id), session),
        Change::Book(entry) => {
            let (whose, update) = balance(entry)?;
            let balances = database.collection::<Document>("balance");
            let mut session = session;
            done!(collection.insert_one(entry), session.as_deref_mut());
            done!(balances.update_one(whose, update).upsert(true), session);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_knows_what_is_there_and_makes_entries_once() {
        let mut editor = Editor::new(World::new(7, 30));
        let mut there: HashSet<Place> =
            SPECS.iter().flat_map(|spec| (0..30).map(move |at| (spec.name, at))).collect();
        let mut names = HashSet::new();
        for _ in 0..4_000 {
            let edit = editor.next();
            names.insert(edit.name);
            for (place, change) in &edit.steps {
                match change {
                    Change::Put(_) => {
                        there.insert(*place);
                    }
                    Change::Book(_) => assert!(there.insert(*place), "{edit:?}"),
                    Change::Update(_) | Change::Pipeline(_) => {}
                    Change::Delete => assert!(there.remove(place), "{edit:?}"),
                }
            }
        }
        assert_eq!(there.len(), editor.alive.values().map(Vec::len).sum::<usize>());
        assert_eq!(editor.emails.iter().collect::<HashSet<_>>().len(), editor.emails.len());
        assert_eq!(names.len(), 12, "{names:?}");
    }

    #[test]
    fn the_same_seed_plans_the_same() {
        let plan = || {
            let mut editor = Editor::new(World::new(3, 20));
            (0..300).map(|_| editor.next()).collect::<Vec<_>>()
        };
        assert_eq!(plan(), plan());
    }
}
