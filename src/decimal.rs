//! Decimal numbers without loss, as large as either side of a check may have them: read from text, compared, subtracted, multiplied.

use std::cmp::Ordering;
use std::fmt;

/// Powers of ten beyond this are no numbers of anybody's: Postgres itself stops at 131 072 digits.
const MOST: i32 = 140_000;
/// Numbers with more zeros than this at either end are shown with an exponent.
const SHOWN: i32 = 40;

/// `digits × 10^exponent`, with no zero at either end of the digits. Zero has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i32,
}

impl Decimal {
    fn new(negative: bool, mut digits: Vec<u8>, mut exponent: i32) -> Self {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        while digits.last() == Some(&0) {
            digits.pop();
            exponent += 1;
        }
        if digits.is_empty() {
            return Self::default();
        }
        Self { negative, digits, exponent }
    }

    /// Of text: `12`, `-0.50`, `1.5e-7`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (number, power) = match rest.split_once(['e', 'E']) {
            Some((number, power)) => (number, power.parse::<i32>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: Vec<u8> =
            whole.bytes().chain(fraction.bytes()).map(|byte| byte.wrapping_sub(b'0')).collect();
        if digits.is_empty() || digits.iter().any(|digit| *digit > 9) {
            return None;
        }
        let exponent = power.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let length = i32::try_from(digits.len()).ok()?;
        let fits = exponent.abs() <= MOST && length <= 2 * MOST;
        fits.then(|| Self::new(negative, digits, exponent))
    }

    /// Without its sign.
    #[must_use]
    pub fn abs(&self) -> Self {
        Self { negative: false, ..self.clone() }
    }

    /// Below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Times a power of ten.
    #[must_use]
    pub fn shifted(&self, power: i32) -> Self {
        if self.digits.is_empty() {
            return Self::default();
        }
        Self { exponent: self.exponent + power, ..self.clone() }
    }

    /// How far apart two numbers are.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Self {
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.at(exponent), other.at(exponent));
        let length = a.len().max(b.len()) + 1;
        let (a, b) = (padded(&a, length), padded(&b, length));
        let digits = if self.negative != other.negative {
            added(&a, &b)
        } else if a >= b {
            subtracted(&a, &b)
        } else {
            subtracted(&b, &a)
        };
        Self::new(false, digits, exponent)
    }

    /// The product.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        let mut places = vec![0_u64; self.digits.len() + other.digits.len()];
        for (i, a) in self.digits.iter().rev().enumerate() {
            for (j, b) in other.digits.iter().rev().enumerate() {
                places[i + j] += u64::from(*a) * u64::from(*b);
            }
        }
        let mut carry = 0;
        let mut digits: Vec<u8> = places
            .into_iter()
            .map(|place| {
                let sum = place + carry;
                carry = sum / 10;
                (sum % 10) as u8
            })
            .collect();
        digits.reverse();
        Self::new(self.negative != other.negative, digits, self.exponent + other.exponent)
    }

    /// All digits from this power of ten on, which is at or below our own.
    fn at(&self, exponent: i32) -> Vec<u8> {
        let zeros = usize::try_from(self.exponent - exponent).unwrap_or(0);
        let mut digits = self.digits.clone();
        if !digits.is_empty() {
            digits.extend(std::iter::repeat_n(0, zeros));
        }
        digits
    }

    /// The power of ten of the place before the first digit.
    fn point(&self) -> i32 {
        self.exponent + self.digits.len() as i32
    }

    fn size(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            // No zero is at the end, so the longer one is the larger one.
            (false, false) => self.point().cmp(&other.point()).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.size(other),
            (true, true) => other.size(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    /// As people write it; the same text for the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let text: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let point = self.point();
        if self.exponent > SHOWN || point < -SHOWN {
            return write!(f, "{text}e{}", self.exponent);
        }
        if self.exponent >= 0 {
            return write!(f, "{text}{}", "0".repeat(self.exponent.unsigned_abs() as usize));
        }
        match usize::try_from(point) {
            Ok(whole) if whole > 0 => write!(f, "{}.{}", &text[..whole], &text[whole..]),
            _ => write!(f, "0.{}{text}", "0".repeat(point.unsigned_abs() as usize)),
        }
    }
}

fn padded(digits: &[u8], length: usize) -> Vec<u8> {
    let mut padded = vec![0; length - digits.len()];
    padded.extend_from_slice(digits);
    padded
}

fn added(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut sum: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(a, b)| {
            let place = a + b + carry;
            carry = place / 10;
            place % 10
        })
        .collect();
    sum.reverse();
    sum
}

/// The first is not the smaller one.
fn subtracted(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut rest: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(a, b)| {
            let taken = b + borrow;
            borrow = u8::from(*a < taken);
            a + 10 * borrow - taken
        })
        .collect();
    rest.reverse();
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("no number: {text}"))
    }

    #[test]
    fn equal_numbers_have_one_form() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("12.50", "12.5"),
            ("+1200", "1200"),
            ("1.2E3", "1200"),
            ("-0.0005", "-0.0005"),
            ("5e-4", "0.0005"),
            (".5", "0.5"),
            ("7.", "7"),
            ("1e60", "1e60"),
            ("123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
        ] {
            assert_eq!(number(text).to_string(), shown, "{text}");
            assert_eq!(number(shown), number(text));
        }
        for text in ["", "-", ".", "e5", "1e", "1,5", "0x1", "NaN", "Infinity", "1 ", "1e999999999"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_ordered() {
        let ordered = ["-100", "-99.9", "-0.001", "0", "0.0001", "0.001", "1", "1.01", "9", "10", "1e30"];
        for (place, text) in ordered.iter().enumerate() {
            for (other, against) in ordered.iter().enumerate() {
                assert_eq!(number(text).cmp(&number(against)), place.cmp(&other), "{text} {against}");
            }
        }
    }

    #[test]
    fn how_far_apart_and_how_much() {
        for (a, b, apart) in [
            ("0.3", "0.1", "0.2"),
            ("0.1", "0.3", "0.2"),
            ("-1", "1", "2"),
            ("-5", "-7.5", "2.5"),
            ("999.99", "0.01", "999.98"),
            ("-999.99", "0.01", "1000"),
            ("1e20", "1", "99999999999999999999"),
            ("4", "4.00", "0"),
        ] {
            assert_eq!(number(a).distance(&number(b)), number(apart), "{a} {b}");
        }
        for (a, b, product) in
            [("1.5", "-2", "-3"), ("0", "7", "0"), ("99", "99", "9801"), ("0.01", "0.01", "0.0001")]
        {
            assert_eq!(number(a).times(&number(b)), number(product), "{a} {b}");
        }
        assert_eq!(number("1.5").shifted(2), number("150"));
    }

    /// Against arithmetic that the machine does.
    #[test]
    fn agrees_with_integers() {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((seed >> 33) as i64 - (1 << 30)) * i64::from(!(seed >> 5).is_multiple_of(3))
        };
        for _ in 0..2_000 {
            let (a, b) = (next(), next());
            let (x, y) = (number(&a.to_string()), number(&b.to_string()));
            assert_eq!(x.distance(&y), number(&a.abs_diff(b).to_string()), "{a} {b}");
            assert_eq!(x.times(&y), number(&(i128::from(a) * i128::from(b)).to_string()), "{a} {b}");
            assert_eq!(x.cmp(&y), a.cmp(&b), "{a} {b}");
        }
    }
}
