//! What is refused because it looks like an accident: a canonical file that is emptied or loses much, a round that removes many
//! files at once.

use super::class::Class;

/// The lines a canonical file may lose in any case.
const LINES: usize = 20;

/// The share of its lines that it may lose, in percent.
const SHARE: usize = 30;

/// The files that one round may remove in any case.
const FILES: usize = 5;

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A canonical file would be empty.
    #[error("it would be empty; before it has {before} lines")]
    Emptied {
        /// The lines it has.
        before: usize,
    },
    /// A canonical file would lose much.
    #[error("it would lose {lost} of {before} lines; at most {most} go at once")]
    Shrinks {
        /// The lines it has.
        before: usize,
        /// The lines of these that would be gone.
        lost: usize,
        /// The lines that may go.
        most: usize,
    },
    /// A round would remove many files.
    #[error("{removed} of {files} files would be removed; at most {most} go in one round")]
    MassDeletion {
        /// The files there are.
        files: usize,
        /// The files that would go.
        removed: usize,
        /// The files that may go.
        most: usize,
    },
}

/// Whether a change takes too much out of a file of this class. Lines that only move are not lost.
///
/// # Errors
/// What would be lost.
pub fn shrinks(class: &Class, before: &[u8], after: &[u8]) -> Result<(), Refused> {
    if *class != Class::Canonical {
        return Ok(());
    }
    let lines = super::merge::lines(before);
    if !lines.is_empty() && after.iter().all(u8::is_ascii_whitespace) {
        return Err(Refused::Emptied { before: lines.len() });
    }
    let mut left = super::merge::counted(&super::merge::lines(after));
    let lost = lines
        .iter()
        .filter(|line| match left.get_mut(**line) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .count();
    let most = LINES.max(lines.len() * SHARE / 100);
    match lost > most {
        true => Err(Refused::Shrinks { before: lines.len(), lost, most }),
        false => Ok(()),
    }
}

/// Whether a round removes too many of the files there are.
///
/// # Errors
/// How many it would remove.
pub fn mass_deletion(files: usize, removed: usize) -> Result<(), Refused> {
    let most = FILES.max(files / 5);
    match removed > most {
        true => Err(Refused::MassDeletion { files, removed, most }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(lines: std::ops::Range<u32>) -> Vec<u8> {
        lines.map(|line| format!("line {line}\n")).collect::<String>().into_bytes()
    }

    #[test]
    fn a_canonical_file_loses_little_at_once() {
        let canonical = |before: &[u8], after: &[u8]| shrinks(&Class::Canonical, before, after);
        let (whole, most) = (numbered(0..100), numbered(30..100));
        assert_eq!(canonical(&whole, &most), Ok(()));
        let refused = Refused::Shrinks { before: 100, lost: 31, most: 30 };
        assert_eq!(canonical(&whole, &numbered(31..100)), Err(refused));
        // Growing elsewhere makes up for nothing.
        assert!(canonical(&whole, &numbered(50..300)).is_err());
        assert_eq!(canonical(&numbered(0..21), &numbered(20..21)), Ok(()));
        let mut turned: Vec<&[u8]> = super::super::merge::lines(&whole);
        turned.reverse();
        assert_eq!(canonical(&whole, &turned.concat()), Ok(()));
        for empty in [&b""[..], b"\n", b" \n\t\n"] {
            assert_eq!(canonical(b"one\n", empty), Err(Refused::Emptied { before: 1 }));
        }
        assert_eq!(canonical(b"", b""), Ok(()));
        assert_eq!(shrinks(&Class::Other, &whole, b""), Ok(()));
    }

    #[test]
    fn few_files_go_in_one_round() {
        for (files, removed, fine) in
            [(3, 3, true), (6, 5, true), (6, 6, false), (100, 20, true), (100, 21, false)]
        {
            assert_eq!(mass_deletion(files, removed).is_ok(), fine, "{removed} of {files}");
        }
    }
}
