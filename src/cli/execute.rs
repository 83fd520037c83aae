//! What `run`, `apply` and `resume` share: asking, locking, journaling, applying, and telling how it went.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::exit::{Exit, Failed};
use super::progress::{self, Format};
use super::signals::{Asked, Signals};
use super::terminal::Terminal;
use super::workspace::Workspace;
use crate::diagnostic::{Code, Diagnostic};
use crate::exec::journal::{FileJournal, Journal, Record};
use crate::exec::lock::{Holder, Lock};
use crate::exec::{Applied, ApplyError, Interrupt, Options, apply};
use crate::plan::budget::Cost;
use crate::plan::render::leaf;
use crate::plan::{Decided, Plan, Target, file};
use crate::providers::Providers;
use crate::script::Sources;

/// The saved plan in a run's directory.
pub(super) const PLAN_FILE: &str = "plan.json";

/// Where the raw plans of stacks lie beside a saved plan. They hold state, so they are readable for their owner only.
pub(super) fn beside(plan: &Path) -> PathBuf {
    let mut name = plan.file_name().unwrap_or_default().to_os_string();
    name.push(".d");
    plan.with_file_name(name)
}

/// Options of everything that applies.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// Apply without asking.
    #[arg(long, short = 'y')]
    pub(super) yes: bool,
    /// Steps at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallelism: Option<u16>,
    /// Start nothing new after the first failure.
    #[arg(long)]
    fail_fast: bool,
}

/// A run to carry out.
pub(super) struct Job<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) providers: &'a Providers,
    pub(super) plan: &'a Plan<Decided>,
    pub(super) sources: &'a Sources,
    pub(super) args: &'a ApplyArgs,
    pub(super) format: Format,
    pub(super) command_line: &'a str,
    /// The run to go on with, and what it spent of the budget.
    pub(super) resumes: Option<(String, Vec<Cost>)>,
}

/// The current time, RFC 3339.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A run's id: when it began, and a random part for two in one second.
fn new_run_id() -> String {
    format!("{}-{:04x}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), fastrand::u16(..))
}

/// Gets a person's approval of a plan, or says why there is none.
pub(super) fn approve(plan: &Plan<Decided>, args: &ApplyArgs, terminal: &Terminal) -> Result<(), Diagnostic> {
    let Target { fleet, profile, .. } = &plan.header.target;
    let question = format!("\nApply this plan to fleet {fleet} of profile {profile}?");
    let help = "review the plan and pass --yes, or save it with `clawd plan -o FILE` and apply that file";
    ask(args.yes, &question, help, terminal)
}

/// Asks a person, unless there is a yes already. `help` is the next move where nobody can be asked.
pub(super) fn ask(yes: bool, question: &str, help: &str, terminal: &Terminal) -> Result<(), Diagnostic> {
    if yes {
        return Ok(());
    }
    if !terminal.asks {
        let message = "the plan was not approved: there is no terminal to ask on";
        return Err(Diagnostic::error(Code::PlanNotApproved, message).help(help));
    }
    if terminal.confirms(question) {
        Ok(())
    } else {
        Err(Diagnostic::error(Code::PlanNotApproved, "the plan was not approved; nothing was done"))
    }
}

impl Job<'_> {
    /// Applies the plan under the lock.
    pub(super) fn run(
        self,
        terminal: &Terminal,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Exit, Box<Failed>> {
        self.workspace.ensure_state()?;
        let (run, spent) = self.resumes.clone().unwrap_or_else(|| (new_run_id(), Vec::new()));
        let holder = Holder {
            run: run.clone(),
            pid: std::process::id(),
            command: self.command_line.to_owned(),
            since: now(),
        };
        let _lock = Lock::acquire(&self.workspace.locks(), &self.plan.header.target, &holder)?;
        let dir = self.workspace.runs().join(&run);
        let journal = self.open_journal(&dir, &run)?;
        let options = Options {
            run: run.clone(),
            parallelism: self.args.parallelism.map_or(self.workspace.profile.parallelism, usize::from),
            per_port: self.workspace.profile.per_port.clone(),
            fail_fast: self.args.fail_fast,
            spent,
        };
        let observer = progress::observer(self.format, terminal);
        let applied = runtime.block_on(async {
            let (sender, interrupt) = watch::channel(Interrupt::None);
            // Before anything begins: until the signal has a handler, Ctrl-C ends the process.
            let signals = Signals::new();
            let listener = tokio::spawn(listen_for_interrupts(signals, sender));
            let applied = apply(self.plan, self.providers, &journal, &*observer, interrupt, &options).await;
            listener.abort();
            applied
        });
        drop(observer);
        let status = applied.as_ref().map_or("refused", Applied::status);
        let ended =
            runtime.block_on(journal.durable(&Record::RunEnded { status: status.to_owned(), at: now() }));
        let mut failed = match applied {
            Ok(applied) => {
                return self.conclude(&applied, &run, terminal, ended.err().map(|error| error.to_string()));
            }
            Err(ApplyError::Problems(problems) | ApplyError::Stale(problems)) => problems,
            Err(ApplyError::OverBudget(problem)) => vec![*problem],
            Err(ApplyError::Interrupted) => {
                vec![Diagnostic::error(Code::RunInterrupted, "interrupted before anything was done")]
            }
        };
        if let Err(error) = ended {
            failed.push(Diagnostic::error(Code::StateUnwritable, error.to_string()));
        }
        Err(Box::new(Failed { diagnostics: failed, sources: self.sources.clone() }))
    }

    fn open_journal(&self, dir: &Path, run: &str) -> Result<FileJournal, Diagnostic> {
        let unwritable = |error: std::io::Error| {
            Diagnostic::error(
                Code::StateUnwritable,
                format!("cannot write the run's journal in {}: {error}", dir.display()),
            )
            .help("nothing is done without a journal; make the project's .clawd directory writable")
        };
        // The plan first: a run that has a journal can be resumed.
        if self.resumes.is_none() {
            fs::create_dir_all(dir)
                .and_then(|()| write_atomically(&dir.join(PLAN_FILE), &file::to_file(self.plan)))
                .map_err(unwritable)?;
            let raw = beside(&dir.join(PLAN_FILE));
            self.providers
                .tofu
                .keep(&raw)
                .map_err(|error| unwritable(std::io::Error::other(error.to_string())))?;
        }
        let journal = FileJournal::open(dir).map_err(unwritable)?;
        let started = Record::RunStarted {
            run: run.to_owned(),
            plan: file::plan_digest(self.plan),
            at: now(),
            command: self.command_line.to_owned(),
            resumed: self.resumes.is_some(),
        };
        journal
            .append(&started)
            .map_err(|error| Diagnostic::error(Code::StateUnwritable, error.to_string()))?;
        Ok(journal)
    }

    fn conclude(
        &self,
        applied: &Applied,
        run: &str,
        terminal: &Terminal,
        journal: Option<String>,
    ) -> Result<Exit, Box<Failed>> {
        if let Some(error) = journal {
            terminal.note(&format!("warning: the end of the run is not in its journal: {error}"));
        }
        if self.format == Format::Human {
            terminal.out(&summary(applied, run, terminal));
        }
        let mut diagnostics: Vec<Diagnostic> = applied.failures().cloned().collect();
        if applied.interrupted {
            diagnostics.push(
                Diagnostic::error(Code::RunInterrupted, format!("the run {run} was interrupted"))
                    .help(format!("`clawd resume {run}` goes on; so does running the same command again")),
            );
        }
        if diagnostics.is_empty() {
            // Nobody resumes a run that is complete, and raw plans hold state.
            self.providers.tofu.discard(&beside(&self.workspace.runs().join(run).join(PLAN_FILE)));
            return Ok(Exit::Done);
        }
        Err(Box::new(Failed { diagnostics, sources: self.sources.clone() }))
    }
}

fn summary(applied: &Applied, run: &str, terminal: &Terminal) -> String {
    use std::fmt::Write as _;
    let style = terminal.style();
    let failed = applied.failures().count();
    let mut text = String::new();
    let head = if failed == 0 && !applied.interrupted { "Applied:" } else { "Not complete:" };
    let _ = write!(text, "\n{} {} done", style.heading(head), applied.done());
    if failed > 0 {
        let _ = write!(text, ", {failed} failed");
    }
    if applied.skipped() > 0 {
        let _ = write!(text, ", {} skipped", applied.skipped());
    }
    let _ = writeln!(text, ". {}", style.dim(&format!("(run {run})")));
    if let Some(outputs) = applied.outputs.as_map().filter(|outputs| !outputs.is_empty()) {
        let _ = writeln!(text, "\n{}", style.heading("Outputs:"));
        for (name, value) in outputs.iter() {
            let _ = writeln!(text, "      {name} = {}", leaf(value));
        }
    }
    text
}

/// The first Ctrl-C lets running steps finish, the second stops at once.
async fn listen_for_interrupts(signals: std::io::Result<Signals>, sender: watch::Sender<Interrupt>) {
    let Ok(mut signals) = signals else { return };
    for at_most in [Interrupt::Finish, Interrupt::Abort] {
        let next = match signals.next().await {
            Asked::Interrupt => at_most,
            Asked::Terminate => Interrupt::Abort,
        };
        // The receiver is gone when the run is over.
        let _ = sender.send(next);
    }
}

/// Writes a file that is either whole or not there.
pub(super) fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let fresh: PathBuf = path.with_file_name(name);
    let written = fs::File::create(&fresh).and_then(|mut file| {
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| {
        // What was begun is of no use to anyone.
        let _ = fs::remove_file(&fresh);
    })
}
