//! Applying: exactly the plan file that was shown, to exactly the state it was made on.
//!
//! Its output goes to a file that is read as it grows, not to a pipe: if clawd dies, OpenTofu goes on, writes the state and
//! unlocks it, and the next run finds the work done. What an apply that failed left is noted, so that a state that somebody else
//! moved afterwards is not taken for our own work.

use super::Stack;
use super::place::Work;
use super::program::{Complaint, Complaints, Event};
use super::raw::Marker;
use super::variables::{Revealed, VarFile};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, StackPlan, Watch};
use crate::providers::process::plain;
use crate::stack::Mask;
use crate::stack::module::is_preset_file;
use crate::value::Map;

const APPLY: &str = "tofu apply";

impl Stack<'_> {
    /// Applies a plan that was made before, and returns the outputs.
    pub(super) async fn apply(&self, plan: &StackPlan, watch: &dyn Watch) -> Answer<Map> {
        let key = self.key();
        let moved = |what: &str| {
            ProviderError::new(ErrorKind::Moved, APPLY, format!("{}: {what}", self.request.dir))
                .help("plan again")
        };
        let raw = self.tofu.raw.get(&key).filter(|raw| raw.plan.changes == plan.changes && raw.is_whole());
        let raw = raw.ok_or_else(|| moved("the raw plan of what was shown is gone"))?;
        let revealed = self.tofu.reveal(self.request).await?;
        // The file is the one of the digest, and says what was shown.
        let document = self.show(&raw.file, &revealed).await?;
        if document.changes != plan.changes {
            return Err(moved("the raw plan is not the one that was shown"));
        }
        self.remember_triggers().await?;
        let work = Work::new(&self.place)?;
        let vars = self.var_file(&work, &revealed).await?;
        let var_file = vars.as_ref().map(|file| format!("-var-file={}", file.path().display()));
        let file = raw.file.display().to_string();
        let parallelism = self.request.parallelism.map(|most| format!("-parallelism={most}"));
        let lock_timeout = self.tofu.lock_timeout();
        let mut args = vec!["apply", "-input=false", "-no-color", "-json", &lock_timeout];
        args.extend(parallelism.as_deref());
        args.extend(var_file.as_deref());
        args.push(&file);
        let mut mask = document.mask;
        let (mut complaints, mut warnings, mut rest) = (Vec::new(), Vec::new(), String::new());
        let tool = self.program.tool(&self.place.module, &self.tofu.place.environment, &self.set);
        let mut marker =
            Marker { key: key.clone(), sha256: raw.sha256.clone(), basis: plan.basis.clone(), left: None };
        marker.write(&self.place)?;
        self.tofu.raw.take(&key);
        let status = tool
            .record(&args, &Marker::events(&self.place), |line| match Event::read(line) {
                Some(event) => {
                    if is_progress(&event.kind) {
                        watch.progress(&mask.redact(&plain(&mask.redact(&event.message))));
                    }
                    warnings.extend(event.warning(&self.request.dir, &mask));
                    complaints.extend(event.error());
                }
                None => {
                    rest.push_str(line);
                    rest.push('\n');
                }
            })
            .await?;
        drop(vars);
        for warning in warnings.iter().filter(|warning| !plan.warnings.contains(warning)) {
            tracing::warn!(step = self.request.step, "OpenTofu warns: {warning}");
        }
        if status.success() {
            self.triggers_are_done().await?;
            let outputs = self.outputs(&document.hidden, mask).await?;
            Marker::forget(&self.place);
            return Ok(outputs);
        }
        if complaints.is_empty() {
            complaints.push(Complaint::plain(&rest));
        }
        let complaints = Complaints(complaints);
        let refused = ["Saved plan is stale", "Saved plan does not match"]
            .iter()
            .any(|sign| complaints.find(sign).is_some());
        if refused {
            return Err(self.stale(plan).await);
        }
        if let Ok(state) = self.shown_state().await {
            // What became secret meanwhile may be in what it complains of.
            mask.merge(state.mask(Mask::default()));
        }
        let error = self.failed(APPLY, &complaints, &mask);
        let left = self.basis().await.ok();
        if error.kind == ErrorKind::Locked || (left.is_some() && left == plan.basis) {
            // Nothing was begun: if the state moves now, that will not have been us.
            Marker::forget(&self.place);
        } else {
            marker.left = left;
            marker.write(&self.place)?;
        }
        if error.kind == ErrorKind::Locked || error.help.is_some() {
            return Err(error);
        }
        Err(error.help("what was done is in the state; run again: the plan shows what is left"))
    }

    /// A file that repeats the variables, where OpenTofu wants them again: files of the module set some as well and are held
    /// against the plan, or some are ephemeral and not in it. Older versions take none beside a plan, and hold nothing against it.
    async fn var_file(&self, work: &Work, revealed: &Revealed) -> Answer<Option<VarFile>> {
        let has_presets = std::fs::read_dir(&self.place.module).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_preset_file))
        });
        let has_ephemeral = self.module.variables.values().any(|variable| variable.ephemeral);
        if !has_presets && !has_ephemeral {
            return Ok(None);
        }
        let version = self.program.version(&self.tofu.place.root, &self.tofu.place.environment).await?;
        if version < self.program.takes_variables_with_a_plan() {
            return Ok(None);
        }
        VarFile::write(work.file("apply.tfvars.json")?, &self.request.vars, revealed).map(Some)
    }

    /// The refusal of a state that moved.
    async fn stale(&self, plan: &StackPlan) -> ProviderError {
        Marker::forget(&self.place);
        let was = plan.basis.as_ref().map_or(0, |basis| basis.serial);
        let now = match self.basis().await {
            Ok(basis) => format!("serial {}", basis.serial),
            Err(_) => "another".to_owned(),
        };
        let dir = &self.request.dir;
        let message = if now == format!("serial {was}") {
            format!("the state of {dir} moved while it was being planned, to {now}")
        } else {
            format!("the state of {dir} moved since it was planned: was serial {was}, now {now}")
        };
        ProviderError::new(ErrorKind::Moved, APPLY, message)
            .help("plan again and review what is new; nothing was done")
    }
}

/// Events that people want to see.
fn is_progress(kind: &str) -> bool {
    matches!(
        kind,
        "apply_start"
            | "apply_progress"
            | "apply_complete"
            | "apply_errored"
            | "provision_start"
            | "provision_progress"
            | "provision_errored"
            | "state_lock_acquire"
    )
}
