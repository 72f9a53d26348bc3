//! Tables and columns that change under our feet, on the real server.

use serde_json::{Value, json};
use slackwater_connectors::error::Kind;
use slackwater_connectors::nocodb::{ChangeStream, Noco, What};
use slackwater_connectors::secret::Secret;
use slackwater_topics::{CollectionId, Position, Range};

use crate::base::{Base, Table, column, followed};
use crate::store::Store;
use crate::target::Target;

async fn two(base: &Base) -> (Table, Table) {
    let columns = || json!([column("Name", "SingleLineText"), column("Size", "Number")]);
    let (one, other) = (base.table("One", columns()).await, base.table("Other", columns()).await);
    for table in [&one, &other] {
        let records: Vec<Value> = (0..5).map(|n| json!({"Name": format!("n{n}"), "Size": n})).collect();
        base.create(table, &records).await;
    }
    (one, other)
}

/// Takes batches until a table stands still for this reason, or none does.
async fn until_stands(target: &mut Target, stream: &mut ChangeStream, what: Option<What>) -> String {
    let troubles = stream.troubles();
    let found = move || troubles.borrow().first().map(|trouble| (trouble.what, trouble.text.clone()));
    let first = found.clone();
    target.until(stream, move |_| first().map(|(found, _)| found) == what).await;
    found().map(|(_, text)| text).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_renamed_or_retyped_stops_its_table_alone() {
    let base = Base::new().await;
    let (one, other) = two(&base).await;
    let tables = vec![followed(0, "One", &["Name", "Size"]), followed(1, "Other", &["Name"])];
    let noco = base.noco().await.remembering(Store::shared(), tables).await.expect("remembers");
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    target.catch_up(&mut stream, &noco).await;
    let size = |title: &str, uidt: &str| json!({"title": title, "column_name": "size", "uidt": uidt});
    let path = format!("meta/columns/{}", one.columns["Size"]);
    let change = |body: Value| base.ask("PATCH", &path, body);
    change(size("Length", "Number")).await;
    let text = until_stands(&mut target, &mut stream, Some(What::Columns)).await;
    assert!(text.contains("table One has no column Size"), "{text}");

    // The other one goes on, and what happens to the first waits.
    base.update(&one, &[json!({"Id": 1, "Name": "first"})]).await;
    base.update(&other, &[json!({"Id": 2, "Name": "second"})]).await;
    let name = |target: &Target, table: u16, id: i64| {
        target.of(table)[&id].get_str("Name").expect("a name").to_owned()
    };
    target.until(&mut stream, |target| name(target, 1, 2) == "second").await;
    assert_eq!(name(&target, 0, 1), "n0");
    // Nobody switches past a table that stands still.
    stream.hurry(std::time::Duration::from_millis(4));
    let mark = noco.mark();
    noco.begin_afresh();
    for _ in 0..5 {
        let batch = tokio::time::timeout(std::time::Duration::from_millis(300), stream.next()).await;
        assert!(batch.is_err() || batch.is_ok_and(|batch| batch.expect("the stream goes on").passed < mark));
    }
    stream.hurry(std::time::Duration::from_millis(500));

    change(size("Size", "Number")).await;
    until_stands(&mut target, &mut stream, None).await;
    target.catch_up(&mut stream, &noco).await;
    assert_eq!(name(&target, 0, 1), "first");

    change(size("Size", "SingleLineText")).await;
    let text = until_stands(&mut target, &mut stream, Some(What::Columns)).await;
    assert!(text.contains("Size of table One has another type"), "{text}");
    assert!(target.deletes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_or_deleted() {
    let base = Base::new().await;
    let (one, other) = two(&base).await;
    let tables = vec![followed(0, "One", &[]), followed(1, &other.id, &[]), followed(2, "Neither", &[])];
    let noco = base.noco().await.remembering(Store::shared(), tables).await.expect("remembers");
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    let text = until_stands(&mut target, &mut stream, Some(What::Missing)).await;
    assert!(text.contains("Neither"), "{text}");
    target.catch_up(&mut stream, &noco).await;
    assert_eq!(target.documents.len(), 10, "the others go on");

    // One of them is known by its title, the other one by its id.
    for (table, title) in [(&one, "Uno"), (&other, "Otro")] {
        let body = json!({"title": title, "table_name": title, "base_id": base.id});
        base.ask("PATCH", &format!("meta/tables/{}", table.id), body).await;
    }
    let text = until_stands(&mut target, &mut stream, Some(What::Renamed)).await;
    assert!(text.contains("One is called Uno now"), "{text}");
    base.update(&other, &[json!({"Id": 1, "Name": "still"})]).await;
    let still = |target: &Target| target.of(1)[&1].get_str("Name").ok() == Some("still");
    target.until(&mut stream, still).await;

    base.ask("DELETE", &format!("meta/tables/{}", other.id), Value::Null).await;
    target.until(&mut stream, |target| !target.dropped.is_empty()).await;
    assert_eq!(target.dropped, [CollectionId(1)]);
    assert!(target.deletes.is_empty(), "a table that is gone deletes no row");
    let troubles = stream.troubles().borrow().clone();
    assert!(troubles.iter().any(|trouble| trouble.collection.0 == 1 && trouble.what == What::Dropped));

    // It is there again under its name: what is in it now is what counts.
    let body = json!({"title": "One", "table_name": "One", "base_id": base.id});
    base.ask("PATCH", &format!("meta/tables/{}", one.id), body).await;
    base.table("Neither", json!([column("Name", "SingleLineText")])).await;
    let stands = stream.troubles();
    target.until(&mut stream, |_| stands.borrow().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_named_at_once() {
    let base = Base::new().await;
    base.table("Interests", json!([column("Name", "SingleLineText")])).await;
    let noco = base.noco().await;
    let error = noco.read_chunk("Intrests", &Range::all(), noco.now(), 1).await.expect_err("no such table");
    assert_eq!((error.kind, error.help.as_deref()), (Kind::Unsuitable, Some("did you mean `Interests`?")));
    assert_eq!(noco.collections().await.expect("a list"), ["Interests"]);

    let mut settings = base.settings();
    settings.token = Secret::new("not a token");
    let error = Noco::connect(&settings).await.expect_err("nobody is let in");
    assert_eq!(error.kind, Kind::Denied);
    let mut settings = base.settings();
    settings.base = "no such base".into();
    assert_eq!(Noco::connect(&settings).await.expect_err("no base").kind, Kind::Unsuitable);
    settings.url = "http://127.0.0.1:9".into();
    assert_eq!(Noco::connect(&settings).await.expect_err("nobody there").kind, Kind::Unreachable);
    settings.url = "nocodb.example".into();
    assert_eq!(Noco::connect(&settings).await.expect_err("no address").kind, Kind::Unsuitable);
}
