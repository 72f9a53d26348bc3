//! Which partition of its topic a document belongs into.

use crate::hash::Fnv;
use crate::key::Key;

/// The partition of a key, out of this many. It must never change: the states of a document are in one partition.
///
/// The low bits decide, and ids that were made together differ in few bits: so the hash has to be well mixed.
pub fn partition_of(key: &Key, partitions: u32) -> i32 {
    let mut hash = Fnv::new();
    hash.update(key.as_bytes());
    (hash.finish() % u64::from(partitions.max(1))) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn golden() {
        let places: Vec<i32> =
            (0..12).map(|id| partition_of(&Key::of(Value::Int32(id)).expect("a key"), 6)).collect();
        assert_eq!(places, [2, 2, 1, 0, 0, 2, 4, 4, 1, 5, 1, 0]);
    }

    #[test]
    fn object_ids_made_together_spread() {
        let mut counts = [0_u32; 4];
        for counter in 0_u32..4_000 {
            let mut id = [0x65, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0];
            id[9..].copy_from_slice(&counter.to_be_bytes()[1..]);
            let key = Key::of(Value::ObjectId(&id)).expect("a key");
            counts[usize::try_from(partition_of(&key, 4)).expect("a partition")] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn none_is_out_of_range() {
        let key = Key::of(Value::Null).expect("a key");
        assert_eq!(partition_of(&key, 0), 0);
        assert_eq!(partition_of(&key, 1), 0);
    }
}
