//! What the user whom we connect as may do, as the server tells it: `connectionStatus` needs no right.

use bson::{Document, rawdoc};

use super::client::Mongo;
use super::error::cleaned;
use crate::error::Result;

/// What a right is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The server as a whole.
    Cluster,
    /// All collections of a database, less those of the system.
    Database(String),
    /// A collection of a database.
    Collection(String, String),
}

/// What a user may do.
#[derive(Clone, Debug, Default)]
pub struct Privileges {
    granted: Vec<(Granted, Vec<String>)>,
    /// Roles that were given, as `name@database`.
    roles: Vec<String>,
}

/// A resource as the server names it.
#[derive(Clone, Debug)]
enum Granted {
    Any,
    Cluster,
    /// Empty names stand for all.
    Names(String, String),
}

/// Roles that are built in and let a user change data, users or rights.
const MIGHTY: [&str; 14] = [
    "root",
    "__system",
    "dbOwner",
    "dbAdmin",
    "userAdmin",
    "readWrite",
    "readWriteAnyDatabase",
    "dbAdminAnyDatabase",
    "userAdminAnyDatabase",
    "clusterAdmin",
    "clusterManager",
    "hostManager",
    "restore",
    "backup",
];

/// Actions that change data, users or rights. `bypassWriteBlockingMode` writes through the freeze.
const CHANGES: [&str; 12] = [
    "anyAction",
    "insert",
    "update",
    "remove",
    "dropCollection",
    "dropDatabase",
    "bypassWriteBlockingMode",
    "createUser",
    "createRole",
    "grantRole",
    "changePassword",
    "shutdown",
];

impl Mongo {
    /// What we may do; `None` where the server asks nobody who he is.
    pub async fn privileges(&self) -> Result<Option<Privileges>> {
        let command = rawdoc! {"connectionStatus": 1, "showPrivileges": true};
        let reply = self.other("admin").run_raw_command(command).await;
        let reply = reply.map_err(|error| cleaned("asking for our rights", &error))?;
        Ok(read(&reply))
    }
}

fn read(reply: &Document) -> Option<Privileges> {
    let info = reply.get_document("authInfo").ok()?;
    if info.get_array("authenticatedUsers").ok()?.is_empty() {
        return None;
    }
    let list = |name: &str| info.get_array(name).into_iter().flatten().filter_map(bson::Bson::as_document);
    let granted = list("authenticatedUserPrivileges").filter_map(|privilege| {
        let resource = privilege.get_document("resource").ok()?;
        let says = |name: &str| resource.get_bool(name).unwrap_or(false);
        let name = |name: &str| resource.get_str(name).unwrap_or_default().to_owned();
        let resource = match () {
            () if says("anyResource") => Granted::Any,
            () if says("cluster") => Granted::Cluster,
            () if resource.contains_key("db") => Granted::Names(name("db"), name("collection")),
            () => return None,
        };
        let actions = privilege.get_array("actions").ok()?.iter();
        Some((resource, actions.filter_map(|action| action.as_str().map(str::to_owned)).collect()))
    });
    let roles = list("authenticatedUserRoles")
        .filter_map(|role| Some(format!("{}@{}", role.get_str("role").ok()?, role.get_str("db").ok()?)));
    Some(Privileges { granted: granted.collect(), roles: roles.collect() })
}

impl Granted {
    fn covers(&self, wanted: &Resource) -> bool {
        match (self, wanted) {
            (Self::Any, _) | (Self::Cluster, Resource::Cluster) => true,
            (Self::Names(db, collection), Resource::Database(name)) => {
                collection.is_empty() && (db == name || db.is_empty() && !is_inner(name))
            }
            (Self::Names(db, collection), Resource::Collection(name, wanted)) => {
                (db == name || db.is_empty() && !is_inner(name))
                    && (collection == wanted || collection.is_empty() && !wanted.starts_with("system."))
            }
            _ => false,
        }
    }
}

/// Rights on all databases do not reach these.
fn is_inner(database: &str) -> bool {
    matches!(database, "local" | "config")
}

impl Privileges {
    /// Whether this may be done.
    pub fn allow(&self, action: &str, on: &Resource) -> bool {
        self.granted.iter().any(|(resource, actions)| {
            resource.covers(on) && actions.iter().any(|given| given == action || given == "anyAction")
        })
    }

    /// What lets the user change something, which reading never needs: roles that are known for it, or else actions.
    pub fn mighty(&self) -> Option<String> {
        let name = |role: &&String| role.split('@').next().is_some_and(|name| MIGHTY.contains(&name));
        let roles: Vec<&str> = self.roles.iter().filter(name).map(String::as_str).collect();
        if !roles.is_empty() {
            return Some(format!("has the role {}", roles.join(", ")));
        }
        let may = |change: &&&str| {
            self.granted.iter().any(|(_, actions)| actions.iter().any(|one| one == **change))
        };
        let changes: Vec<&str> = CHANGES.iter().filter(may).copied().collect();
        (!changes.is_empty()).then(|| format!("may do {}", changes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn privileges(granted: Vec<Document>, roles: Vec<Document>) -> Privileges {
        let reply = doc! {"authInfo": {
            "authenticatedUsers": [{"user": "app", "db": "admin"}],
            "authenticatedUserRoles": roles,
            "authenticatedUserPrivileges": granted,
        }};
        read(&reply).expect("somebody is there")
    }

    fn on(db: &str, collection: &str, actions: &[&str]) -> Document {
        doc! {"resource": {"db": db, "collection": collection}, "actions": actions}
    }

    #[test]
    fn a_right_on_all_covers_one() {
        let crm = Resource::Database("crm".into());
        let users = Resource::Collection("crm".into(), "users".into());
        let oplog = Resource::Collection("local".into(), "oplog.rs".into());
        let given = privileges(vec![on("crm", "", &["find"]), on("crm", "users", &["changeStream"])], vec![]);
        assert!(given.allow("find", &crm) && given.allow("find", &users));
        assert!(!given.allow("changeStream", &crm) && given.allow("changeStream", &users));
        let all = privileges(vec![on("", "", &["find"])], vec![]);
        assert!(
            all.allow("find", &crm) && !all.allow("find", &oplog) && !all.allow("find", &Resource::Cluster)
        );
        let any = doc! {"resource": {"anyResource": true}, "actions": ["anyAction"]};
        let root = privileges(vec![any], vec![]);
        assert!(root.allow("find", &oplog) && root.allow("inprog", &Resource::Cluster));
    }

    #[test]
    fn who_may_change_something_is_told_by_his_role() {
        let reads = privileges(
            vec![on("crm", "", &["find", "changeStream"])],
            vec![doc! {"role": "read", "db": "crm"}],
        );
        assert_eq!(reads.mighty(), None);
        let writes =
            privileges(vec![on("crm", "", &["find", "insert"])], vec![doc! {"role": "ours", "db": "admin"}]);
        assert_eq!(writes.mighty().as_deref(), Some("may do insert"));
        let owner = privileges(vec![on("crm", "", &["insert"])], vec![doc! {"role": "dbOwner", "db": "crm"}]);
        assert_eq!(owner.mighty().as_deref(), Some("has the role dbOwner@crm"));
        let nobody = doc! {"authInfo": {"authenticatedUsers": [], "authenticatedUserPrivileges": []}};
        assert!(read(&nobody).is_none());
    }
}
