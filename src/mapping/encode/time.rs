//! Points in time: `timestamptz`, `timestamp`, `date`, `time`.
//!
//! All in UTC. Postgres counts microseconds (days, for dates) from 2000-01-01; its timestamps end with the year 294276,
//! BSON's milliseconds do not.

use slackwater_topics::Value;

use super::number::{self, Number};
use super::{Fit, Lenient, Problem, Scratch};
use crate::mapping::rejection::Reason;

const MICROS_A_DAY: i128 = 86_400_000_000;
/// 2000-01-01 in days since 1970.
const EPOCH_DAYS: i64 = 10_957;
/// Postgres' first timestamp (4714-11-24 BC), and the first that is too late.
const FIRST: i128 = -211_813_488_000_000_000;
const PAST_LAST: i128 = 9_223_371_331_200_000_000;
/// Postgres' first date, and its last, in days since 2000.
const FIRST_DAY: i128 = -2_451_545;
const LAST_DAY: i128 = 2_147_483_493 - 2_451_545;

/// What a number is when a time is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mapping) enum Unit {
    Seconds,
    Millis,
}

/// A timestamp, with or without zone: both are the same bytes.
pub(super) fn timestamp(
    value: Value<'_>,
    unit: Option<Unit>,
    precision: Option<u8>,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    let micros = rounded(micros(value, unit, scratch)?, precision);
    let kept = micros.clamp(FIRST, PAST_LAST - 1);
    // Rounding must not carry the last moment over the end.
    let kept = if kept == micros { kept } else { cut(kept, precision) };
    let fit = adjusted(kept != micros, lenient)?;
    out.extend_from_slice(&(kept as i64).to_be_bytes());
    Ok(fit)
}

/// The day in UTC.
pub(super) fn date(
    value: Value<'_>,
    unit: Option<Unit>,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    let day = micros(value, unit, scratch)?.div_euclid(MICROS_A_DAY);
    let kept = day.clamp(FIRST_DAY, LAST_DAY);
    let fit = adjusted(kept != day, lenient)?;
    out.extend_from_slice(&(kept as i32).to_be_bytes());
    Ok(fit)
}

/// A time of day: from text, or that of a date.
pub(super) fn time(value: Value<'_>, precision: Option<u8>, out: &mut Vec<u8>) -> Result<Fit, Problem> {
    let micros = match value {
        Value::DateTime(millis) => i128::from(millis).rem_euclid(86_400_000) * 1000,
        Value::String(text) | Value::Symbol(text) => {
            let mut reader = Reader { rest: text.trim_ascii() };
            let time = reader.time_of_day().filter(|_| reader.rest.is_empty());
            time.ok_or_else(|| Problem::new(Reason::Type, "this text is no time of day"))?
        }
        other => return Err(Problem::of_type(&other, "a time of day")),
    };
    out.extend_from_slice(&(rounded(micros, precision) as i64).to_be_bytes());
    Ok(Fit::Exact)
}

fn adjusted(inexact: bool, lenient: Lenient) -> Result<Fit, Problem> {
    match (inexact, lenient) {
        (false, _) => Ok(Fit::Exact),
        (true, Lenient::Clamp) => Ok(Fit::Clamped),
        (true, _) => Err(Problem::new(Reason::Range, "the date is past what Postgres can hold")),
    }
}

/// Half away from zero, as Postgres rounds to `timestamp(p)`.
fn rounded(micros: i128, precision: Option<u8>) -> i128 {
    let Some(step) = step(precision) else { return micros };
    let half = step / 2;
    if micros >= 0 { (micros + half) / step * step } else { -((-micros + half) / step * step) }
}

fn cut(micros: i128, precision: Option<u8>) -> i128 {
    step(precision).map_or(micros, |step| micros / step * step)
}

fn step(precision: Option<u8>) -> Option<i128> {
    precision.filter(|places| *places < 6).map(|places| 10_i128.pow(6 - u32::from(places)))
}

/// Microseconds since 2000.
fn micros(value: Value<'_>, unit: Option<Unit>, scratch: &mut Scratch) -> Result<i128, Problem> {
    let since_1970 = match value {
        Value::DateTime(millis) => i128::from(millis) * 1000,
        Value::Timestamp { seconds, .. } => i128::from(seconds) * 1_000_000,
        // An ObjectId begins with the second in which it was made.
        Value::ObjectId(id) => i128::from(u32::from_be_bytes([id[0], id[1], id[2], id[3]])) * 1_000_000,
        Value::String(text) | Value::Symbol(text) => {
            let text = text.trim_ascii();
            match (parse(text), unit) {
                (Some(micros), _) => micros,
                (None, Some(unit)) => epoch(value, unit, scratch)?,
                (None, None) => {
                    return Err(Problem::new(Reason::Type, "this text is not a date in ISO-8601"));
                }
            }
        }
        Value::Int32(_) | Value::Int64(_) | Value::Double(_) | Value::Decimal128(_) => match unit {
            Some(unit) => epoch(value, unit, scratch)?,
            None => {
                let text = "a number is a date only with `unit: s` or `unit: ms`";
                return Err(Problem::new(Reason::Type, text));
            }
        },
        other => return Err(Problem::of_type(&other, "a date")),
    };
    Ok(since_1970 - i128::from(EPOCH_DAYS) * MICROS_A_DAY)
}

fn epoch(value: Value<'_>, unit: Unit, scratch: &mut Scratch) -> Result<i128, Problem> {
    let places = match unit {
        Unit::Seconds => 6,
        Unit::Millis => 3,
    };
    match number::read(value, scratch)? {
        Number::Whole(number) => Ok(i128::from(number) * 10_i128.pow(places)),
        Number::Digits { negative, exponent } => {
            // Finer than a microsecond is cut off.
            let (whole, _) =
                super::integer::truncated(&scratch.digits, exponent.saturating_add(places as i32));
            let whole = whole.min(i128::MAX / 4);
            Ok(if negative { -whole } else { whole })
        }
        Number::Infinity { .. } | Number::NaN => {
            Err(Problem::new(Reason::Range, "this number is not a date"))
        }
    }
}

/// Days since 1970 of a day of the calendar, which is taken to have always been in use.
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of days since 1970.
fn calendar(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `2024-05-06T07:08:09.123Z`; false, with nothing appended, where the year has no four digits.
pub(super) fn iso_text(millis: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = calendar(millis.div_euclid(86_400_000));
    if !(1..=9999).contains(&year) {
        return false;
    }
    let of_day = millis.rem_euclid(86_400_000);
    let mut digits = |number: i64, width: u32, end: u8| {
        for place in (0..width).rev() {
            out.push(b'0' + (number / 10_i64.pow(place) % 10) as u8);
        }
        out.push(end);
    };
    digits(year, 4, b'-');
    digits(i64::from(month), 2, b'-');
    digits(i64::from(day), 2, b'T');
    digits(of_day / 3_600_000, 2, b':');
    digits(of_day / 60_000 % 60, 2, b':');
    digits(of_day / 1000 % 60, 2, b'.');
    digits(of_day % 1000, 3, b'Z');
    true
}

/// ISO-8601: a day, or a day and a time with or without a zone. Microseconds since 1970; without a zone it is UTC.
pub(in crate::mapping) fn parse(text: &[u8]) -> Option<i128> {
    let mut reader = Reader { rest: text };
    let mut year = i64::from(reader.number(4)?);
    // Years of five and six digits, as Postgres writes them.
    for _ in 0..2 {
        match reader.rest.first() {
            Some(digit) if digit.is_ascii_digit() => year = year * 10 + i64::from(reader.number(1)?),
            _ => break,
        }
    }
    reader.letter(b"-")?;
    let month = reader.number(2)?;
    reader.letter(b"-")?;
    let day = reader.number(2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    // There was no year 0, and Postgres refuses it.
    if year == 0 || day == 0 || day > length {
        return None;
    }
    let midnight = i128::from(days(year, month, day)) * MICROS_A_DAY;
    if reader.rest.is_empty() {
        return Some(midnight);
    }
    reader.letter(b"Tt ")?;
    let time = reader.time_of_day()?;
    let zone = reader.zone()?;
    reader.rest.is_empty().then_some(midnight + time - zone)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn letter(&mut self, allowed: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        if !allowed.contains(first) {
            return None;
        }
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self, width: usize) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(width)?;
        let mut number = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + u32::from(digit - b'0');
        }
        self.rest = rest;
        Some(number)
    }

    /// `07:08`, `07:08:09`, `07:08:09.123456`; 24:00:00 is the end of the day, a second of 60 the next minute.
    fn time_of_day(&mut self) -> Option<i128> {
        let hour = self.number(2)?;
        self.letter(b":")?;
        let minute = self.number(2)?;
        let mut second = 0;
        let mut micros = 0_i128;
        if self.letter(b":").is_some() {
            second = self.number(2)?;
            if self.letter(b".,").is_some() {
                micros = self.fraction()?;
            }
        }
        let whole = i128::from(hour * 3600 + minute * 60 + second) * 1_000_000 + micros;
        let leaps = second < 60 || (second == 60 && micros == 0);
        (hour <= 24 && minute <= 59 && leaps && whole <= MICROS_A_DAY).then_some(whole)
    }

    fn fraction(&mut self) -> Option<i128> {
        let length = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(length).filter(|(digits, _)| !digits.is_empty())?;
        self.rest = rest;
        let place = |at: usize| i128::from(digits.get(at).map_or(0, |digit| digit - b'0'));
        let micros = (0..6).fold(0, |sum, at| sum * 10 + place(at));
        Some(micros + i128::from(place(6) >= 5))
    }

    /// `Z`, `+02:00`, `+0200`, `+02`, or nothing.
    fn zone(&mut self) -> Option<i128> {
        if self.letter(b" ").is_some() && self.rest.is_empty() {
            return None;
        }
        if self.rest.is_empty() || self.letter(b"Zz").is_some() {
            return Some(0);
        }
        let sign = if self.letter(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.number(2)?;
        let colon = self.letter(b":").is_some();
        let minutes = if self.rest.is_empty() && !colon { 0 } else { self.number(2)? };
        (hours <= 15 && minutes <= 59).then(|| sign * i128::from(hours * 60 + minutes) * 60_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_calendar_comes_back(day in -4_000_000_i64..120_000_000) {
            let (year, month, of_month) = calendar(day);
            proptest::prop_assert_eq!(days(year, month, of_month), day);
        }

        #[test]
        fn iso_text_is_read_as_it_was_written(millis in -62_135_596_800_000_i64..253_402_300_800_000) {
            let mut text = Vec::new();
            proptest::prop_assert!(iso_text(millis, &mut text));
            proptest::prop_assert_eq!(parse(&text), Some(i128::from(millis) * 1000));
            let theirs: jiff::Timestamp = std::str::from_utf8(&text).expect("text").parse().expect("a time");
            proptest::prop_assert_eq!(theirs.as_millisecond(), millis);
        }

        #[test]
        fn never_panics(text in "[0-9:.TZ+ -]{0,30}") {
            let _ = parse(text.as_bytes());
            let _ = Reader { rest: text.as_bytes() }.time_of_day();
        }
    }

    #[test]
    fn reads_the_forms_dates_take() {
        let second = |text: &str| parse(text.as_bytes()).map(|micros| micros / 1_000_000);
        assert_eq!(second("1970-01-02"), Some(86_400));
        assert_eq!(second("1970-01-01T00:00:10+00:00"), Some(10));
        assert_eq!(second("1970-01-01 02:00:10+0200"), Some(10));
        assert_eq!(second("1969-12-31T19:00:10-05"), Some(10));
        assert_eq!(second("1970-01-01T24:00:00Z"), Some(86_400));
        assert_eq!(parse(b"1970-01-01T00:00:00.1234567Z"), Some(123_457));
        for wrong in [
            "0000-01-01",
            "2023-02-29",
            "2023-13-01",
            "2023-1-1",
            "01.02.2023",
            "2023-01-01T25:00",
            "",
            "2023-01-01T",
            "2023-01-01x",
            "2023-01-01T00:00:00+",
            "2023-01-01T00:00:00+02:",
        ] {
            assert_eq!(second(wrong), None, "{wrong}");
        }
    }
}
