//! Which partitions a group has left without a reader.
//!
//! A member that keeps its name may be killed between the two halves of a rebalance: it has let partitions go, and nobody has been given
//! them yet. When it comes back, the broker knows the name and hands it the smaller share without a new rebalance. From then on the group
//! is at peace, and nobody reads what was let go. In the same way all members that come back with other topics may be handed their former
//! shares. So members look now and then whether the shares are the whole.

use std::collections::BTreeSet;
use std::sync::Arc;

/// What one member reads.
pub(super) type Share = Vec<(String, i32)>;

/// What a member reads, as the broker keeps it: a version, then topics with their partitions. `None` where it is written otherwise.
pub(super) fn read(assignment: &[u8]) -> Option<Share> {
    let mut rest = assignment;
    number::<2>(&mut rest)?;
    let mut share = Share::new();
    for _ in 0..number::<4>(&mut rest)? {
        let length = usize::try_from(number::<2>(&mut rest)?).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let name = std::str::from_utf8(name).ok()?;
        for _ in 0..number::<4>(&mut rest)? {
            share.push((name.to_owned(), number::<4>(&mut rest)?));
        }
    }
    Some(share)
}

fn number<const BYTES: usize>(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, after) = rest.split_first_chunk::<BYTES>()?;
    *rest = after;
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
    Some(bytes.iter().fold(sign, |number, byte| (number << 8) | i32::from(*byte)))
}

/// What of the shares counts. A member that comes back with other topics may have been given its former share.
pub(super) fn only(shares: &mut [Share], topics: &[(Arc<str>, u32)]) {
    let counts = |name: &str, number: i32| {
        topics.iter().any(|(topic, partitions)| **topic == *name && (0..*partitions as i32).contains(&number))
    };
    shares.iter_mut().for_each(|share| share.retain(|(topic, number)| counts(topic, *number)));
}

/// The partitions, of those that count, which are in no share.
pub(super) fn unread(shares: &[Share], topics: &[(Arc<str>, u32)]) -> Vec<(Arc<str>, i32)> {
    let given: BTreeSet<(&str, i32)> =
        shares.iter().flatten().map(|(topic, number)| (topic.as_str(), *number)).collect();
    let all = topics.iter().flat_map(|(topic, partitions)| {
        (0..*partitions as i32).map(move |number| (Arc::clone(topic), number))
    });
    all.filter(|(topic, number)| !given.contains(&(&**topic, *number))).collect()
}

/// Whether the member that has the first of all partitions is the one with this share. One member is enough to have everything shared out
/// anew, and its share is how it knows itself. Where nobody has any, all are asked.
pub(super) fn has_the_first(shares: &[Share], ours: &[(&str, i32)]) -> bool {
    let first = shares.iter().flatten().min();
    first.is_none_or(|(topic, number)| ours.contains(&(topic, *number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(share: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((share.len() as i32).to_be_bytes());
        for (topic, numbers) in share {
            bytes.extend((topic.len() as i16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((numbers.len() as i32).to_be_bytes());
            numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        }
        // What the members tell each other besides.
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    fn topics() -> Vec<(Arc<str>, u32)> {
        vec![("users".into(), 2), ("orders".into(), 3)]
    }

    #[test]
    fn a_share_is_read_or_not_at_all() {
        let bytes = written(&[("users", &[1]), ("orders", &[0, 300])]);
        let share = vec![("users".into(), 1), ("orders".into(), 0), ("orders".into(), 300)];
        assert_eq!(read(&bytes), Some(share));
        assert_eq!(read(&written(&[])), Some(vec![]));
        let end = bytes.len() - 4;
        for cut in 0..end {
            assert_eq!(read(&bytes[..cut]), None, "the first {cut} bytes");
        }
        assert_eq!(read(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None, "a name of negative length");
    }

    #[test]
    fn what_nobody_reads_is_found() {
        let one: Share = vec![("users".into(), 0), ("orders".into(), 2)];
        let two: Share = vec![("users".into(), 1), ("orders".into(), 0), ("orders".into(), 1)];
        assert_eq!(unread(&[one.clone(), two.clone()], &topics()), vec![]);
        let short = unread(&[one, two[..2].to_vec(), vec![("orders".into(), 7)]], &topics());
        assert_eq!(short, [("orders".into(), 1)]);
        assert_eq!(unread(&[], &topics()).len(), 5);
    }

    #[test]
    fn what_does_not_count_is_left_out() {
        let mut shares = [vec![("orders".into(), 2), ("orders".into(), 3)], vec![("logs".into(), 0)]];
        only(&mut shares, &topics());
        assert_eq!(shares, [vec![("orders".to_owned(), 2)], vec![]]);
    }

    #[test]
    fn one_member_acts() {
        let one: Share = vec![("users".into(), 0)];
        let two: Share = vec![("orders".into(), 2)];
        let shares = [one, two, vec![]];
        let acts = |ours: &[(&str, i32)]| has_the_first(&shares, ours);
        assert_eq!([acts(&[("users", 0)]), acts(&[("orders", 2)]), acts(&[])], [false, true, false]);
        assert!(has_the_first(&[vec![], vec![]], &[]));
    }
}
