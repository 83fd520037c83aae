//! OpenTofu as a subprocess: plans without the state's lock, shows, and applies exactly the plan that was shown.
//!
//! Never takes a decision: what a plan holds is read from `show -json`, and what is applied is the plan file that this came
//! from. Arguments are a list, variables travel by a private file, the environment is what `program` lists. Failure modes: no
//! program or an old one, a module that cannot be initialised, a plan that fails, a state that is locked or moved, an apply
//! that breaks off half-way; each names the stack and the next move.

mod apply;
mod init;
mod place;
mod program;
mod raw;
mod replace;
mod secrets;
mod state;
mod variables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use self::init::{Ready, unstamp};
use self::place::{Place, Work};
use self::program::{Complaints, Held, Program};
use self::raw::{Marker, Raw, RawPlans};
use self::secrets::{holds_secrets, texts, without};
use self::variables::{Revealed, VarFile};
use super::{Said, Workplace};
use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, Basis, Identity, Purpose, Secrets, StackError, StackPlan, StackRequest, Tofu, TofuRead, Watch,
};
use crate::stack::module::is_preset_file;
use crate::stack::plan::{Document, read_outputs};
use crate::stack::{Filled, Module, Placeholders, Type};
use crate::units::Seconds;
use crate::value::{Map, Path as ValuePath, Value};

const PLAN: &str = "tofu plan";

/// What OpenTofu says when what `init` made is gone.
const NOT_INITIALISED: [&str; 2] =
    ["Required plugins are not installed", "Inconsistent dependency lock file"];

/// How long an apply waits for a lock when the profile does not say.
const LOCK_TIMEOUT: Seconds = Seconds(30);

/// What surrounds OpenTofu here, as the profile says it.
pub struct Surroundings {
    /// Variables of the environment that it gets whatever clawd's own says.
    pub variables: Vec<(String, OsString)>,
    /// Settings of an `s3` backend that neither the module nor the step makes.
    pub backend: BTreeMap<String, String>,
    /// What stands before the key of a state in the bucket: the fleet.
    pub key_prefix: String,
    /// Who has to agree before anything runs: OpenTofu has credentials of its own.
    pub identity: Option<Arc<dyn Identity>>,
    /// Where secrets are read.
    pub secrets: Arc<dyn Secrets>,
    /// Plans at once.
    pub at_once: usize,
    /// How long an apply waits for a lock that somebody else holds.
    pub lock_timeout: Seconds,
}

impl Surroundings {
    /// A profile that says nothing but where secrets are.
    #[must_use]
    pub fn new(secrets: Arc<dyn Secrets>) -> Self {
        Self {
            variables: Vec::new(),
            backend: BTreeMap::new(),
            key_prefix: String::new(),
            identity: None,
            secrets,
            at_once: 1,
            lock_timeout: LOCK_TIMEOUT,
        }
    }
}

/// OpenTofu on this machine.
pub(super) struct TofuProcess {
    place: Workplace,
    around: Surroundings,
    gate: Semaphore,
    init: tokio::sync::Mutex<()>,
    raw: RawPlans,
    /// The last request of each step: where a sensitive output can be read again.
    stacks: Mutex<HashMap<String, StackRequest>>,
}

/// A stack that is ready to be planned or applied.
struct Stack<'a> {
    tofu: &'a TofuProcess,
    request: &'a StackRequest,
    program: Program,
    place: Place,
    module: Module,
    /// A digest of the module's files: with the request, it names a plan.
    source: String,
    /// Keeps the data directory as it is.
    _in_use: File,
    set: Vec<(String, OsString)>,
}

impl TofuProcess {
    pub(super) fn new(place: Workplace, around: Surroundings) -> Self {
        let gate = Semaphore::new(around.at_once.max(1));
        Self {
            place,
            around,
            gate,
            init: tokio::sync::Mutex::new(()),
            raw: RawPlans::default(),
            stacks: Mutex::default(),
        }
    }

    /// Everything that has to be there before a stack is looked at.
    async fn stack<'a>(&'a self, request: &'a StackRequest) -> Answer<Stack<'a>> {
        if let Some(identity) = &self.around.identity {
            identity.check().await?;
        }
        let program = Program::find(&self.place.environment, request.binary.as_deref())?;
        let place = Place::of(&self.place.root, &self.place.cache, request)?;
        let Ready { module, source, in_use } = self.ready(&program, &place, request).await?;
        let set = self.variables(&place, request);
        Ok(Stack { tofu: self, request, program, place, module, source, _in_use: in_use, set })
    }

    /// Variables of the environment for a stack.
    fn variables(&self, place: &Place, request: &StackRequest) -> Vec<(String, OsString)> {
        let mut set = program::calm();
        set.extend(program::tokens(&self.place.environment));
        set.push(("TF_DATA_DIR".to_owned(), place.data().into()));
        if request.workspace != "default" {
            set.push(("TF_WORKSPACE".to_owned(), request.workspace.clone().into()));
        }
        if !self.place.environment.iter().any(|(name, _)| name == "TF_PLUGIN_CACHE_DIR") {
            set.push(("TF_PLUGIN_CACHE_DIR".to_owned(), self.plugins().into()));
        }
        set.extend(self.around.variables.iter().cloned());
        set
    }

    fn lock_timeout(&self) -> String {
        format!("-lock-timeout={}s", self.around.lock_timeout.0)
    }

    /// Where providers are kept, for all stacks of the profile.
    fn plugins(&self) -> std::path::PathBuf {
        self.place.cache.join("tofu").join("plugins")
    }
}

impl Stack<'_> {
    /// What names the plan of this request on these files.
    fn key(&self) -> String {
        let request = serde_json::to_string(self.request).unwrap_or_default();
        crate::digest::sha256_hex(format!("{}\n{request}", self.source).as_bytes())
    }

    async fn run(&self, args: &[&str]) -> Answer<Said> {
        self.program.tool(&self.place.module, &self.tofu.place.environment, &self.set).run(args).await
    }

    /// A command that must succeed; its stdout.
    async fn read(&self, operation: &str, args: &[&str]) -> Answer<String> {
        let said = self.run(args).await?;
        if said.status.success() {
            return Ok(program::document(&said.stdout).to_owned());
        }
        let complaint = Complaints(vec![program::Complaint::plain(&said.stderr)]);
        Err(self.failed(operation, &complaint, &Revealed::new()))
    }

    async fn output_text(&self) -> Answer<String> {
        self.read("tofu output", &["output", "-json", "-no-color"]).await
    }

    /// What went wrong, with the stack's name and without secrets.
    fn failed(&self, operation: &str, complaints: &Complaints, revealed: &Revealed) -> ProviderError {
        if let Some(held) = Held::read(complaints) {
            // A file's lock is the operating system's, and nobody can take it away.
            let is_file = self.module.backend.as_ref().is_none_or(|backend| backend.kind == "local");
            let unlock = self.command(&format!("force-unlock {}", held.id));
            return held.refusal(operation, &self.request.dir, now(), (!is_file).then_some(&unlock));
        }
        let message = without(&complaints.text(&self.request.dir), revealed);
        let error = ProviderError::permanent(operation, format!("{}: {message}", self.request.dir));
        match hint(&message) {
            Some(help) => error.help(help),
            None => error,
        }
    }

    /// A command line that means this stack, for people.
    fn command(&self, command: &str) -> String {
        self.place.command(&self.program.name, &self.request.dir, &self.request.workspace, command)
    }

    /// Makes a plan.
    async fn plan(&self) -> Result<(StackPlan, Work), StackError> {
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
            Err(error)
                if filled.is_speculative()
                    && error.operation == PLAN
                    && error.kind == crate::providers::ErrorKind::Permanent =>
            {
                Err(StackError::Undecided {
                    reason: "the speculative plan failed".to_owned(),
                    warning: Some(format!(
                        "planned with placeholders, OpenTofu said: {}; `placeholders` gives it others",
                        error.message.split_whitespace().collect::<Vec<_>>().join(" ")
                    )),
                })
            }
            result => Ok(result?),
        }
    }

    async fn planned(
        &self,
        filled: &Filled,
        revealed: &Revealed,
        replace: &[String],
    ) -> Answer<(StackPlan, Work)> {
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
            return Err(self.failed(PLAN, &complaints, revealed));
        }
        let mut document = self.show(&file, revealed).await?;
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
            warnings: program::warnings(&said.stdout, &self.request.dir)
                .into_iter()
                .map(|warning| without(&warning, revealed))
                .collect(),
        };
        self.check_outputs(plan.outputs.as_map())?;
        self.check_addresses(&plan).await?;
        if plan.acts() && !speculative {
            plan.basis = Some(self.basis().await?);
        }
        Ok((plan, work))
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

    /// A raw plan as a document.
    async fn show(&self, file: &Path, revealed: &Revealed) -> Answer<Document> {
        let path = file.display().to_string();
        let text = self.read("tofu show", &["show", "-json", "-no-color", &path]).await?;
        Document::read(&text, &self.request.step, &texts(revealed))
            .map_err(|error| ProviderError::permanent("tofu show", format!("{}: {error}", self.request.dir)))
    }

    /// Holds outputs against the types that the script declares.
    fn check_outputs(&self, outputs: Option<&Map>) -> Answer<()> {
        for (name, text) in &self.request.outputs {
            let failed = |what: String| {
                ProviderError::permanent(
                    "tofu output",
                    format!("the output `{name}` of {}: {what}", self.request.dir),
                )
                .help("mend the type in `outputs`, or the module")
            };
            let ty = Type::parse(text).map_err(failed)?;
            let misfit = outputs.and_then(|outputs| outputs.get(name)).and_then(|value| {
                let misfit = ty.misfits(value).into_iter().next()?;
                let at = if misfit.path == ValuePath::root() {
                    String::new()
                } else {
                    format!("{}: ", misfit.path)
                };
                Some(format!("{at}{}", misfit.message))
            });
            if let Some(misfit) = misfit {
                return Err(failed(misfit));
            }
        }
        Ok(())
    }

    /// Outputs as they are now. One that the module has and the state has not is null.
    async fn outputs(&self, hidden: &BTreeSet<String>, revealed: &Revealed) -> Answer<Map> {
        let text = self.output_text().await?;
        let mut outputs =
            read_outputs(&text, &self.request.step, hidden, &texts(revealed)).map_err(|error| {
                ProviderError::permanent("tofu output", format!("{}: {error}", self.request.dir))
            })?;
        if !self.request.destroy {
            for name in
                self.module.outputs.keys().filter(|name| outputs.get(name).is_none()).collect::<Vec<_>>()
            {
                outputs.insert(name.clone(), Value::Null);
            }
        }
        self.check_outputs(Some(&outputs))?;
        Ok(outputs)
    }

    /// The plan that is acted on: the one that was shown as long as the state is the one it was made on, else a fresh one.
    async fn plan_to_act(&self) -> Result<StackPlan, StackError> {
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

/// The next move, for what OpenTofu says often.
fn hint(message: &str) -> Option<&'static str> {
    let table = [
        (
            "Error asking for state migration action",
            "a state of another backend lies in the module's directory: move it with `tofu init -migrate-state`",
        ),
        (
            "Failed to persist state",
            "OpenTofu left the state in errored.tfstate in the module's directory: `state push errored.tfstate` there, before anything else",
        ),
        ("plan file was created by", "the plan was made by another version: plan again"),
        (
            "Failed to resolve provider packages",
            "the provider's registry cannot be reached, or has no such version; a mirror is set up in OpenTofu's CLI configuration",
        ),
        (
            "Failed to query available provider packages",
            "the provider's registry cannot be reached, or has no such version; a mirror is set up in the CLI configuration",
        ),
        ("use_lockfile", "the lock beside a state in S3 needs OpenTofu or Terraform 1.10 or newer"),
        (
            "Required plugins are not installed",
            "the providers that were there are gone: run again, and they are fetched",
        ),
        ("no such host", "check the network and the names in the module's backend and providers"),
        ("connection refused", "nothing listens there; check the endpoint"),
        ("NoSuchBucket", "the state's bucket is not there: `clawd bootstrap` makes the profile's"),
        ("bucket does not exist", "the state's bucket is not there: `clawd bootstrap` makes the profile's"),
    ];
    table.iter().find(|(sign, _)| message.contains(sign)).map(|(_, help)| *help)
}

/// Seconds since the epoch, for ages.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[async_trait]
impl TofuRead for TofuProcess {
    async fn plan(&self, request: &StackRequest, purpose: Purpose) -> Result<StackPlan, StackError> {
        let _permit = self.gate.acquire().await.ok();
        let stack = self.stack(request).await?;
        let known = self
            .stacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(request.step.clone(), request.clone());
        drop(known);
        match purpose {
            Purpose::Act => stack.plan_to_act().await,
            Purpose::Show => {
                let (plan, work) = stack.plan().await?;
                // What is begun from now on is begun with this plan.
                Marker::forget(&stack.place);
                self.raw.put(stack.key(), Raw::new(&request.step, &plan, work, holds_secrets(request)));
                Ok(plan)
            }
        }
    }

    fn keep(&self, dir: &Path) -> Answer<()> {
        self.raw.keep(dir)
    }

    fn discard(&self, dir: &Path) {
        if let Err(error) = raw::clear(dir) {
            tracing::warn!(dir = %dir.display(), %error, "raw plans that nobody needs any more cannot be removed");
        }
    }

    fn bring(&self, dir: &Path) {
        self.raw.bring(dir);
    }
}

#[async_trait]
impl Tofu for TofuProcess {
    async fn apply(&self, request: &StackRequest, plan: &StackPlan, watch: &dyn Watch) -> Answer<Map> {
        let stack = self.stack(request).await?;
        stack.apply(plan, watch).await
    }
}

impl Stack<'_> {
    /// Which state it is now.
    async fn basis(&self) -> Answer<Basis> {
        Ok(self.state().await?.basis())
    }
}
