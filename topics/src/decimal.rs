//! Numbers without loss: Decimal128 taken apart, and one exact form in which all of MongoDB's numbers compare.

use std::cmp::Ordering;

/// A Decimal128 (binary integer encoding), taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    /// `(-1)^negative × coefficient × 10^exponent`; at most 34 digits.
    Finite {
        /// Below zero, or minus zero.
        negative: bool,
        /// All digits as one integer.
        coefficient: u128,
        /// Power of ten of the last digit.
        exponent: i32,
    },
    /// Plus or minus infinity.
    Infinity {
        /// Minus infinity.
        negative: bool,
    },
    /// Not a number, of either kind.
    NaN,
}

const LARGEST: u128 = 10_u128.pow(34) - 1;
const BIAS: i32 = 6176;

impl Decimal {
    /// From the sixteen bytes of the wire.
    pub fn from_bytes(bytes: &[u8; 16]) -> Self {
        let bits = u128::from_le_bytes(*bytes);
        let negative = bits >> 127 == 1;
        let top = (bits >> 122) & 0b1_1111;
        if top == 0b1_1111 {
            return Self::NaN;
        }
        if top == 0b1_1110 {
            return Self::Infinity { negative };
        }
        // The second form (top two bits set) can only hold coefficients past the largest, which count as zero.
        let (exponent, coefficient) = if (bits >> 125) & 0b11 == 0b11 {
            ((bits >> 111) & 0x3fff, 0)
        } else {
            let coefficient = bits & ((1 << 113) - 1);
            let kept = if coefficient > LARGEST { 0 } else { coefficient };
            ((bits >> 113) & 0x3fff, kept)
        };
        Self::Finite { negative, coefficient, exponent: exponent as i32 - BIAS }
    }
}

/// A finite number in the one form that equal numbers share: sign, digits without zeros at either end, and the power
/// of ten of the point before the first digit. Zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnitude {
    /// Below zero; never set for zero.
    pub negative: bool,
    /// Decimal digits, 0 to 9, most significant first.
    pub digits: Vec<u8>,
    /// The value is `0.digits × 10^point`.
    pub point: i32,
}

impl Magnitude {
    fn new(negative: bool, mut digits: Vec<u8>, exponent: i32) -> Self {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        let point = exponent + digits.len() as i32;
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Self { negative: false, digits, point: 0 };
        }
        Self { negative, digits, point }
    }

    /// From an integer and a power of ten.
    pub fn from_integer(negative: bool, coefficient: u128, exponent: i32) -> Self {
        let digits = coefficient.to_string().bytes().map(|digit| digit - b'0').collect();
        Self::new(negative, digits, exponent)
    }

    /// From a 64-bit integer.
    pub fn from_i64(value: i64) -> Self {
        Self::from_integer(value < 0, u128::from(value.unsigned_abs()), 0)
    }

    /// The exact decimal expansion of a finite double; every double has one.
    pub fn from_f64(value: f64) -> Self {
        let bits = value.to_bits();
        let negative = bits >> 63 == 1;
        let biased = ((bits >> 52) & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, power) =
            if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
        // mantissa × 2^power; a negative power is 5^-power with the point moved, so no division is needed.
        let (factor, exponent) = if power >= 0 { (2, 0) } else { (5, power) };
        let mut limbs =
            vec![(mantissa % 1_000_000_000) as u32, (mantissa / 1_000_000_000 % 1_000_000_000) as u32];
        for _ in 0..power.abs() {
            let mut carry = 0_u64;
            for limb in &mut limbs {
                let product = u64::from(*limb) * factor + carry;
                *limb = (product % 1_000_000_000) as u32;
                carry = product / 1_000_000_000;
            }
            if carry > 0 {
                limbs.push(carry as u32);
            }
        }
        let mut digits = Vec::with_capacity(limbs.len() * 9);
        for limb in limbs.iter().rev() {
            digits.extend(format!("{limb:09}").bytes().map(|digit| digit - b'0'));
        }
        Self::new(negative, digits, exponent)
    }

    /// The number as an `i64`, where it is whole and fits.
    pub fn to_i64(&self) -> Option<i64> {
        if self.point > 19 || self.point < self.digits.len() as i32 {
            return (self.digits.is_empty()).then_some(0);
        }
        let mut value = 0_i128;
        for place in 0..self.point as usize {
            value = value * 10 + i128::from(self.digits.get(place).copied().unwrap_or(0));
        }
        i64::try_from(if self.negative { -value } else { value }).ok()
    }

    /// The double that is exactly this number, where there is one.
    pub fn to_f64(&self) -> Option<f64> {
        let text: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let sign = if self.negative { "-" } else { "" };
        let nearest: f64 = format!("{sign}0.{text}0e{}", self.point).parse().ok()?;
        (nearest.is_finite() && Self::from_f64(nearest) == *self).then_some(nearest)
    }
}

impl PartialOrd for Magnitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Magnitude {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        sign(self).cmp(&sign(other)).then_with(|| {
            let size = self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits));
            if self.negative { size.reverse() } else { size }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        let parsed: bson::Decimal128 = text.parse().expect("a decimal");
        Decimal::from_bytes(&parsed.bytes())
    }

    #[test]
    fn takes_decimals_apart() {
        let finite = |negative, coefficient, exponent| Decimal::Finite { negative, coefficient, exponent };
        assert_eq!(decimal("1.10"), finite(false, 110, -2));
        assert_eq!(decimal("-0"), finite(true, 0, 0));
        assert_eq!(decimal("9999999999999999999999999999999999E6111"), finite(false, LARGEST, 6111));
        assert_eq!(decimal("1E-6176"), finite(false, 1, -6176));
        assert_eq!(decimal("-Infinity"), Decimal::Infinity { negative: true });
        assert_eq!(decimal("NaN"), Decimal::NaN);
    }

    #[test]
    fn doubles_expand_exactly() {
        assert_eq!(Magnitude::from_f64(0.5), Magnitude::from_integer(false, 5, -1));
        assert_eq!(Magnitude::from_f64(-1e15), Magnitude::from_i64(-1_000_000_000_000_000));
        // 0.1 as a double is a little more than a tenth.
        assert!(Magnitude::from_f64(0.1) > Magnitude::from_integer(false, 1, -1));
        assert_eq!(Magnitude::from_f64(f64::MAX).digits.len(), 309);
        assert_eq!(Magnitude::from_f64(5e-324).to_f64(), Some(5e-324));
        assert_eq!(Magnitude::from_f64(-0.0), Magnitude::from_i64(0));
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_come_back(value: i64) {
            proptest::prop_assert_eq!(Magnitude::from_i64(value).to_i64(), Some(value));
        }

        #[test]
        fn doubles_come_back(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            proptest::prop_assert_eq!(Magnitude::from_f64(value).to_f64(), Some(value));
        }

        #[test]
        fn order_is_that_of_the_numbers(a in proptest::num::f64::NORMAL, b in proptest::num::f64::NORMAL) {
            proptest::prop_assert_eq!(Some(Magnitude::from_f64(a).cmp(&Magnitude::from_f64(b))), a.partial_cmp(&b));
        }
    }
}
