//! Edges between steps: who waits for whom, and whether a plan that came from a file is acyclic.

use super::step::{Step, StepId};

/// The steps that depend on each step, in order.
#[must_use]
pub fn dependants<'a>(steps: impl ExactSizeIterator<Item = &'a Step>) -> Vec<Vec<StepId>> {
    let mut of = vec![Vec::new(); steps.len()];
    for (index, step) in steps.enumerate() {
        for dependency in &step.depends_on {
            of[dependency.index()].push(StepId::from_index(index));
        }
    }
    of
}

/// A circle in a graph given as dependency lists, as the indices on it in order; `None` when there is none.
#[must_use]
pub fn find_cycle(depends_on: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; depends_on.len()];
    for start in 0..depends_on.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // Depth first without recursion: a file decides how deep it goes.
        let mut trail: Vec<(usize, usize)> = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((node, next)) = trail.last_mut() {
            let Some(&target) = depends_on[*node].get(*next) else {
                marks[*node] = Mark::Done;
                trail.pop();
                continue;
            };
            *next += 1;
            match marks[target] {
                Mark::Done => {}
                Mark::New => {
                    marks[target] = Mark::Open;
                    trail.push((target, 0));
                }
                Mark::Open => {
                    let from = trail.iter().position(|(node, _)| *node == target).unwrap_or(0);
                    return Some(trail[from..].iter().map(|(node, _)| *node).collect());
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_circle_is_named() {
        assert_eq!(find_cycle(&[vec![], vec![0, 2], vec![3], vec![1]]), Some(vec![1, 2, 3]));
        assert_eq!(find_cycle(&[vec![0]]), Some(vec![0]));
        assert_eq!(find_cycle(&[vec![1, 2], vec![2], vec![]]), None);
    }

    proptest! {
        #[test]
        fn edges_to_earlier_nodes_never_make_a_circle(
            edges in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..30)
        ) {
            let graph: Vec<Vec<usize>> = edges.iter().enumerate()
                .map(|(node, targets)| if node == 0 { vec![] } else { targets.iter().map(|at| at.index(node)).collect() })
                .collect();
            prop_assert_eq!(find_cycle(&graph), None);
        }
    }
}
