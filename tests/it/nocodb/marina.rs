//! A small marina in NocoDB: berths, boats at berths, tags of boats; edited through the API, with a record of what was done.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use slackwater_migrations::Chance;
use tokio_postgres::Client;

use super::base::{BULK, Base, Table, column};

pub(super) const SCHEMA: &str = "
CREATE TABLE berths (id uuid PRIMARY KEY, n integer NOT NULL, label text NOT NULL, price numeric);
CREATE TABLE tags (id uuid PRIMARY KEY, n integer NOT NULL, label text NOT NULL);
CREATE TABLE boats (id uuid PRIMARY KEY, n integer NOT NULL, name text, berth_id uuid REFERENCES berths);
CREATE TABLE boat_tags (boat_id uuid NOT NULL REFERENCES boats, tag_id uuid NOT NULL REFERENCES tags, PRIMARY KEY (boat_id, tag_id));";

/// Cents, so that nothing is rounded.
type Price = i64;

/// What a boat has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Boat {
    name: Option<String>,
    berth: Option<i64>,
    tags: BTreeSet<i64>,
}

/// The base, and what is in it.
pub(super) struct Marina {
    base: Base,
    boats: Table,
    berths: Table,
    tags: Table,
    afloat: BTreeMap<i64, Boat>,
    places: BTreeMap<i64, (String, Price)>,
    labels: BTreeMap<i64, String>,
    edits: u64,
}

fn cents(price: Price) -> String {
    format!("{}.{:02}", price / 100, price % 100)
}

impl Marina {
    /// On the shared server.
    pub(super) async fn new() -> Self {
        Self::on(Base::new().await).await
    }

    pub(super) async fn on(base: Base) -> Self {
        let mut boats = base.table("Boats", json!([column("Name", "SingleLineText")])).await;
        let label = || column("Label", "SingleLineText");
        let mut berths = base.table("Berths", json!([label(), column("Price", "Decimal")])).await;
        let tags = base.table("Tags", json!([label()])).await;
        // The boats' side of it is called as the table is.
        berths = base.link(&berths, "Boats", "hm", "Links", &boats).await;
        boats = base.link(&boats, "Tags", "mm", "Links", &tags).await;
        Self {
            base,
            boats,
            berths,
            tags,
            afloat: BTreeMap::new(),
            places: BTreeMap::new(),
            labels: BTreeMap::new(),
            edits: 0,
        }
    }

    /// The migration file.
    pub(super) fn file(&self) -> String {
        format!(
            "migration: marina\nsources:\n  base:\n    nocodb: {{ url: \"${{SLACKWATER_NOCODB_URL}}\", token: \"${{SLACKWATER_NOCODB_TOKEN}}\", base: {}, every: 300ms, sweep: 1500ms, requests_per_second: 60 }}\n    \
             freeze: {{ command: {{ freeze: [ \"true\" ], unfreeze: [ \"true\" ] }} }}\n\
             target: {{ postgres: {{ uri: \"${{SLACKWATER_POSTGRES_URL}}\", schema: public }} }}\ncutover: {{ max_lag: 10s, deadline: 30s }}\ncollections:\n  \
             base.Berths: {{ into: berths, columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, label: Label, price: {{ numeric: Price }} }} }}\n  \
             base.Tags: {{ into: tags, columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, label: Label }} }}\n  \
             base.Boats:\n    - into: boats\n      columns: {{ id: {{ uuid: _id }}, n: {{ integer: _id }}, name: Name, berth_id: {{ ref: Berths, to: base.Berths }} }}\n    \
             - into: boat_tags\n      each: Tags[]\n      columns: {{ boat_id: {{ parent: id }}, tag_id: {{ ref: ., to: base.Tags }} }}\n",
            self.base.id
        )
    }

    /// The table of boats is deleted, with all that is in it.
    pub(super) async fn sink(&mut self) {
        self.base.ask("DELETE", &format!("meta/tables/{}", self.boats.id), Value::Null).await;
        self.afloat.clear();
    }

    /// The numbers of all boats.
    pub(super) fn boats(&self) -> Vec<i64> {
        self.afloat.keys().copied().collect()
    }

    /// Berths, tags, and so many boats.
    pub(super) async fn fill(&mut self, chance: &mut Chance, boats: u64) {
        for _ in 0..5 {
            self.add_berths(chance).await;
            self.add_tag().await;
        }
        self.add_boats(boats).await;
        for _ in 0..20 {
            self.edit(chance).await;
        }
    }

    async fn add_berths(&mut self, chance: &mut Chance) {
        self.edits += 1;
        let price = chance.below(1_000_000) as Price;
        let label = format!("berth {}", self.edits);
        // Text, because a number in JSON would be rounded by whoever reads it.
        let record: Value = serde_json::from_str(&format!("{{\"Price\": {}}}", cents(price))).expect("JSON");
        let record = json!({"Label": label, "Price": record["Price"]});
        for id in self.base.create(&self.berths, &[record]).await {
            self.places.insert(id, (label.clone(), price));
        }
    }

    async fn add_tag(&mut self) {
        self.edits += 1;
        let label = format!("tag {}", self.edits);
        for id in self.base.create(&self.tags, &[json!({"Label": label})]).await {
            self.labels.insert(id, label.clone());
        }
    }

    async fn add_boats(&mut self, count: u64) {
        self.edits += 1;
        let name = |n: u64| format!("boat {} of {}", n, self.edits);
        let records: Vec<Value> = (0..count).map(|n| json!({"Name": name(n)})).collect();
        let made = self.base.create(&self.boats, &records).await;
        let names: Vec<String> = (0..count).map(name).collect();
        for (id, name) in made.into_iter().zip(names) {
            self.afloat.insert(id, Boat { name: Some(name), ..Boat::default() });
        }
    }

    fn any<T: Copy>(chance: &mut Chance, some: &[T]) -> Option<T> {
        (!some.is_empty()).then(|| some[chance.below(some.len() as u64) as usize])
    }

    /// One edit of some kind.
    pub(super) async fn edit(&mut self, chance: &mut Chance) {
        let boats = self.boats();
        let places: Vec<i64> = self.places.keys().copied().collect();
        let labels: Vec<i64> = self.labels.keys().copied().collect();
        let (boat, place, label) =
            (Self::any(chance, &boats), Self::any(chance, &places), Self::any(chance, &labels));
        self.edits += 1;
        match (chance.below(12), boat, place, label) {
            (0, ..) => self.add_boats(1).await,
            (1, ..) => self.add_boats(9).await,
            (2 | 3, Some(_), ..) => self.rename(chance).await,
            (4, Some(id), ..) => {
                self.base.update(&self.boats, &[json!({"Id": id, "Name": null})]).await;
                self.boat(id).name = None;
            }
            (5, Some(_), ..) => {
                // Many at once, which all have the same second; no more than one request takes.
                let third = boats.into_iter().filter(|_| chance.below(3) == 0);
                let some: Vec<i64> = third.take(BULK).collect();
                let name = format!("all {}", self.edits);
                let records: Vec<Value> = some.iter().map(|id| json!({"Id": id, "Name": name})).collect();
                self.base.update(&self.boats, &records).await;
                some.into_iter().for_each(|id| self.boat(id).name = Some(name.clone()));
            }
            (6 | 7, Some(id), Some(place), _) => {
                self.base.connect(&self.berths, "Boats", place, &[id]).await;
                self.boat(id).berth = Some(place);
            }
            (8, Some(id), _, Some(label)) => {
                if self.boat(id).tags.remove(&label) {
                    self.base.disconnect(&self.boats, "Tags", id, &[label]).await;
                } else {
                    self.base.connect(&self.boats, "Tags", id, &[label]).await;
                    self.boat(id).tags.insert(label);
                }
            }
            (9, Some(id), ..) => {
                self.base.delete(&self.boats, &[id]).await;
                self.afloat.remove(&id);
            }
            (10, _, Some(place), _) if places.len() > 3 => {
                self.base.delete(&self.berths, &[place]).await;
                self.places.remove(&place);
                for boat in self.afloat.values_mut() {
                    boat.berth = boat.berth.filter(|berth| *berth != place);
                }
            }
            _ => self.add_berths(chance).await,
        }
    }

    /// Another name for some boat.
    pub(super) async fn rename(&mut self, chance: &mut Chance) {
        self.edits += 1;
        let Some(id) = Self::any(chance, &self.boats()) else { return };
        let name = format!("renamed {}", self.edits);
        self.base.update(&self.boats, &[json!({"Id": id, "Name": name})]).await;
        self.boat(id).name = Some(name);
    }

    fn boat(&mut self, id: i64) -> &mut Boat {
        self.afloat.entry(id).or_default()
    }

    /// How the target differs from what was done, if it does.
    pub(super) async fn differs(&self, target: &Client) -> Option<String> {
        let rows = target.query("SELECT n, label, price::text FROM berths", &[]).await.expect("berths");
        let places: BTreeMap<i64, (String, Option<String>)> =
            rows.iter().map(|row| (row.get::<_, i32>(0).into(), (row.get(1), row.get(2)))).collect();
        let price = |text: &str| text.parse::<f64>().map(|price| (price * 100.0).round() as Price).ok();
        for (id, (label, wanted)) in &self.places {
            let found = places.get(id);
            let equal = found.is_some_and(|(found, text)| {
                found == label && text.as_deref().and_then(price) == Some(*wanted)
            });
            if !equal {
                return Some(format!("berth {id} should be {label} at {}, is {found:?}", cents(*wanted)));
            }
        }
        if places.len() != self.places.len() {
            return Some(format!("{} berths are there, and should be {}", places.len(), self.places.len()));
        }
        let sql = "SELECT b.n, b.name, p.n, (SELECT array_agg(t.n) FROM boat_tags x JOIN tags t ON t.id = x.tag_id \
                   WHERE x.boat_id = b.id) FROM boats b LEFT JOIN berths p ON p.id = b.berth_id";
        let rows = target.query(sql, &[]).await.expect("boats");
        let found: BTreeMap<i64, Boat> = rows
            .iter()
            .map(|row| {
                let tags: Option<Vec<i32>> = row.get(3);
                let boat = Boat {
                    name: row.get(1),
                    berth: row.get::<_, Option<i32>>(2).map(i64::from),
                    tags: tags.into_iter().flatten().map(i64::from).collect(),
                };
                (row.get::<_, i32>(0).into(), boat)
            })
            .collect();
        for (id, boat) in &self.afloat {
            if found.get(id) != Some(boat) {
                return Some(format!("boat {id} should be {boat:?}, is {:?}", found.get(id)));
            }
        }
        let more = found.keys().find(|id| !self.afloat.contains_key(id));
        more.map(|id| format!("boat {id} should be gone"))
    }
}
