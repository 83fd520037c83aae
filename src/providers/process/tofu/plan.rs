//! Planning a stack: without the state's lock, with stand-ins where values are unknown; and which plan is acted on, the shown one
//! while its state stands.

use super::init::unstamp;
use super::place::Work;
use super::program::{self, Complaints};
use super::raw::{Marker, Raw};
use super::secrets::{holds_secrets, mask};
use super::variables::{Revealed, VarFile};
use super::{PLAN, Stack, state};
use crate::providers::ErrorKind;
use crate::providers::ports::{Answer, StackError, StackPlan};
use crate::stack::{Filled, Placeholders, without_keys};
use crate::value::Value;

/// What OpenTofu says when what `init` made is gone.
const NOT_INITIALISED: [&str; 5] = [
    "Required plugins are not installed",
    "Inconsistent dependency lock file",
    "Module not installed",
    "Backend initialization required",
    "Missing required provider",
];

impl Stack<'_> {
    /// Makes a plan.
    pub(super) async fn plan(&self) -> Result<(StackPlan, Work), StackError> {
        self.check_secrets()?;
        let revealed = self.tofu.reveal(self.request).await?;
        let placeholders = Placeholders::new(&self.request.placeholders);
        let type_of = |name: &str| self.module.variables.get(name).map(|variable| &variable.ty);
        let filled = placeholders.fill(&self.request.vars, type_of).map_err(|stuck| {
            StackError::undecided(format!(
                "the variable {} is a {}, and which keys or items it has is not known yet",
                stuck.path, stuck.ty
            ))
        })?;
        let triggered = self.triggered().await?;
        match self.planned(&filled, &revealed, &triggered).await {
            // What clawd itself found wrong, such as an output of another type, no placeholder mends.
            Err(StackError::Provider(error))
                if filled.is_speculative()
                    && error.operation == PLAN
                    && error.kind == ErrorKind::Permanent =>
            {
                Err(StackError::Undecided {
                    reason: "the speculative plan failed".to_owned(),
                    warning: Some(format!(
                        "planned with placeholders, OpenTofu said: {}; `placeholders` gives it others",
                        error.message.split_whitespace().collect::<Vec<_>>().join(" ")
                    )),
                })
            }
            result => result,
        }
    }

    async fn planned(
        &self,
        filled: &Filled,
        revealed: &Revealed,
        replace: &[String],
    ) -> Result<(StackPlan, Work), StackError> {
        let work = Work::new(&self.place)?;
        let vars = VarFile::write(work.file("vars.tfvars.json")?, &filled.vars, revealed)?;
        let file = work.file("plan")?;
        let mut args: Vec<String> =
            ["plan", "-input=false", "-lock=false", "-no-color", "-json"].map(str::to_owned).to_vec();
        args.push(format!("-out={}", file.display()));
        args.push(format!("-var-file={}", vars.path().display()));
        args.extend(self.request.parallelism.map(|most| format!("-parallelism={most}")));
        args.extend(self.request.destroy.then(|| "-destroy".to_owned()));
        args.extend(replace.iter().map(|address| format!("-replace={address}")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = self.run(&args).await?;
        drop(vars);
        if !said.status.success() {
            let complaints = Complaints::of(&said);
            if NOT_INITIALISED.iter().any(|sign| complaints.find(sign).is_some()) {
                unstamp(&self.place)?;
            }
            return Err(self.failed(PLAN, &complaints, &mask(revealed)).into());
        }
        let mut document = self.show(&file, revealed).await?;
        let mut addresses = document.changes.iter().map(|change| change.address.as_str());
        if let Some(address) = addresses.find(|address| filled.is_key_in(address)) {
            return Err(StackError::undecided(format!(
                "which {} there are depends on a value that is not known yet",
                without_keys(address)
            )));
        }
        let attributes = document.changes.iter_mut().flat_map(|change| &mut change.attributes);
        for (_, _, after) in attributes.chain(&mut document.output_changes) {
            *after = filled.veiled(after);
        }
        let outputs = Value::Map(document.outputs.clone());
        let speculative = filled.is_speculative();
        let mut plan = StackPlan {
            basis: None,
            empty: document.empty,
            changes: document.changes,
            drift: document.drift,
            outputs: match speculative {
                true => filled.trusted(&outputs, Some(&Value::Map(document.before))),
                false => outputs,
            },
            output_changes: document.output_changes,
            speculative,
            warnings: program::warnings(&said.stdout, &self.request.dir, &document.mask),
        };
        self.check_outputs(plan.outputs.as_map())?;
        self.check_addresses(&plan).await?;
        if plan.acts() && !speculative {
            plan.basis = Some(self.basis().await?);
        }
        Ok((plan, work))
    }

    /// The plan that is acted on: the one that was shown as long as the state is the one it was made on, else a fresh one.
    pub(super) async fn plan_to_act(&self) -> Result<StackPlan, StackError> {
        let key = self.key();
        let begun = Marker::read(&self.place);
        if let Some(shown) = self.tofu.raw.shown(&key, begun.as_ref())
            && (shown.plan.speculative || self.is_still(&shown.plan).await?)
            && self.is_readable(&shown).await
        {
            return Ok(shown.plan);
        }
        if self.tofu.raw.is_another(&self.request.step, &key) {
            tracing::warn!(
                step = self.request.step,
                "the module or the variables are others than the saved raw plan was made of; it is made again"
            );
        }
        let (mut plan, work) = self.plan().await?;
        // What our own apply made of the state is not a state that moved.
        if let Some(marker) = begun.filter(|marker| marker.key == key)
            && let (Some(now), Some(then)) = (&plan.basis, &marker.basis)
            && (then.lineage == now.lineage || then.lineage == state::NONE)
            && marker.made(now, &self.place)
        {
            plan.basis = marker.basis;
        }
        self.tofu.raw.put(key, Raw::new(&self.request.step, &plan, work, holds_secrets(self.request)));
        Ok(plan)
    }

    /// Whether this OpenTofu reads a raw plan that lay beside a saved plan. One of another version is made again.
    async fn is_readable(&self, raw: &Raw) -> bool {
        if !raw.is_brought {
            return true;
        }
        let shown = self.show(&raw.file, &Revealed::new()).await;
        if let Err(error) = &shown {
            tracing::warn!(%error, "a raw plan cannot be read; it is made again");
        }
        shown.is_ok()
    }

    /// Whether the state is the one that a plan was made on.
    async fn is_still(&self, plan: &StackPlan) -> Answer<bool> {
        match &plan.basis {
            Some(basis) => Ok(self.basis().await? == *basis),
            // Nothing to do was found by looking; so it is looked again.
            None => Ok(false),
        }
    }
}
