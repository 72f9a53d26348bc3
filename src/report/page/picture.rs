//! The steps of a cutover as a picture: a bar a step on an axis of time, with the freeze marked. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::html::{escape, plain, took};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 70.0;
const ROW: f64 = 24.0;
const TOP: f64 = 26.0;
/// So many marks on the axis, or a few more.
const MARKS: f64 = 6.0;

/// A step, in milliseconds on some axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) took: f64,
}

/// The whole run, with the moment of the freeze, and the freeze alone. Times count from the first step in the one, from the freeze in the
/// other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Steps {
    pub(super) whole: Vec<Bar>,
    pub(super) frozen: Vec<Bar>,
    pub(super) frozen_from: Option<f64>,
}

/// Reads them from the report's list. One that an older program has written has no times from the start.
pub(super) fn steps(list: &[Value]) -> Steps {
    let bar = |step: &Value, from: f64| Bar {
        name: plain(&step["step"]),
        from,
        took: step["took_ms"].as_f64().unwrap_or_default(),
    };
    let start = |step: &Value| step["from_start_ms"].as_f64();
    let frozen: Vec<Bar> = list
        .iter()
        .filter_map(|step| Some(bar(step, step["at_ms"].as_f64().filter(|at| *at >= 0.0)?)))
        .collect();
    let whole: Vec<Bar> = list.iter().filter_map(|step| Some(bar(step, start(step)?))).collect();
    let frozen_from = list.iter().find_map(|step| Some(start(step)? - step["at_ms"].as_f64()?));
    let first = whole.iter().map(|bar| bar.from).chain(frozen_from).fold(f64::INFINITY, f64::min);
    Steps {
        whole: whole.into_iter().map(|bar| Bar { from: bar.from - first, ..bar }).collect(),
        frozen,
        frozen_from: frozen_from.map(|from| from - first),
    }
}

/// The bars, from `0` to the last end. `frozen`: from when to when nobody could write to the source.
pub(super) fn svg(bars: &[Bar], frozen: Option<(f64, f64)>, about: &str) -> String {
    let ends = bars.iter().map(|bar| bar.from + bar.took).chain(frozen.map(|(_, to)| to));
    let end = ends.fold(1.0_f64, f64::max);
    let height = TOP + ROW * bars.len() as f64 + 8.0;
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n",
        escape(about)
    );
    if let Some((from, to)) = frozen {
        let width = (x(to) - x(from)).max(2.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{TOP:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"#f6d3cf\"/>",
            x(from),
            height - TOP
        );
    }
    let step = round_step(end / MARKS);
    let mut mark = 0.0;
    while mark <= end {
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" y1=\"{TOP:.0}\" x2=\"{0:.1}\" y2=\"{height:.0}\" stroke=\"#dde4ea\"/>\
             <text class=soft x=\"{0:.1}\" y=\"{1:.0}\" text-anchor=\"middle\">{2}</text>",
            x(mark),
            TOP - 8.0,
            label(mark, end)
        );
        mark += step;
    }
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * row as f64 + 4.0;
        let (from, width) = (x(bar.from), (x(bar.from + bar.took) - x(bar.from)).max(2.0));
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{from:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"#2f6f99\"/>\
             <text class=soft x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            LEFT - 10.0,
            y + 13.0,
            escape(&bar.name),
            ROW - 8.0,
            from + width + 6.0,
            y + 13.0,
            took(bar.took)
        );
    }
    svg + "</svg>\n"
}

/// The next of 1, 2, 5, 10, 20, …
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(0.001).log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

fn label(at: f64, end: f64) -> String {
    match end {
        _ if at == 0.0 => "0".to_owned(),
        _ if end < 2_000.0 => format!("{} ms", (at * 100.0).round() / 100.0),
        _ => format!("{} s", (at / 10.0).round() / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_count_from_the_first_step() {
        let list = [
            json!({"step": "preflight", "from_start_ms": 20.0, "took_ms": 100.0, "at_ms": null}),
            json!({"step": "freeze", "from_start_ms": 520.0, "took_ms": 10.0, "at_ms": 0.0}),
            json!({"step": "open", "from_start_ms": 540.0, "took_ms": 5.0, "at_ms": 20.0}),
        ];
        let steps = steps(&list);
        assert_eq!(steps.whole.iter().map(|bar| bar.from).collect::<Vec<_>>(), [0.0, 500.0, 520.0]);
        assert_eq!(steps.frozen.iter().map(|bar| bar.from).collect::<Vec<_>>(), [0.0, 20.0]);
        assert_eq!(steps.frozen_from, Some(500.0));
    }

    #[test]
    fn a_freeze_that_another_process_began_comes_first() {
        let steps =
            steps(&[json!({"step": "freeze", "from_start_ms": 100.0, "took_ms": 1.0, "at_ms": 400.0})]);
        assert_eq!((steps.whole[0].from, steps.frozen_from), (400.0, Some(0.0)));
        assert_eq!(super::steps(&[json!({"step": "freeze"})]), Steps::default());
    }

    #[test]
    fn marks_are_round() {
        assert_eq!([0.3, 1.0, 12.0, 34.0, 700.0].map(round_step), [0.5, 1.0, 20.0, 50.0, 1000.0]);
        assert_eq!([label(0.0, 9.0), label(0.5, 9.0), label(1_500.0, 9_000.0)], ["0", "0.5 ms", "1.5 s"]);
        let svg = svg(&[Bar { name: "<a>".into(), from: 0.0, took: 0.0 }], None, "x");
        assert!(svg.contains("&lt;a&gt;") && svg.contains("width=\"2.0\""), "{svg}");
    }
}
