//! OpenTofu as a subprocess: plans without the state's lock, shows, and applies exactly the plan that was shown.
//!
//! Never takes a decision: what a plan holds is read from `show -json`, and what is applied is the plan file that this came
//! from. Arguments are a list, variables travel by a private file, the environment is what `program` lists. Failure modes: no
//! program or an old one, a module that cannot be initialised, a plan that fails, a state that is locked or moved, an apply
//! that breaks off half-way; each names the stack and the next move.

mod apply;
mod init;
mod outputs;
mod place;
mod plan;
mod program;
mod raw;
mod replace;
mod secrets;
mod state;
mod variables;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use self::init::Ready;
use self::place::Place;
use self::program::{Complaints, Held, Program};
use self::raw::{Marker, Raw, RawPlans};
use self::secrets::{holds_secrets, texts};
use self::variables::Revealed;
use super::{Said, Workplace};
use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, Identity, Purpose, Secrets, StackError, StackPlan, StackRequest, Tofu, TofuRead, Watch,
};

use crate::stack::{Document, Mask, Module};
use crate::units::Seconds;
use crate::value::Map;

const PLAN: &str = "tofu plan";

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
        Err(self.failed(operation, &complaint, &Mask::default()))
    }

    /// What went wrong, with the stack's name and without secrets.
    fn failed(&self, operation: &str, complaints: &Complaints, mask: &Mask) -> ProviderError {
        if let Some(held) = Held::read(complaints) {
            // A file's lock is the operating system's, and nobody can take it away.
            let is_file = self.module.backend.as_ref().is_none_or(|backend| backend.kind == "local");
            let unlock = self.command(&format!("force-unlock {}", held.id));
            return held.refusal(operation, &self.request.dir, now(), (!is_file).then_some(&unlock));
        }
        let message = complaints.text(&self.request.dir, mask);
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

    /// A raw plan as a document.
    async fn show(&self, file: &Path, revealed: &Revealed) -> Answer<Document> {
        let path = file.display().to_string();
        let text = self.read("tofu show", &["show", "-json", "-no-color", &path]).await?;
        Document::read(&text, &self.request.step, &texts(revealed))
            .map_err(|error| ProviderError::permanent("tofu show", format!("{}: {error}", self.request.dir)))
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
        (
            "workspaces not supported",
            "`replace` and `workspace` need a backend that has workspaces, such as `s3`",
        ),
        (
            "Variable not provided via",
            "what a backend or the source of a module is made of is read before the plan's variables are known: give a backend's settings as `backend`, or write the values into the module's terraform.tfvars",
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
