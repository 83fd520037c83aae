//! One version made of two. Lines are what is kept: whoever wrote one finds it again.

use std::collections::HashMap;

use diffy::{ConflictStyle, MergeOptions};

use super::class::{Class, Rules};

/// What becomes of a file that changed on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Both sides get this.
    Both(Vec<u8>),
    /// No text holds what both meant. The local version is put aside as a whole, and the remote one is taken.
    Aside,
}

/// Makes one version of two. `base` is what both were made of, `None` when nobody knows; then nothing is taken to be removed.
#[must_use]
pub fn merge(rules: &Rules, class: &Class, base: Option<&[u8]>, local: &[u8], remote: &[u8]) -> Merged {
    if !rules.writes(class) {
        return Merged::Aside;
    }
    if local == remote {
        return Merged::Both(local.to_vec());
    }
    if !is_text(local) || !is_text(remote) {
        return Merged::Aside;
    }
    match (class, base) {
        // Only this host writes it, so the remote one is its own, older or from before its disk was lost.
        (Class::Own { .. }, _) | (_, None) => Merged::Both(union(local, remote)),
        (_, Some(base)) => three_way(base, local, remote).map_or(Merged::Aside, Merged::Both),
    }
}

/// The lines of a text, each with its end.
pub(super) fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

/// How often each line is there.
pub(super) fn counted<'a>(lines: &[&'a [u8]]) -> HashMap<&'a [u8], usize> {
    let mut counted = HashMap::new();
    for line in lines {
        *counted.entry(*line).or_insert(0) += 1;
    }
    counted
}

/// Whether lines mean anything in it.
fn is_text(content: &[u8]) -> bool {
    !content.contains(&0) && std::str::from_utf8(content).is_ok()
}

/// A text whose last line has an end.
fn ended(text: &[u8]) -> Vec<u8> {
    let mut ended = text.to_vec();
    if !ended.is_empty() && !ended.ends_with(b"\n") {
        ended.push(b'\n');
    }
    ended
}

/// All lines of both: the longer when one begins with the other, else the remote ones and then those that only the local one has.
/// A line that is there more often on one side is kept as often.
fn union(local: &[u8], remote: &[u8]) -> Vec<u8> {
    if local.starts_with(remote) {
        return local.to_vec();
    }
    if remote.starts_with(local) {
        return remote.to_vec();
    }
    let (local, mut whole) = (ended(local), ended(remote));
    let mut there = {
        let remote = lines(&whole);
        counted(&remote).into_iter().map(|(line, count)| (line.to_vec(), count)).collect::<HashMap<_, _>>()
    };
    for line in lines(&local) {
        match there.get_mut(line) {
            Some(count) if *count > 0 => *count -= 1,
            _ => whole.extend_from_slice(line),
        }
    }
    whole
}

/// A three-way merge by lines. Two insertions at one place are both kept, the remote one first; `None` where both sides changed
/// the same lines otherwise.
fn three_way(base: &[u8], local: &[u8], remote: &[u8]) -> Option<Vec<u8>> {
    if local == base {
        return Some(remote.to_vec());
    }
    if remote == base {
        return Some(local.to_vec());
    }
    let is_ended = local.ends_with(b"\n") || remote.ends_with(b"\n");
    let (base, local, remote) = (ended(base), ended(local), ended(remote));
    // Longer than anything in the texts, so that no line of theirs is taken for a marker.
    let marker =
        [&base, &local, &remote].into_iter().map(|text| longest_run(text)).max().unwrap_or(0).max(7) + 1;
    let mut options = MergeOptions::new();
    options.set_conflict_style(ConflictStyle::Diff3).set_conflict_marker_length(marker);
    let mut merged = match options.merge_bytes(&base, &local, &remote) {
        Ok(merged) => merged,
        Err(marked) => without_markers(&marked, marker)?,
    };
    if !is_ended && merged.ends_with(b"\n") {
        merged.pop();
    }
    Some(merged)
}

/// The longest run of one of the bytes that markers are made of.
fn longest_run(text: &[u8]) -> usize {
    let runs = text.chunk_by(|a, b| a == b).filter(|run| b"<|=>".contains(&run[0]));
    runs.map(<[u8]>::len).max().unwrap_or(0)
}

/// A merge with conflicts of which all are insertions: the remote one first. `None` when any is not.
fn without_markers(marked: &[u8], length: usize) -> Option<Vec<u8>> {
    #[derive(Clone, Copy)]
    enum In {
        Both,
        Local,
        Base,
        Remote,
    }
    let mut merged = Vec::with_capacity(marked.len());
    let (mut local, mut remote): (Vec<&[u8]>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    let mut place = In::Both;
    for line in lines(marked) {
        let is_marker = |byte: u8| line.len() > length && line[..length].iter().all(|it| *it == byte);
        match place {
            In::Both if is_marker(b'<') => place = In::Local,
            In::Local if is_marker(b'|') => place = In::Base,
            In::Base if is_marker(b'=') => place = In::Remote,
            In::Remote if is_marker(b'>') => {
                merged.extend(both(&remote, &local).into_iter().flatten());
                (local, remote) = (Vec::new(), Vec::new());
                place = In::Both;
            }
            In::Both => merged.extend_from_slice(line),
            In::Local => local.push(line),
            // Something was there before, and both sides made something else of it.
            In::Base => return None,
            In::Remote => remote.push(line),
        }
    }
    matches!(place, In::Both).then_some(merged)
}

/// Two insertions at one place: the remote one first. What both begin with, and an insertion that the other holds as a whole, is
/// there once: it came from here, by a write whose answer was lost.
fn both<'a>(remote: &[&'a [u8]], local: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let common = remote.iter().zip(local).take_while(|(remote, local)| remote == local).count();
    let (start, remote, local) = (&remote[..common], &remote[common..], &local[common..]);
    let holds =
        |whole: &[&[u8]], part: &[&[u8]]| !part.is_empty() && whole.windows(part.len()).any(|it| it == part);
    let (remote, local): (&[&[u8]], &[&[u8]]) = match (holds(remote, local), holds(local, remote)) {
        (true, _) => (remote, &[]),
        (_, true) => (&[], local),
        _ => (remote, local),
    };
    [start, remote, local].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(merged: &Merged) -> Option<&str> {
        match merged {
            Merged::Both(content) => std::str::from_utf8(content).ok(),
            Merged::Aside => None,
        }
    }

    fn merged(class: &Class, base: Option<&str>, local: &str, remote: &str) -> Merged {
        let rules = Rules::new("H-1", [], []).expect("rules");
        merge(&rules, class, base.map(str::as_bytes), local.as_bytes(), remote.as_bytes())
    }

    #[test]
    fn canonical_files_are_merged_by_lines() {
        for (base, local, remote, wanted) in [
            // Different places.
            ("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", Some("A\nb\nC\n")),
            // The same change.
            ("a\n", "b\n", "b\n", Some("b\n")),
            // Two insertions at one place, at the end too, with and without a newline.
            ("a\nb\n", "a\nl\nb\n", "a\nr\nb\n", Some("a\nr\nl\nb\n")),
            ("a\n", "a\nl\n", "a\nr\n", Some("a\nr\nl\n")),
            ("a", "a\nl", "a\nr", Some("a\nr\nl")),
            ("", "l\n", "r\n", Some("r\nl\n")),
            // The remote one is made of the local one, whose answer was lost.
            ("a\n", "a\nl\n", "a\nl\nr\n", Some("a\nl\nr\n")),
            ("a\n", "a\nl\nmore\n", "a\nl\nr\n", Some("a\nl\nr\nmore\n")),
            ("a\n", "a\nl\n", "a\nr\nl\ns\n", Some("a\nr\nl\ns\n")),
            // A line that both have elsewhere is not the same insertion.
            ("a\n", "a\n# L\ntext\n", "a\n# R\ntext\n", Some("a\n# R\ntext\n# L\ntext\n")),
            // Overlaps.
            ("a\n", "l\n", "r\n", None),
            ("a\nb\n", "a\n", "a\nB\n", None),
            // Lines that look like markers.
            (
                "a\n",
                "a\n<<<<<<< l\n=======\n",
                "a\n>>>>>>>> r\n",
                Some("a\n>>>>>>>> r\n<<<<<<< l\n=======\n"),
            ),
        ] {
            let told = merged(&Class::Canonical, Some(base), local, remote);
            assert_eq!(text(&told), wanted, "{base:?} {local:?} {remote:?}");
        }
    }

    #[test]
    fn without_a_base_nothing_is_removed() {
        for (local, remote, wanted) in [
            ("a\nb\n", "a\n", "a\nb\n"),
            ("a\n", "a\nb\n", "a\nb\n"),
            ("a\nl\n", "a\nr\n", "a\nr\nl\n"),
            ("x\nx\n", "x\ny\n", "x\ny\nx\n"),
            ("l", "r", "r\nl\n"),
        ] {
            assert_eq!(
                text(&merged(&Class::Other, None, local, remote)),
                Some(wanted),
                "{local:?} {remote:?}"
            );
        }
    }

    #[test]
    fn notes_have_one_writer_and_bytes_have_no_lines() {
        let own = |host: &str| Class::Own { host: host.to_owned() };
        assert_eq!(text(&merged(&own("H-1"), Some("a\n"), "l\n", "r\n")), Some("r\nl\n"));
        assert_eq!(merged(&own("H-2"), Some("a\n"), "a\nl\n", "a\n"), Merged::Aside);
        let rules = Rules::new("H-1", [], []).expect("rules");
        let aside = merge(&rules, &Class::Other, Some(b"a"), b"\xff\n", b"b\n");
        assert_eq!(aside, Merged::Aside);
    }

    fn lines_of(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec("[a-f<=>|]{0,9}", 0..most)
            .prop_map(|lines| lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes())
    }

    proptest! {
        /// What a side left alone is as the other made it, and a merge is the same whoever makes it as far as lines go.
        #[test]
        fn merges_lose_no_line(base in lines_of(8), local in lines_of(8), remote in lines_of(8)) {
            prop_assert_eq!(three_way(&base, &base, &remote), Some(remote.clone()));
            prop_assert_eq!(three_way(&base, &local, &base), Some(local.clone()));
            prop_assert_eq!(three_way(&base, &local, &local), Some(local.clone()));
            let Some(merged) = three_way(&base, &local, &remote) else { return Ok(()) };
            let (base_lines, merged_lines) = (lines(&base), lines(&merged));
            let (before, after) = (counted(&base_lines), counted(&merged_lines));
            for side in [&local, &remote] {
                let side = lines(side);
                for (line, count) in counted(&side) {
                    // A line that this side wrote anew is there as often as it wrote it.
                    let written = count.saturating_sub(before.get(line).copied().unwrap_or(0));
                    prop_assert!(after.get(line).copied().unwrap_or(0) >= written.min(count));
                }
            }
        }

        #[test]
        fn unions_hold_all_lines_of_both(local in lines_of(12), remote in lines_of(12)) {
            let whole = union(&local, &remote);
            let lines_of_whole = lines(&whole);
            let there = counted(&lines_of_whole);
            for side in [&local, &remote] {
                let side = lines(side);
                for (line, count) in counted(&side) {
                    prop_assert!(there.get(line).copied().unwrap_or(0) >= count);
                }
            }
            prop_assert_eq!(union(&local, &whole), whole.clone());
            prop_assert_eq!(union(&whole, &remote), whole);
        }
    }
}
