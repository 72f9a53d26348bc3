//! Values of documents as Postgres prints them (`column::text`, time zone UTC).

use bson::Bson;

use crate::{Error, Result};

const DAY: i64 = 86_400_000;

/// Year, month and day of a day counted from 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

fn clock(millis: i64) -> (String, i64) {
    let of_day = millis.rem_euclid(DAY);
    let (hours, minutes, seconds) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    (format!("{hours:02}:{minutes:02}:{seconds:02}"), of_day % 1_000)
}

/// `date`.
pub(crate) fn date(millis: i64) -> String {
    let (year, month, day) = civil(millis.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `timestamptz`: zeros at the end of the fraction are left out.
pub(crate) fn timestamp(millis: i64) -> String {
    let (clock, fraction) = clock(millis);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:03}").trim_end_matches('0').into(),
    };
    format!("{} {clock}{fraction}+00", date(millis))
}

/// A date inside jsonb.
pub(crate) fn iso(millis: i64) -> String {
    let (clock, fraction) = clock(millis);
    format!("{}T{clock}.{fraction:03}Z", date(millis))
}

/// A number taken apart: `(-1)^negative × digits × 10^exponent`.
pub(crate) struct Number {
    pub(crate) negative: bool,
    pub(crate) digits: String,
    pub(crate) exponent: i32,
}

impl Number {
    /// From how a number is written: `-12.50`, `1E+3`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, power) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let usable = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let power: i32 = power.trim_start_matches('+').parse().ok()?;
        usable.then(|| Self { negative, digits, exponent: power - fraction.len() as i32 })
    }

    /// Of a value that is a number, or text that is one.
    pub(crate) fn of(value: &Bson) -> Option<Self> {
        match value {
            Bson::Int32(number) => Self::parse(&number.to_string()),
            Bson::Int64(number) => Self::parse(&number.to_string()),
            Bson::Double(number) => Self::parse(&number.to_string()),
            Bson::Decimal128(number) => Self::parse(&number.to_string()),
            Bson::String(text) => Self::parse(text.trim()),
            _ => None,
        }
    }

    /// With digits after the point as they are, or with exactly `scale` of them; half is rounded away from zero.
    pub(crate) fn plain(&self, scale: Option<usize>) -> String {
        let mut digits: Vec<u8> = self.digits.bytes().collect();
        let mut places = 0;
        if self.exponent >= 0 {
            digits.extend(std::iter::repeat_n(b'0', self.exponent as usize));
        } else {
            places = -self.exponent as usize;
        }
        if let Some(scale) = scale {
            if places < scale {
                digits.extend(std::iter::repeat_n(b'0', scale - places));
            }
            while places.max(scale) > scale {
                let last = digits.pop().unwrap_or(b'0');
                places -= 1;
                if places == scale && last >= b'5' {
                    increment(&mut digits);
                }
            }
            places = scale;
        }
        while digits.len() <= places {
            digits.insert(0, b'0');
        }
        let text = String::from_utf8_lossy(&digits).into_owned();
        let (whole, fraction) = text.split_at(text.len() - places);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let zero = text.bytes().all(|digit| digit == b'0');
        let sign = if self.negative && !zero { "-" } else { "" };
        let point = if places > 0 { "." } else { "" };
        format!("{sign}{whole}{point}{fraction}")
    }

    /// One text for all ways to write the same number.
    pub(crate) fn normal(&self) -> String {
        let digits = self.digits.trim_start_matches('0');
        let kept = digits.trim_end_matches('0');
        if kept.is_empty() {
            return "0".into();
        }
        let exponent = self.exponent + (digits.len() - kept.len()) as i32;
        format!("{}{kept}e{exponent}", if self.negative { "-" } else { "" })
    }
}

fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

/// `numeric`, or `numeric(_, scale)`.
pub(crate) fn numeric(value: &Bson, scale: Option<usize>) -> Result<String> {
    let number = Number::of(value)
        .ok_or_else(|| Error::Unexpected(format!("a {:?} is not a number", value.element_type())))?;
    Ok(number.plain(scale))
}

/// `text[]`.
pub(crate) fn array<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = items.into_iter().map(|item| {
        let plain = !item.is_empty()
            && !item.eq_ignore_ascii_case("null")
            && !item.contains(|c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace());
        match plain {
            true => item.to_owned(),
            false => format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_times() {
        assert_eq!(timestamp(1_704_164_645_678), "2024-01-02 03:04:05.678+00");
        assert_eq!(timestamp(1_704_164_645_600), "2024-01-02 03:04:05.6+00");
        assert_eq!(timestamp(-1_000), "1969-12-31 23:59:59+00");
        assert_eq!(date(951_782_400_000), "2000-02-29");
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn prints_numbers() {
        let plain = |text: &str, scale| Number::parse(text).expect("a number").plain(scale);
        assert_eq!(plain("1.10", None), "1.10");
        assert_eq!(plain("1E+3", None), "1000");
        assert_eq!(plain("-0.05", Some(2)), "-0.05");
        assert_eq!(plain("-0.00", None), "0.00");
        assert_eq!(plain("7", Some(2)), "7.00");
        assert_eq!(plain("0.995", Some(2)), "1.00");
        assert_eq!(plain("99.996", Some(2)), "100.00");
        let normal = |text: &str| Number::parse(text).expect("a number").normal();
        assert_eq!(normal("1.10"), normal("11e-1"));
        assert_eq!(normal("-0.0"), "0");
        assert_ne!(normal("12345678901234567890.1"), normal("12345678901234567890.2"));
    }

    #[test]
    fn prints_arrays() {
        assert_eq!(array(["a", "b c", "", "NULL", "q\"\\"]), r#"{a,"b c","","NULL","q\"\\"}"#);
        assert_eq!(array([]), "{}");
    }
}
