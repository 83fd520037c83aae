//! Raw plans: the files that OpenTofu applies. Each is bound to what was shown of it, by the sha256 of the file and by being
//! shown again before it is applied.
//!
//! A raw plan holds state and variables in the clear. It lies in a private directory of this process; beside a saved plan it
//! lies with mode 0600, and not at all when secrets went into it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::place::{Place, Work, private_dir, unwritable};
use super::program::Event;
use crate::digest::sha256_hex;
use crate::providers::ports::{Answer, Basis, StackPlan};

/// The list of the raw plans beside a saved plan.
const INDEX: &str = "plans.json";

/// The extension of a raw plan beside it.
const RAW: &str = "tfplan";

/// A raw plan with what was shown of it.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) step: String,
    pub(super) plan: StackPlan,
    pub(super) file: PathBuf,
    pub(super) sha256: String,
    /// Whether it may lie beside a saved plan.
    may_be_kept: bool,
    /// Whether it comes from beside a saved plan, and another OpenTofu may have made it.
    pub(super) is_brought: bool,
    /// What it lies in, when that is ours; it goes with the last who needs it.
    _work: Option<Arc<Work>>,
}

impl Raw {
    pub(super) fn new(step: &str, plan: &StackPlan, work: Work, has_secrets: bool) -> Self {
        let file = work.path("plan");
        // A file that cannot be read has no digest, and will not be found again.
        let sha256 = fs::read(&file).map(|bytes| sha256_hex(&bytes)).unwrap_or_default();
        let may_be_kept = plan.acts() && !plan.speculative && !has_secrets;
        Self {
            step: step.to_owned(),
            plan: plan.clone(),
            file,
            sha256,
            may_be_kept,
            is_brought: false,
            _work: Some(Arc::new(work)),
        }
    }

    /// Whether the file is still the one that was shown.
    pub(super) fn is_whole(&self) -> bool {
        fs::read(&self.file).is_ok_and(|bytes| sha256_hex(&bytes) == self.sha256)
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    step: String,
    key: String,
    sha256: String,
    plan: StackPlan,
}

/// The raw plans that this process knows, by request.
#[derive(Debug, Default)]
pub(super) struct RawPlans(Mutex<HashMap<String, Raw>>);

impl RawPlans {
    pub(super) fn put(&self, key: String, raw: Raw) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, raw);
    }

    pub(super) fn get(&self, key: &str) -> Option<Raw> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Whether a raw plan that lay beside a saved plan is the step's, but another one's than is asked for.
    pub(super) fn is_another(&self, step: &str, key: &str) -> bool {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !plans.contains_key(key) && plans.values().any(|raw| raw.is_brought && raw.step == step)
    }

    /// Forgets a raw plan: it was begun.
    pub(super) fn take(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What was shown for a request, while its raw plan is there and was not begun.
    pub(super) fn shown(&self, key: &str, begun: Option<&Marker>) -> Option<Raw> {
        let raw = self.get(key)?;
        let is_begun = begun.is_some_and(|marker| marker.sha256 == raw.sha256);
        (!is_begun && (raw.plan.speculative || raw.is_whole())).then_some(raw)
    }

    pub(super) fn keep(&self, dir: &Path) -> Answer<()> {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept: Vec<(&String, &Raw)> = plans.iter().filter(|(_, raw)| raw.may_be_kept).collect();
        kept.sort_by_key(|(key, _)| *key);
        let write = || {
            clear(dir)?;
            if kept.is_empty() {
                return Ok(());
            }
            private_dir(dir)?;
            let mut entries = Vec::new();
            let mut written = BTreeSet::new();
            for (key, raw) in &kept {
                // Stacks of one form have one raw plan, when they are planned in the same second.
                if written.insert(&raw.sha256) {
                    write_private(&dir.join(format!("{}.{RAW}", raw.sha256)), &fs::read(&raw.file)?)?;
                }
                entries.push(Entry {
                    step: raw.step.clone(),
                    key: (*key).clone(),
                    sha256: raw.sha256.clone(),
                    plan: raw.plan.clone(),
                });
            }
            write_private(&dir.join(INDEX), &serde_json::to_vec_pretty(&entries)?)
        };
        write().map_err(|error: std::io::Error| unwritable(dir, &error))
    }

    pub(super) fn bring(&self, dir: &Path) {
        // OpenTofu runs in the module's directory.
        let Ok(dir) = dir.canonicalize() else { return };
        let Ok(text) = fs::read(dir.join(INDEX)) else { return };
        let entries: Vec<Entry> = match serde_json::from_slice(&text) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "the raw plans beside the saved plan cannot be read");
                return;
            }
        };
        for Entry { step, key, sha256, plan } in entries {
            let file = dir.join(format!("{sha256}.{RAW}"));
            let raw = Raw { step, plan, file, sha256, may_be_kept: true, is_brought: true, _work: None };
            if raw.is_whole() {
                self.put(key, raw);
            } else {
                tracing::warn!(file = %raw.file.display(), "a raw plan is missing or damaged; it is made again");
            }
        }
    }
}

/// Removes raw plans that were kept before, and nothing else: the directory may be somebody's own.
pub(super) fn clear(dir: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| name == INDEX)
            || path.extension().is_some_and(|extension| extension == RAW);
        if is_ours {
            fs::remove_file(path)?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The plan that an apply was begun with. While it is there, a state that moved may be our own work; what is left of the
/// plan is then held against what was shown, change by change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) key: String,
    pub(super) sha256: String,
    pub(super) basis: Option<Basis>,
    /// What it left, where it ended by itself.
    #[serde(default)]
    pub(super) left: Option<Basis>,
}

impl Marker {
    fn path(place: &Place) -> PathBuf {
        place.home.join("begun.json")
    }

    /// The file of what OpenTofu says while it applies.
    pub(super) fn events(place: &Place) -> PathBuf {
        place.home.join("begun.jsonl")
    }

    /// Whether a state can be what this apply made: what it left, or, where nobody saw it end, any later one once it had begun
    /// with a resource.
    pub(super) fn made(&self, now: &Basis, place: &Place) -> bool {
        match &self.left {
            Some(left) => left == now,
            None => fs::read_to_string(Self::events(place)).is_ok_and(|events| {
                events.lines().filter_map(Event::read).any(|event| event.kind == "apply_start")
            }),
        }
    }

    pub(super) fn read(place: &Place) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(place)).ok()?).ok()
    }

    /// On disk before anything begins.
    pub(super) fn write(&self, place: &Place) -> Answer<()> {
        let path = Self::path(place);
        Self::forget(place);
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        write_private(&path, &bytes).map_err(|error| unwritable(&path, &error))
    }

    pub(super) fn forget(place: &Place) {
        // It is not there most of the time.
        for path in [Self::path(place), Self::events(place)] {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn two_stacks_may_have_one_raw_plan() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("plan");
        fs::write(&file, "the same bytes").expect("a file");
        let plan = StackPlan {
            basis: None,
            empty: true,
            changes: Vec::new(),
            drift: Vec::new(),
            outputs: Value::Null,
            output_changes: Vec::new(),
            speculative: false,
            warnings: Vec::new(),
        };
        let plans = RawPlans::default();
        for step in ["tofu_apply.a", "tofu_apply.b"] {
            let sha256 = sha256_hex(b"the same bytes");
            let (step, plan, file) = (step.to_owned(), plan.clone(), file.clone());
            let raw = Raw { step, plan, file, sha256, may_be_kept: true, is_brought: false, _work: None };
            plans.put(raw.step.clone(), raw);
        }
        let kept = dir.path().join("kept");
        plans.keep(&kept).expect("both are kept");
        let brought = RawPlans::default();
        brought.bring(&kept);
        assert!(brought.get("tofu_apply.a").is_some() && brought.get("tofu_apply.b").is_some());
    }
}
