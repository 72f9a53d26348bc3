//! What people do to the CRM while it is migrated: changes of every kind, and deletes that ask nobody. What goes may come back, under
//! the same `_id`.

use std::collections::BTreeMap;
use std::fmt;

use bson::{Bson, Document, doc};
use mongodb::{ClientSession, Database};

use super::documents::{World, address};
use super::model::{Kind, Model};
use crate::{Chance, Result};

/// What others point at most: half of all edits are theirs.
const CENTRE: [Model; 12] = [
    Model::Users,
    Model::Users,
    Model::Organisations,
    Model::Organisations,
    Model::Accounts,
    Model::OpportunityTypes,
    Model::SalesStages,
    Model::DocumentTypes,
    Model::IndustryTypes,
    Model::Boards,
    Model::Tasks,
    Model::Documents,
];

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
}

impl Editor {
    /// Of a database that was loaded and not changed since.
    pub fn new(world: World) -> Self {
        let all: Vec<u32> = (0..world.documents).collect();
        Self {
            world,
            chance: Chance::of(world.seed, u64::MAX, 0),
            alive: Model::all().map(|model| (model, all.clone())).collect(),
            gone: Vec::new(),
            emails: all,
            made: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Makes the next edit.
    pub async fn edit(&mut self, database: &Database, session: &mut ClientSession) -> Result<()> {
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

    /// How many are gone.
    pub fn gone(&self) -> usize {
        self.gone.len()
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
            0..22 => one("update", self.update()?),
            22..42 => one("array", self.array()?),
            42..60 => match self.delete()? {
                (place, Change::Delete) => one("delete", (place, Change::Delete)),
                step => one("come back", step),
            },
            60..72 => one("come back", self.come_back()?),
            72..80 => one("create", self.create()),
            80..84 => one("replace", self.replace()?),
            84..91 => self.exchange_addresses(),
            91..94 => {
                // All at once, and the first of them again.
                let mut steps: Vec<_> = (0..2 + self.chance.below(4)).filter_map(|_| self.delete()).collect();
                steps.extend(self.come_back());
                Some(Edit { name: "many deletes", transaction: true, steps })
            }
            _ => {
                let mut steps = Vec::new();
                for _ in 0..2 + self.chance.below(5) {
                    let step = match self.chance.below(5) {
                        0 => self.delete(),
                        1 => Some(self.create()),
                        2 => self.come_back(),
                        3 => self.array(),
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
            return *self.chance.pick(&CENTRE);
        }
        let all: Vec<Model> = Model::all().collect();
        *self.chance.pick(&all)
    }

    fn some(&mut self, model: Model) -> Option<u32> {
        let alive = &self.alive[&model];
        (!alive.is_empty()).then(|| *self.chance.pick(alive))
    }

    fn update(&mut self) -> Option<(Place, Change)> {
        let model = self.model();
        let index = self.some(model)?;
        let columns: Vec<_> = model
            .spec()
            .columns
            .iter()
            .filter(|column| !matches!(column.kind, Kind::Email | Kind::Slug))
            .collect();
        if columns.is_empty() {
            return None;
        }
        let (mut set, mut unset) = (Document::new(), Document::new());
        for _ in 0..=self.chance.below(3) {
            let column = self.chance.pick(&columns);
            if set.contains_key(column.field) || unset.contains_key(column.field) {
                continue;
            }
            match self.world.value(&mut self.chance, model, index, column.kind) {
                Some(value) => set.insert(column.field, value),
                None => unset.insert(column.field, 1),
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
        let models: Vec<Model> = Model::all().filter(|model| !model.spec().junctions.is_empty()).collect();
        let model = *self.chance.pick(&models);
        let index = self.some(model)?;
        let junction = self.chance.pick(model.spec().junctions);
        let field = junction.field;
        let now = || {
            let value = format!("${field}");
            doc! {"$cond": [{"$isArray": &value}, &value, []]}
        };
        let changed = match self.chance.below(100) {
            0..45 => {
                let more: Vec<Bson> = (0..=self.chance.below(2))
                    .map(|_| self.world.some(&mut self.chance, junction.to))
                    .collect();
                doc! {"$slice": [{"$concatArrays": [more, now()]}, 10]}
            }
            45..65 => {
                doc! {"$cond": [{"$lte": [{"$size": now()}, 1]}, [], {"$slice": [now(), 1, 20]}]}
            }
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

    /// Two users have each other's address, in one step or in three, or one takes that of a user who is gone.
    fn exchange_addresses(&mut self) -> Option<Edit> {
        let (one, other) = (self.some(Model::Users)?, self.some(Model::Users)?);
        let left = self.gone.iter().find(|(model, _)| *model == Model::Users).map(|(_, index)| *index);
        let set = |chance: &mut Chance, index, number| {
            ((Model::Users, index), Change::Update(doc! {"$set": {"email": address(chance, number)}}))
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
        Some(match way {
            0 => {
                let steps = vec![set(chance, one, ours), set(chance, other, theirs)];
                Edit { name: "exchange at once", transaction: true, steps }
            }
            1 => {
                let steps = vec![
                    set(chance, one, u32::MAX - one),
                    set(chance, other, theirs),
                    set(chance, one, ours),
                ];
                Edit { name: "exchange in steps", transaction: false, steps }
            }
            // The other one is gone, or gives it up first.
            _ => {
                let steps = vec![
                    set(chance, other, u32::MAX - other),
                    set(chance, one, ours),
                    set(chance, other, theirs),
                ];
                Edit { name: "take an address", transaction: false, steps }
            }
        })
    }

    fn put(&mut self, place: Place) -> Change {
        let (model, index) = place;
        self.alive.entry(model).or_default().push(index);
        Change::Put(self.make(place))
    }

    fn make(&mut self, (model, index): Place) -> Document {
        self.made += 1;
        let mut email = index;
        if model == Model::Users {
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
        write!(
            f,
            "{} edits: {}; {} are gone",
            self.counts.values().sum::<u64>(),
            counts.join(", "),
            self.gone.len()
        )
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
    let collection = database.collection::<Document>(model.collection());
    let by_id = doc! {"_id": World::id(model, index)};
    match change {
        Change::Put(document) => {
            let put = collection.replace_one(by_id, document).upsert(true);
            match session {
                Some(session) => put.session(session).await?,
                None => put.await?,
            };
        }
        Change::Update(update) => {
            let update = collection.update_one(by_id, update.clone());
            match session {
                Some(session) => update.session(session).await?,
                None => update.await?,
            };
        }
        Change::Pipeline(stages) => {
            let update = collection.update_one(by_id, stages.clone());
            match session {
                Some(session) => update.session(session).await?,
                None => update.await?,
            };
        }
        Change::Delete => {
            let delete = collection.delete_one(by_id);
            match session {
                Some(session) => delete.session(session).await?,
                None => delete.await?,
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashSet};

    /// Runs edits against a model: nobody who is there has another's address, and half of what goes comes back.
    #[test]
    fn addresses_stay_unique_and_what_goes_comes_back() {
        let mut editor = Editor::new(World::new(7, 40));
        let mut addresses: BTreeMap<u32, String> =
            (0..40).map(|index| (index, format!("person.{index}@example.com"))).collect();
        let plain = |document: &Document| {
            document.get_str("email").map(|email| email.trim().to_lowercase()).expect("an address")
        };
        let mut there: HashSet<Place> =
            Model::all().flat_map(|model| (0..40).map(move |at| (model, at))).collect();
        let (mut names, mut back) = (BTreeSet::new(), 0);
        let mut ever = there.clone();
        for _ in 0..3_000 {
            let edit = editor.next();
            names.insert(edit.name);
            for ((model, index), change) in &edit.steps {
                match change {
                    Change::Put(document) => {
                        back += u32::from(!ever.insert((*model, *index)) && there.insert((*model, *index)));
                        there.insert((*model, *index));
                        if *model == Model::Users {
                            addresses.insert(*index, plain(document));
                        }
                    }
                    Change::Update(update) if *model == Model::Users && there.contains(&(*model, *index)) => {
                        if let Some(set) =
                            update.get_document("$set").ok().filter(|set| set.contains_key("email"))
                        {
                            addresses.insert(*index, plain(set));
                        }
                    }
                    Change::Delete => {
                        assert!(there.remove(&(*model, *index)), "{edit:?}");
                        if *model == Model::Users {
                            addresses.remove(index);
                        }
                    }
                    _ => {}
                }
            }
            let distinct: HashSet<&String> = addresses.values().collect();
            assert_eq!(distinct.len(), addresses.len(), "{edit:?}");
        }
        assert_eq!(there.len(), editor.alive.values().map(Vec::len).sum::<usize>());
        assert_eq!(names.len(), 11, "{names:?}");
        assert!(back > 300, "{back} came back");
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
