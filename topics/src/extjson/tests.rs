use proptest::prelude::*;

use super::*;
use crate::value::{Document, Value};

fn text(document: &[u8]) -> (String, Faithful) {
    let mut out = Vec::new();
    let faithful = write(Document::new(document).expect("well formed"), &mut out).expect("well formed");
    (String::from_utf8(out).expect("text"), faithful)
}

/// A document's bytes from those of its elements.
fn framed(elements: &[u8]) -> Vec<u8> {
    let mut raw = (elements.len() as i32 + 5).to_le_bytes().to_vec();
    raw.extend_from_slice(elements);
    raw.push(0);
    raw
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as i32 + 1).to_le_bytes(), text, &[0]].concat()
}

/// One element `x` of a type.
fn single(kind: u8, value: &[u8]) -> Vec<u8> {
    framed(&[&[kind, b'x', 0], value].concat())
}

fn scoped(code: &[u8], scope: &[u8]) -> Vec<u8> {
    let inner = [string(code).as_slice(), scope].concat();
    [&(inner.len() as i32 + 4).to_le_bytes(), inner.as_slice()].concat()
}

fn binary(subtype: u8, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_le_bytes(), [subtype].as_slice(), bytes].concat()
}

#[test]
fn every_type_has_its_text() {
    let id = [0xab; 12];
    let cases: &[(u8, Vec<u8>, &str)] = &[
        (0x01, 1.0_f64.to_le_bytes().into(), r#"{"$numberDouble": "1.0"}"#),
        (0x01, (-0.0_f64).to_le_bytes().into(), r#"{"$numberDouble": "-0.0"}"#),
        (0x01, 1e300_f64.to_le_bytes().into(), r#"{"$numberDouble": "1e300"}"#),
        (0x01, 0.1_f64.to_le_bytes().into(), r#"{"$numberDouble": "0.1"}"#),
        (0x01, f64::NAN.to_le_bytes().into(), r#"{"$numberDouble": "NaN"}"#),
        (0x01, f64::INFINITY.to_le_bytes().into(), r#"{"$numberDouble": "Infinity"}"#),
        (0x01, f64::NEG_INFINITY.to_le_bytes().into(), r#"{"$numberDouble": "-Infinity"}"#),
        (0x02, string("é\"\\\n\u{1}\0/".as_bytes()), r#""é\"\\\n\u0001\u0000/""#),
        (0x03, framed(b"\x0a\0\x0aa.b\0\x0a$c\0"), r#"{"": null,"a.b": null,"$c": null}"#),
        (0x03, framed(b""), "{}"),
        (0x04, framed(b"\x080\0\x01\x0a1\0"), "[true,null]"),
        (0x04, framed(b""), "[]"),
        (0x05, binary(0, &[1, 2]), r#"{"$binary": {"base64": "AQI=","subType": "00"}}"#),
        (0x05, binary(2, &[2, 0, 0, 0, 1, 2]), r#"{"$binary": {"base64": "AQI=","subType": "02"}}"#),
        (0x05, binary(3, &[7; 16]), r#"{"$binary": {"base64": "BwcHBwcHBwcHBwcHBwcHBw==","subType": "03"}}"#),
        (0x05, binary(4, &[7; 16]), r#"{"$binary": {"base64": "BwcHBwcHBwcHBwcHBwcHBw==","subType": "04"}}"#),
        (0x05, binary(0x80, &[]), r#"{"$binary": {"base64": "","subType": "80"}}"#),
        (0x06, vec![], r#"{"$undefined": true}"#),
        (0x07, id.into(), r#"{"$oid": "abababababababababababab"}"#),
        (0x08, vec![1], "true"),
        (0x08, vec![0], "false"),
        (0x09, (-5_i64).to_le_bytes().into(), r#"{"$date": {"$numberLong": "-5"}}"#),
        (0x09, i64::MAX.to_le_bytes().into(), r#"{"$date": {"$numberLong": "9223372036854775807"}}"#),
        (0x0a, vec![], "null"),
        (0x0b, b"a\"b\0ix\0".into(), r#"{"$regularExpression": {"pattern": "a\"b","options": "ix"}}"#),
        (
            0x0c,
            [string(b"d.c"), id.into()].concat(),
            r#"{"$dbPointer": {"$ref": "d.c","$id": {"$oid": "abababababababababababab"}}}"#,
        ),
        (0x0d, string(b"x"), r#"{"$code": "x"}"#),
        (0x0e, string(b"s"), r#"{"$symbol": "s"}"#),
        (0x0f, scoped(b"f", &framed(b"\x0a$oid\0")), r#"{"$code": "f","$scope": {"$oid": null}}"#),
        (0x10, (-3_i32).to_le_bytes().into(), r#"{"$numberInt": "-3"}"#),
        (0x11, [2, 0, 0, 0, 255, 255, 255, 255].into(), r#"{"$timestamp": {"t": 4294967295,"i": 2}}"#),
        (0x12, i64::MIN.to_le_bytes().into(), r#"{"$numberLong": "-9223372036854775808"}"#),
        (
            0x13,
            "-1.10".parse::<bson::Decimal128>().expect("decimal").bytes().into(),
            r#"{"$numberDecimal": "-1.10"}"#,
        ),
        (0xff, vec![], r#"{"$minKey": 1}"#),
        (0x7f, vec![], r#"{"$maxKey": 1}"#),
    ];
    for (kind, value, expected) in cases {
        let raw = single(*kind, value);
        let (text, faithful) = text(&raw);
        assert_eq!(text, format!(r#"{{"x": {expected}}}"#));
        assert_eq!(faithful, Faithful::Yes, "{text}");
        assert_eq!(read(text.as_bytes()).as_ref(), Ok(&raw), "{text}");
    }
}

#[test]
fn what_the_text_cannot_hold_is_told() {
    let cases: &[(u8, Vec<u8>)] = &[
        (0x01, f64::from_bits(0x7ff8_0000_0000_0001).to_le_bytes().into()),
        (0x01, f64::from_bits(0xfff8_0000_0000_0000).to_le_bytes().into()),
        (0x02, string(b"\xff")),
        (0x03, framed(b"\x0a$oid\0")),
        (0x03, framed(b"\x0a$undefined\0\x0ay\0")),
        (0x03, framed(b"\x0a\xff\0")),
        (0x04, framed(b"\x0a1\0")),
        (0x04, framed(b"\x0a0\0\x0a01\0")),
        (0x04, framed(b"\x0a\0")),
        (0x05, binary(2, &[9, 0, 0, 0, 1])),
        (0x05, binary(2, &[1])),
        (0x08, vec![2]),
        (0x0b, b"\xff\0\0".into()),
        (0x0e, string(b"\xc3")),
        (0x0f, [&99_i32.to_le_bytes(), &scoped(b"f", &framed(b""))[4..]].concat()),
        (0x13, u128::MAX.to_le_bytes().into()),
    ];
    for (kind, value) in cases {
        let raw = single(*kind, value);
        let (text, faithful) = text(&raw);
        assert_eq!(faithful, Faithful::No, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON all the same");
        assert_ne!(read(text.as_bytes()), Ok(raw));
    }
}

#[test]
fn keys_keep_their_order_and_stand_twice() {
    let text = r#"{"b": 1,"a": 2,"b": 3,"$oid": {"": {}}}"#;
    let raw = read(text.as_bytes()).expect("a document");
    let names: Vec<_> = Document::new(&raw)
        .expect("well formed")
        .elements()
        .map(|element| element.expect("well formed").0.to_vec())
        .collect();
    assert_eq!(names, [b"b".as_slice(), b"a", b"b", b"$oid"]);
}

#[test]
fn relaxed_text_is_read_and_written() {
    let millis = 1_700_000_000_123_i64.to_le_bytes();
    let seconds = 1_700_000_000_000_i64.to_le_bytes();
    for (kind, value, text) in [
        (0x10, 42_i32.to_le_bytes().as_slice(), "42"),
        (0x12, &3_000_000_000_i64.to_le_bytes(), "3000000000"),
        (0x01, &1.5_f64.to_le_bytes(), "1.5"),
        (0x01, &1e19_f64.to_le_bytes(), "1e19"),
        (0x01, &(-0.0_f64).to_le_bytes(), "-0.0"),
        (0x01, &f64::INFINITY.to_le_bytes(), r#"{"$numberDouble": "Infinity"}"#),
        (0x09, &millis, r#"{"$date": "2023-11-14T22:13:20.123Z"}"#),
        (0x09, &seconds, r#"{"$date": "2023-11-14T22:13:20Z"}"#),
        (0x09, &(-1_i64).to_le_bytes(), r#"{"$date": {"$numberLong": "-1"}}"#),
        (0x09, &253_402_300_800_000_i64.to_le_bytes(), r#"{"$date": {"$numberLong": "253402300800000"}}"#),
    ] {
        let raw = single(kind, value);
        let mut out = Vec::new();
        let read = Document::new(&raw).expect("well formed").get(b"x").expect("well formed").expect("x");
        assert_eq!(write_relaxed(read, &mut out), Ok(Faithful::Yes));
        assert_eq!(String::from_utf8(out).expect("text"), text);
        let mut element = Vec::new();
        assert_eq!(read_value(text.as_bytes(), "x", &mut element), Ok(()), "{text}");
        assert_eq!(framed(&element), raw, "{text}");
    }
    let mut out = Vec::new();
    assert_eq!(write_relaxed(Value::Int64(7), &mut out), Ok(Faithful::No));
    assert_eq!(out, b"7");
}

#[test]
fn other_writers_are_read() {
    let same = [
        (r#" { "x" : [ 1 , 2.0 ] } "#, r#"{"x": [{"$numberInt": "1"},{"$numberDouble": "2.0"}]}"#),
        (
            r#"{"x":{"\u0024oid":"ABABABABABABABABABABABAB"}}"#,
            r#"{"x": {"$oid": "abababababababababababab"}}"#,
        ),
        (r#"{"x":"\u00e9\ud83d\ude00\/"}"#, "{\"x\": \"é😀/\"}"),
        (
            r#"{"x":{"$binary":{"subType":"4","base64":"BwcHBwcHBwcHBwcHBwcHBw=="}}}"#,
            r#"{"x": {"$binary": {"base64": "BwcHBwcHBwcHBwcHBwcHBw==","subType": "04"}}}"#,
        ),
        (
            r#"{"x":{"$uuid":"07070707-0707-0707-0707-070707070707"}}"#,
            r#"{"x": {"$binary": {"base64": "BwcHBwcHBwcHBwcHBwcHBw==","subType": "04"}}}"#,
        ),
        (r#"{"x":{"$timestamp":{"i":2,"t":1}}}"#, r#"{"x": {"$timestamp": {"t": 1,"i": 2}}}"#),
        (r#"{"x":{"$date":"1970-01-01T01:00:00+01:00"}}"#, r#"{"x": {"$date": {"$numberLong": "0"}}}"#),
        (r#"{"x":{"$ref":"c","$id":1}}"#, r#"{"x": {"$ref": "c","$id": {"$numberInt": "1"}}}"#),
    ];
    for (theirs, ours) in same {
        let raw = read(theirs.as_bytes()).expect(theirs);
        assert_eq!(text(&raw), (ours.to_owned(), Faithful::Yes));
    }
}

#[test]
fn broken_text_is_refused_where_it_breaks() {
    for (text, at) in [
        ("", 0),
        ("[]", 0),
        ("{", 1),
        ("{}x", 2),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":[1,]}"#, 8),
        (r#"{,"a":1}"#, 1),
        (r#"{"a" 1}"#, 5),
        (r#"{"a":01}"#, 5),
        (r#"{"a":-}"#, 5),
        (r#"{"a":1.}"#, 5),
        (r#"{"a":tru}"#, 5),
        (r#"{"a":NaN}"#, 5),
        (r#"{"a":1e999}"#, 5),
        (r#"{"a":1e}"#, 5),
        (r#"{"a":-.5}"#, 5),
        (r#"{"a":+5}"#, 5),
        (r#"{"a":1.e5}"#, 5),
        (r#"{"a":"x}"#, 8),
        (r#"{"a":"\x"}"#, 6),
        (r#"{"a":"\ud800x"}"#, 12),
        (r#"{"a":"\ud800\u0041"}"#, 18),
        (r#"{"a":"\u+041"}"#, 6),
        (r#"{"\u0000":1}"#, 9),
        (r#"{"a":{"$oid":"00"}}"#, 17),
        (r#"{"a":{"$oid":"abababababababababababab","b":1}}"#, 39),
        (r#"{"a":{"$numberInt":"2147483648"}}"#, 31),
        (r#"{"a":{"$numberInt":1}}"#, 19),
        (r#"{"a":{"$numberDouble":"inf"}}"#, 27),
        (r#"{"a":{"$scope":{},"$code":"x"}}"#, 15),
        (r#"{"a":{"$timestamp":{"t":1,"t":1}}}"#, 29),
        (r#"{"a":{"$binary":{"base64":"A","subType":"00"}}}"#, 29),
    ] {
        let error = read(text.as_bytes()).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
    }
    assert_eq!(read(b"{\"a\":\"\xff\"}"), Err(Unreadable { at: 6, expected: "UTF-8" }));
    assert_eq!(
        read(b"{\"a\" 1}").expect_err("no colon").to_string(),
        "the extended JSON is broken at byte 5: expected a colon"
    );
}

#[test]
fn nesting_takes_no_stack() {
    let levels = 100_000;
    for (open, close) in [(r#"{"a": "#, "}"), ("[", "]"), (r#"{"$code": "f","$scope": {"a": "#, "}}")] {
        let mut deep = String::from(r#"{"x": "#);
        deep.push_str(&open.repeat(levels));
        deep.push_str("null");
        deep.push_str(&close.repeat(levels));
        deep.push('}');
        let raw = read(deep.as_bytes()).expect("deep");
        assert_eq!(text(&raw), (deep, Faithful::Yes));
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z.$]{0,4}".prop_map(String::into_bytes),
        1 => Just(b"_id".to_vec()),
        1 => proptest::sample::select(WRAPPERS.to_vec()).prop_map(<[u8]>::to_vec),
        1 => "[^\\x00]{0,6}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(1_u8.., 0..4),
    ]
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => ".{0,12}".prop_map(String::into_bytes), 1 => proptest::collection::vec(any::<u8>(), 0..6)]
}

/// Type and bytes of any value, odd ones among them.
fn any_value() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let fixed = |kind: u8, length: usize| {
        proptest::collection::vec(any::<u8>(), length).prop_map(move |bytes| (kind, bytes)).boxed()
    };
    let cstring = || proptest::collection::vec(1_u8.., 0..5);
    let leaf = prop_oneof![
        any::<f64>().prop_map(|value| (0x01, value.to_le_bytes().to_vec())),
        fixed(0x01, 8),
        words().prop_map(|text| (0x02, string(&text))),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(subtype, bytes)| (0x05, binary(subtype % 6, &bytes))),
        fixed(0x07, 12),
        (0_u8..3).prop_map(|value| (0x08, vec![value])),
        fixed(0x09, 8),
        proptest::sample::select(vec![0x06, 0x0a, 0x7f, 0xff]).prop_map(|kind| (kind, vec![])),
        (cstring(), "[a-z]{0,3}").prop_map(|(pattern, options)| {
            (0x0b, [pattern.as_slice(), &[0], options.as_bytes(), &[0]].concat())
        }),
        (words(), any::<[u8; 12]>()).prop_map(|(text, id)| (0x0c, [string(&text), id.to_vec()].concat())),
        words().prop_map(|text| (0x0d, string(&text))),
        words().prop_map(|text| (0x0e, string(&text))),
        fixed(0x10, 4),
        fixed(0x11, 8),
        fixed(0x12, 8),
        fixed(0x13, 16),
        any::<u64>().prop_map(|number| {
            let decimal: bson::Decimal128 = format!("{number}E-7").parse().expect("a decimal");
            (0x13, decimal.bytes().to_vec())
        }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            elements(inner.clone()).prop_map(|raw| (0x03, raw)),
            elements(inner.clone()).prop_map(|raw| (0x04, raw)),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| {
                let elements: Vec<u8> = values
                    .into_iter()
                    .enumerate()
                    .flat_map(|(index, (kind, value))| {
                        [&[kind], index.to_string().as_bytes(), &[0], &value].concat()
                    })
                    .collect();
                (0x04, framed(&elements))
            }),
            (words(), elements(inner)).prop_map(|(code, scope)| (0x0f, scoped(&code, &scope))),
        ]
    })
}

/// A document of any values.
pub(crate) fn any_document() -> impl Strategy<Value = Vec<u8>> {
    elements(any_value())
}

fn elements(value: impl Strategy<Value = (u8, Vec<u8>)>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((name(), value), 0..4).prop_map(|fields| {
        let elements: Vec<u8> = fields
            .into_iter()
            .flat_map(|(name, (kind, value))| [&[kind], name.as_slice(), &[0], &value].concat())
            .collect();
        framed(&elements)
    })
}

fn ordinary() -> impl Strategy<Value = bson::Document> {
    use bson::Bson;
    let leaf = prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>().prop_map(Bson::Double),
        ".{0,20}".prop_map(Bson::String),
        any::<bool>().prop_map(Bson::Boolean),
        any::<[u8; 12]>().prop_map(|id| bson::oid::ObjectId::from_bytes(id).into()),
        any::<i64>().prop_map(|millis| bson::DateTime::from_millis(millis).into()),
        (any::<i64>(), -30_i32..30).prop_map(|(number, exponent)| {
            Bson::Decimal128(format!("{number}E{exponent}").parse().expect("a decimal"))
        }),
        (any::<u32>(), any::<u32>())
            .prop_map(|(time, increment)| Bson::Timestamp(bson::Timestamp { time, increment })),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| {
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes })
        }),
        proptest::sample::select(vec![Bson::Null, Bson::MinKey, Bson::MaxKey, Bson::Undefined]),
        "[a-z]{0,9}".prop_map(Bson::JavaScriptCode),
        "[a-z]{0,9}".prop_map(Bson::Symbol),
    ];
    let fields = |value| {
        proptest::collection::vec(("[a-z.]{0,6}", value), 0..5)
            .prop_map(|fields| fields.into_iter().collect::<bson::Document>())
    };
    let value = leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
            fields(inner).prop_map(Bson::Document),
        ]
    });
    proptest::collection::vec(("[a-z.]{0,6}", value), 0..5).prop_map(|fields| fields.into_iter().collect())
}

/// The driver's text of doubles differs: `1E+300` for `1e300`, and zero and the smallest as bare numbers.
fn doubles_alike(value: &mut serde_json::Value) {
    let wrapper = |value: f64| serde_json::json!({"$numberDouble": format!("{value:?}")});
    match value {
        serde_json::Value::Object(fields) => {
            if let Some(serde_json::Value::String(number)) = fields.get("$numberDouble") {
                *value = wrapper(number.parse().expect("a number"));
                return;
            }
            fields.values_mut().for_each(doubles_alike);
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(doubles_alike),
        serde_json::Value::Number(number) if number.is_f64() => {
            *value = wrapper(number.as_f64().expect("a double"));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Faithful is exactly what comes back, and the text is JSON in any case.
    #[test]
    fn faithful_text_comes_back(raw in any_document()) {
        let (text, faithful) = text(&raw);
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        match faithful {
            Faithful::Yes => prop_assert_eq!(read(text.as_bytes()), Ok(raw), "{}", text),
            Faithful::No => prop_assert_ne!(read(text.as_bytes()), Ok(raw), "{}", text),
        }
    }

    #[test]
    fn is_what_the_driver_says(document in ordinary()) {
        let raw = document.to_vec().expect("a document");
        let (text, faithful) = text(&raw);
        prop_assert_eq!(faithful, Faithful::Yes, "{}", text);
        prop_assert_eq!(read(text.as_bytes()), Ok(raw));
        let alike = |mut text: serde_json::Value| {
            doubles_alike(&mut text);
            text
        };
        let theirs = bson::Bson::Document(document).into_canonical_extjson();
        let ours = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(alike(ours), alike(theirs.clone()));
        // What others write is read to the same document.
        let back = read(theirs.to_string().as_bytes()).expect("readable");
        let back = bson::Document::from_reader(back.as_slice()).expect("well formed");
        prop_assert_eq!(alike(bson::Bson::Document(back).into_canonical_extjson()), alike(theirs));
    }

    #[test]
    fn single_values_come_back((kind, value) in any_value()) {
        let raw = single(kind, &value);
        let value = Document::new(&raw).expect("well formed").get(b"x").expect("well formed").expect("x");
        let mut text = Vec::new();
        let mut element = Vec::new();
        if write_value(value, &mut text) == Ok(Faithful::Yes) {
            prop_assert_eq!(read_value(&text, "x", &mut element), Ok(()));
            // A boolean's odd byte cannot be seen in the value alone.
            if kind != 0x08 && kind != 0x0f {
                prop_assert_eq!(framed(&element), raw);
            }
        }
    }

    /// Whatever the text, the reader ends, and what it reads is well formed.
    #[test]
    fn never_panics(text in "[\\[\\]{}:,\"$oidcoe1-9.truenl\\\\ ]{0,60}", cut in 0_usize..60) {
        let _ = read(text.as_bytes()).map(|raw| Document::new(&raw).expect("well formed").elements().count());
        let sample = br#"{"a": {"$binary": {"base64": "AQI=","subType": "00"}},"b": ["\u00e9",-1.5e3]}"#;
        prop_assert!(read(&sample[..cut]).is_err());
    }
}
