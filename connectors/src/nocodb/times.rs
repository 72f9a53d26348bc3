//! Times as NocoDB and HTTP write them.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// `2026-11-28 22:57:43+00:00`, with or without an offset (it is UTC then): milliseconds since 1970.
pub(super) fn millis(text: &str) -> Option<i64> {
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        let plain: jiff::civil::DateTime = text.parse().ok()?;
        plain.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    });
    time.map(Timestamp::as_millisecond)
}

/// As a filter wants it: `2026-11-28 22:57:43+00:00`.
pub(super) fn filter(seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%Y-%m-%d %H:%M:%S+00:00").to_string())
}

/// `Sat, 28 Nov 2026 22:57:45 GMT`: seconds since 1970.
pub(super) fn http(text: &str) -> Option<i64> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_server_writes() {
        assert_eq!(millis("1970-01-02 00:00:01+00:00"), Some(86_401_000));
        assert_eq!(millis("1970-01-01 02:00:00.5+02:00"), Some(500));
        assert_eq!(millis("1970-01-01T00:00:01Z"), Some(1_000));
        assert_eq!(millis("1970-01-01 00:00:01"), Some(1_000));
        assert_eq!(millis("yesterday"), None);
        assert_eq!(filter(86_401).as_deref(), Some("1970-01-02 00:00:01+00:00"));
        assert_eq!(http("Fri, 02 Jan 1970 00:00:01 GMT"), Some(86_401));
    }
}
