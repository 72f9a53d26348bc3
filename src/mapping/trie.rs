//! One walk over a document that puts every value the mapping reads into its slot.
//!
//! The names are compiled into a tree of small hash tables, so a field of the document costs one probe, whether anybody
//! reads it or not, and nothing is allocated.

use slackwater_topics::{Document, Malformed, Value};

/// Values by slot; none where the document has no such field.
pub(super) type Slots<'a> = Vec<Option<Value<'a>>>;

/// The name of an array's last element.
const LAST: &[u8] = b"-1";

/// The names that are read, as a tree.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<Child>,
    /// Indices of children plus one, by hash; a power of two, never full.
    table: Vec<u16>,
}

#[derive(Debug)]
struct Child {
    name: Box<[u8]>,
    slot: Option<usize>,
    node: Option<usize>,
    /// Nothing takes the value: it is only looked at.
    kept: bool,
}

fn hash(name: &[u8]) -> usize {
    let byte = |at: usize| usize::from(name.get(at).copied().unwrap_or(0));
    let length = name.len();
    let last = length.saturating_sub(1);
    (length.wrapping_mul(31)
        ^ byte(0).wrapping_mul(7)
        ^ byte(last).wrapping_mul(13)
        ^ byte(length / 2).wrapping_mul(61))
    .wrapping_mul(0x9e37_79b1)
        >> 8
}

impl Node {
    fn find(&self, name: &[u8]) -> Option<&Child> {
        let mask = self.table.len().wrapping_sub(1);
        let mut at = hash(name);
        loop {
            let index = *self.table.get(at & mask)?;
            let child = self.children.get(usize::from(index).checked_sub(1)?)?;
            if *child.name == *name {
                return Some(child);
            }
            at += 1;
        }
    }

    fn index(&mut self) {
        let size = (self.children.len() * 3).next_power_of_two().max(4);
        self.table = vec![0; size];
        for (index, child) in self.children.iter().enumerate() {
            let mut at = hash(&child.name);
            while self.table[at & (size - 1)] != 0 {
                at += 1;
            }
            self.table[at & (size - 1)] = index as u16 + 1;
        }
    }
}

impl Trie {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()], slots: 0 }
    }

    /// The slot of a path, made where it is new.
    pub(super) fn slot(&mut self, names: &[String]) -> usize {
        self.place(names, false)
    }

    /// The same for who only looks at the value: it is still among the fields that nothing takes.
    pub(super) fn look(&mut self, names: &[String]) -> usize {
        self.place(names, true)
    }

    fn place(&mut self, names: &[String], looks: bool) -> usize {
        let mut node = 0;
        for (depth, name) in names.iter().enumerate() {
            let known = self.nodes[node].children.iter().position(|child| *child.name == *name.as_bytes());
            let at = known.unwrap_or_else(|| {
                let child = Child { name: name.as_bytes().into(), slot: None, node: None, kept: true };
                self.nodes[node].children.push(child);
                self.nodes[node].index();
                self.nodes[node].children.len() - 1
            });
            let fresh = self.nodes.len();
            let child = &mut self.nodes[node].children[at];
            child.kept &= looks;
            if depth + 1 == names.len() {
                let slot = *child.slot.get_or_insert_with(|| {
                    self.slots += 1;
                    self.slots - 1
                });
                return slot;
            }
            node = *child.node.get_or_insert(fresh);
            if node == fresh {
                self.nodes.push(Node::default());
            }
        }
        // A path without names reads the element itself, which has no slot.
        0
    }

    /// The names at the top.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.nodes[0].children.iter().map(|child| String::from_utf8_lossy(&child.name).into_owned())
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Fills the slots. Where a name occurs twice, the first counts, as MongoDB has it.
    pub(super) fn fill<'a>(&self, document: Document<'a>, slots: &mut Slots<'a>) -> Result<(), Malformed> {
        slots.clear();
        slots.resize(self.slots, None);
        self.walk(0, document, slots, &mut |_, _| {})
    }

    /// Likewise, and keeps the top-level fields that no path begins with.
    pub(super) fn fill_and_rest<'a>(
        &self,
        document: Document<'a>,
        slots: &mut Slots<'a>,
        rest: &mut Vec<(&'a [u8], Value<'a>)>,
    ) -> Result<(), Malformed> {
        slots.clear();
        slots.resize(self.slots, None);
        rest.clear();
        self.walk(0, document, slots, &mut |name, value| rest.push((name, value)))
    }

    /// Fills in from another document, over what is there.
    pub(super) fn overlay<'a>(&self, document: Document<'a>, slots: &mut Slots<'a>) -> Result<(), Malformed> {
        self.forget(b"_id", slots);
        self.walk(0, document, slots, &mut |_, _| {})
    }

    fn forget(&self, name: &[u8], slots: &mut Slots<'_>) {
        let mut open: Vec<&Child> = self.nodes[0].find(name).into_iter().collect();
        while let Some(child) = open.pop() {
            if let Some(slot) = child.slot {
                slots[slot] = None;
            }
            open.extend(child.node.iter().flat_map(|node| &self.nodes[*node].children));
        }
    }

    fn walk<'a>(
        &self,
        node: usize,
        document: Document<'a>,
        slots: &mut Slots<'a>,
        unread: &mut dyn FnMut(&'a [u8], Value<'a>),
    ) -> Result<(), Malformed> {
        for element in document.elements() {
            let (name, value) = element?;
            let Some(child) = self.nodes[node].find(name) else {
                unread(name, value);
                continue;
            };
            if child.kept {
                unread(name, value);
            }
            if let Some(slot) = child.slot
                && slots[slot].is_none()
            {
                slots[slot] = Some(value);
            }
            // Arrays too: their elements have their places as names.
            if let (Some(node), Value::Document(inner) | Value::Array(inner)) = (child.node, value) {
                self.walk(node, inner, slots, &mut |_, _| {})?;
                if let Value::Array(array) = value
                    && let Some(last) = self.nodes[node].find(LAST)
                {
                    self.last(last, array, slots)?;
                }
            }
        }
        Ok(())
    }

    /// The last element of an array, by its own name.
    fn last<'a>(&self, child: &Child, array: Document<'a>, slots: &mut Slots<'a>) -> Result<(), Malformed> {
        let mut last = None;
        for element in array.elements() {
            last = Some(element?.1);
        }
        let Some(value) = last else { return Ok(()) };
        if let Some(slot) = child.slot {
            slots[slot] = Some(value);
        }
        if let (Some(node), Value::Document(inner) | Value::Array(inner)) = (child.node, value) {
            self.walk(node, inner, slots, &mut |_, _| {})?;
        }
        Ok(())
    }
}

/// The same memory, empty, for values of another document.
pub(super) fn recycle<'b>(mut slots: Slots<'_>) -> Slots<'b> {
    slots.clear();
    slots.into_iter().map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn finds_what_is_asked_for() {
        let names = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        let mut trie = Trie::new();
        let paths = ["a", "b.c", "b.d.e", "list.1.x", "b"].map(|path| trie.slot(&names(path)));
        assert_eq!(trie.slot(&names("b.c")), paths[1]);
        let raw = doc! {"z": 0, "b": {"d": {"e": 5}, "c": 3}, "list": [1, {"x": 9}], "a": 1, "b2": 2}
            .to_vec()
            .expect("a document");
        let document = Document::new(&raw).expect("a document");
        let (mut slots, mut rest) = (Vec::new(), Vec::new());
        trie.fill_and_rest(document, &mut slots, &mut rest).expect("well formed");
        assert_eq!(slots[paths[0]], Some(Value::Int32(1)));
        assert_eq!(slots[paths[1]], Some(Value::Int32(3)));
        assert_eq!(slots[paths[2]], Some(Value::Int32(5)));
        assert_eq!(slots[paths[3]], Some(Value::Int32(9)));
        assert!(matches!(slots[paths[4]], Some(Value::Document(_))));
        assert_eq!(rest.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [&b"z"[..], b"b2"]);
    }

    #[test]
    fn the_last_element_has_a_name() {
        let mut trie = Trie::new();
        let names = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        let paths = ["a.-1.x", "b.-1", "c.-1"].map(|path| trie.slot(&names(path)));
        let raw = doc! {"a": [{"x": 1}, {"x": 2}], "b": {"-1": 3}, "c": []}.to_vec().expect("a document");
        let mut slots = Vec::new();
        trie.fill(Document::new(&raw).expect("a document"), &mut slots).expect("well formed");
        assert_eq!(paths.map(|slot| slots[slot]), [Some(Value::Int32(2)), Some(Value::Int32(3)), None]);
    }

    #[test]
    fn the_first_of_two_equal_names_counts() {
        let mut trie = Trie::new();
        let slot = trie.slot(&["a".to_owned()]);
        let raw =
            [&[19, 0, 0, 0][..], &[0x10, b'a', 0, 1, 0, 0, 0], &[0x10, b'a', 0, 2, 0, 0, 0], &[0]].concat();
        let mut slots = Vec::new();
        trie.fill(Document::new(&raw).expect("a document"), &mut slots).expect("well formed");
        assert_eq!(slots[slot], Some(Value::Int32(1)));
    }

    proptest::proptest! {
        #[test]
        fn every_name_is_found(names in proptest::collection::hash_set("[a-zA-Z_.$0-9]{0,12}", 1..120)) {
            let mut trie = Trie::new();
            for name in &names {
                trie.slot(std::slice::from_ref(name));
            }
            for name in &names {
                proptest::prop_assert!(trie.nodes[0].find(name.as_bytes()).is_some());
            }
            proptest::prop_assert!(trie.nodes[0].find(b"a name that is longer than any").is_none());
        }
    }
}
