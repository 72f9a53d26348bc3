//! What comes first: tables by their references, collections by their tables.

/// Groups of nodes that reach each other, each group after all that it points to; within and between groups the order
/// of the file where nothing else decides.
pub(in crate::mapping) fn groups(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        edges,
        next: 0,
        seen: vec![None; edges.len()],
        low: vec![0; edges.len()],
        stack: Vec::new(),
        on_stack: vec![false; edges.len()],
        groups: Vec::new(),
    };
    for node in 0..edges.len() {
        if search.seen[node].is_none() {
            search.visit(node);
        }
    }
    search.groups
}

/// The level of each node: above all that it points to; nodes of a cycle share theirs.
pub(super) fn levels(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut levels = vec![0; edges.len()];
    for group in groups(edges) {
        let below = group.iter().flat_map(|node| &edges[*node]).filter(|to| !group.contains(to));
        let level = below.map(|to| levels[*to] + 1).max().unwrap_or(0);
        for node in group {
            levels[node] = level;
        }
    }
    levels
}

/// Tarjan's search for strongly connected components.
struct Search<'e> {
    edges: &'e [Vec<usize>],
    next: usize,
    seen: Vec<Option<usize>>,
    low: Vec<usize>,
    stack: Vec<usize>,
    on_stack: Vec<bool>,
    groups: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, node: usize) {
        let number = self.next;
        self.next += 1;
        self.seen[node] = Some(number);
        self.low[node] = number;
        self.stack.push(node);
        self.on_stack[node] = true;
        for &to in &self.edges[node] {
            match self.seen[to] {
                None => {
                    self.visit(to);
                    self.low[node] = self.low[node].min(self.low[to]);
                }
                Some(number) if self.on_stack[to] => self.low[node] = self.low[node].min(number),
                Some(_) => {}
            }
        }
        if self.low[node] == number {
            let mut group = Vec::new();
            while let Some(member) = self.stack.pop() {
                self.on_stack[member] = false;
                group.push(member);
                if member == node {
                    break;
                }
            }
            group.sort_unstable();
            self.groups.push(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referenced_first() {
        // 0 → 2 → 1, 3 and 4 point at each other, 4 → 1
        let edges = vec![vec![2], vec![], vec![1], vec![4], vec![3, 1]];
        assert_eq!(groups(&edges), [vec![1], vec![2], vec![0], vec![3, 4]]);
        assert_eq!(levels(&edges), [2, 0, 1, 1, 1]);
    }
}
