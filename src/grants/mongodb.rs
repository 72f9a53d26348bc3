//! What is asked of MongoDB. A change stream over a database needs its two rights on the whole database, so they cannot be
//! narrowed down to the mapped collections.

use serde_json::json;
use slackwater_connectors::mongodb::Resource;

use crate::config::Freeze;

/// Lets the switch stop the writers.
pub(crate) const FREEZE: &str = "setUserWriteBlockMode";

/// A right that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) resource: Resource,
    pub(crate) action: &'static str,
    /// What for.
    pub(crate) why: &'static str,
    /// Without it something is not shown, and nothing else is wrong.
    pub(crate) optional: bool,
}

/// What is needed of a source's server.
pub(crate) fn needs(database: &str, freeze: &Freeze) -> Vec<Need> {
    let whole = || Resource::Database(database.to_owned());
    let need = |resource, action, why| Need { resource, action, why, optional: false };
    let shown = |resource, action, why| Need { resource, action, why, optional: true };
    let oplog = Resource::Collection("local".into(), "oplog.rs".into());
    let mut needs = vec![
        need(
            whole(),
            "find",
            "the copy, look-ups and counts; a change stream needs it on the whole database",
        ),
        need(whole(), "changeStream", "following the changes"),
        need(whole(), "listCollections", "what each collection is like, and whether one was forgotten"),
        shown(oplog, "find", "how far back the history reaches, for `check` and `status`"),
    ];
    match freeze {
        Freeze::BlockWrites => needs.extend([
            need(Resource::Cluster, FREEZE, "the switch: stopping the writers"),
            shown(Resource::Cluster, "serverStatus", "the switch: whether they are still stopped"),
            shown(
                Resource::Cluster,
                "inprog",
                "the switch: open transactions, for which stopping the writers would wait",
            ),
        ]),
        Freeze::ByHand | Freeze::Command { .. } => needs.push(shown(
            Resource::Cluster,
            "appendOplogNote",
            "the switch: marking the time at which others have stopped the writers",
        )),
    }
    needs
}

/// The rights on a source's server, for a role in `admin`, and a user who has it.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) source: String,
    pub(super) database: String,
    pub(super) role: String,
    pub(super) user: String,
    pub(super) needs: Vec<Need>,
}

impl Grant {
    /// Each resource once, with what is done to it.
    pub(super) fn by_resource(&self) -> Vec<(&Resource, Vec<&Need>)> {
        let mut resources: Vec<(&Resource, Vec<&Need>)> = Vec::new();
        for need in &self.needs {
            match resources.iter_mut().find(|(resource, _)| **resource == need.resource) {
                Some((_, needs)) => needs.push(need),
                None => resources.push((&need.resource, vec![need])),
            }
        }
        resources
    }

    /// The two commands are for the database `admin`. A password has to be added to the second one.
    pub(super) fn json(&self) -> serde_json::Value {
        let privileges = self.by_resource().into_iter().map(|(resource, needs)| {
            json!({ "resource": document(resource), "actions": needs.iter().map(|need| need.action).collect::<Vec<_>>() })
        });
        let needs = self.needs.iter().map(|need| {
            json!({ "resource": document(&need.resource), "action": need.action, "for": need.why, "optional": need.optional })
        });
        json!({
            "source": self.source,
            "database": self.database,
            "role": self.role,
            "user": self.user,
            "commands": [
                { "createRole": self.role, "privileges": privileges.collect::<Vec<_>>(), "roles": [] },
                { "createUser": self.user, "roles": [{ "role": self.role, "db": "admin" }] },
            ],
            "rights": needs.collect::<Vec<_>>(),
        })
    }
}

/// As MongoDB's commands take it.
fn document(resource: &Resource) -> serde_json::Value {
    match resource {
        Resource::Cluster => json!({ "cluster": true }),
        Resource::Database(database) => json!({ "db": database, "collection": "" }),
        Resource::Collection(database, collection) => json!({ "db": database, "collection": collection }),
    }
}

/// As a person writes it for `mongosh`.
pub(super) fn words(resource: &Resource) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    match resource {
        Resource::Cluster => "{ cluster: true }".to_owned(),
        Resource::Database(database) => format!("{{ db: {}, collection: \"\" }}", text(database)),
        Resource::Collection(database, collection) => {
            format!("{{ db: {}, collection: {} }}", text(database), text(collection))
        }
    }
}

/// The command that adds one right to a role, for `mongosh`.
pub(crate) fn remedy(need: &Need) -> String {
    let resource = words(&need.resource);
    let privilege = format!("{{ resource: {resource}, actions: [\"{}\"] }}", need.action);
    format!(
        "in `admin`: db.grantPrivilegesToRole(\"…\", [{privilege}]); `slackwater grants FILE` prints the whole role"
    )
}
