use serde_json::json;

use super::*;

/// A cutover with something in every part of the page.
fn cutover() -> Value {
    serde_json::from_str(include_str!("cutover.json")).expect("JSON")
}

#[test]
fn the_page_of_a_cutover() {
    insta::assert_snapshot!("cutover", body(&cutover()));
}

#[test]
fn the_page_of_a_verification() {
    let mut report = cutover();
    let said = report["verification"]["report"].take();
    report["kind"] = "verification".into();
    for (name, value) in said.as_object().expect("an object") {
        report[name] = value.clone();
    }
    report["equal"] = false.into();
    for name in ["steps", "accepted", "warnings", "gap_ms", "open_at", "armed_at"] {
        report[name] = Value::Null;
    }
    insta::assert_snapshot!("verification", body(&report));
}

#[test]
fn little_is_enough() {
    let page = page(&json!({"kind": "cutover", "state": "reverted", "reason": "count_differs: <x>"}));
    assert!(page.contains("The cutover is reverted. count_differs: &lt;x&gt;"), "{page}");
    assert!(page.contains("Nothing was left behind."), "{page}");
    super::page(&Value::Null);
}

#[test]
fn it_is_one_file_without_network() {
    let page = page(&cutover());
    for word in ["http:", "https:", "<script", "<link", "url(", "<img", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("Cutover of crm &lt;live&gt;") && !page.contains("<live>"));
}

/// Without the style, which is a file of its own.
fn body(report: &Value) -> String {
    let page = page(report);
    let (_, body) = page.split_once("</style>").expect("a style");
    body.to_owned()
}

#[test]
fn rows_that_were_verified_before_are_not_exact() {
    let row =
        json!({"rows": null, "verified_rows": 2_416, "verified_at": 1_772_300_060_000_i64, "about_rows": 9});
    assert_eq!(rows_of(&row), (Some(2_416), true));
    assert_eq!(
        about(&row, 2_416),
        "about 2 416, as verified 2026-02-28 17:34:20 UTC".replace("2 416", &html::grouped(2_416))
    );
    let own = json!({"rows": null, "verified_rows": 2_416, "verified_at": null});
    assert_eq!(rows_of(&own), (Some(2_416), false));
    let counted = json!({"rows": 7, "verified_rows": 2_416, "verified_at": 1});
    assert_eq!(rows_of(&counted), (Some(7), false));
}
