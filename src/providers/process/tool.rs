//! Running a program: a list of arguments, an environment that is on a list, a process group of its own.
//!
//! Ctrl-C reaches clawd alone, for the program is in a group of its own; the whole group ends with the future that waits for it,
//! as its [`Ending`] says. Never a shell.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::Environment;
use crate::providers::error::ProviderError;
use crate::providers::ports::Answer;

/// How a program is told to end when nobody waits for it any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// What it is told with, once.
    pub(super) signal: Signal,
    /// Whether only the program itself is told, not what it started: it ends its children in its own order.
    pub(super) alone: bool,
    /// How long it is given before the whole group is killed.
    pub(super) grace: Duration,
}

/// For programs that leave nothing behind.
pub(super) const AT_ONCE: Ending =
    Ending { signal: Signal::TERM, alone: false, grace: Duration::from_secs(2) };

/// A program to run.
pub(super) struct Tool<'a> {
    pub(super) program: &'a str,
    pub(super) dir: &'a Path,
    pub(super) environment: &'a Environment,
    /// Which variables it may see.
    pub(super) allowed: &'a [&'a str],
    /// Variables that it gets besides, whatever the environment says.
    pub(super) set: &'a [(String, OsString)],
    /// What to do when it is not there.
    pub(super) install: &'a str,
    pub(super) ending: Ending,
}

/// What a program said.
pub(super) struct Said {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Tool<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(args)
            .current_dir(self.dir)
            .env_clear()
            .envs(
                self.environment
                    .iter()
                    .filter(|(name, _)| name.to_str().is_some_and(|name| self.allowed.contains(&name)))
                    .map(|(name, value)| (name, value)),
            )
            .envs(self.set.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    fn start(&self, args: &[&str]) -> Answer<Group> {
        self.spawn(self.command(args))
    }

    fn spawn(&self, mut command: Command) -> Answer<Group> {
        match command.spawn() {
            Ok(child) => Ok(Group { child, ending: self.ending }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ProviderError::permanent(self.program, format!("there is no `{}` on PATH", self.program))
                    .help(self.install))
            }
            Err(error) => Err(ProviderError::permanent(self.program, format!("cannot be started: {error}"))),
        }
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, args: &[&str]) -> Answer<Said> {
        let mut group = self.start(args)?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let stdout = group.child.stdout.take();
        let stderr = group.child.stderr.take();
        let read_out = async {
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut out).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let read_err = async {
            if let Some(mut stderr) = stderr {
                stderr.read_to_end(&mut err).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let broken = |error: std::io::Error| {
            ProviderError::permanent(self.program, format!("its output broke off: {error}"))
        };
        tokio::try_join!(read_out, read_err).map_err(broken)?;
        let status = group.child.wait().await.map_err(broken)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { status, stdout: text(&out), stderr: text(&err) })
    }

    /// Runs it to its end with its output in a file, which is told line by line as it grows. The program outlives clawd: a
    /// pipe that nobody reads any more would end it in the middle of its work.
    pub(super) async fn record(
        &self,
        args: &[&str],
        output: &Path,
        mut line: impl FnMut(&str) + Send,
    ) -> Answer<ExitStatus> {
        let broken = |error: std::io::Error| {
            ProviderError::permanent(self.program, format!("{}: {error}", output.display()))
        };
        let file = private_file(output).map_err(broken)?;
        let mut command = self.command(args);
        command.stdout(file.try_clone().map_err(broken)?).stderr(file);
        let mut group = self.spawn(command)?;
        let mut tail = Tail { file: File::open(output).map_err(broken)?, rest: Vec::new() };
        let status = loop {
            tokio::select! {
                status = group.child.wait() => break status.map_err(broken)?,
                () = tokio::time::sleep(FOLLOW) => tail.read(&mut line).map_err(broken)?,
            }
        };
        tail.read(&mut line).map_err(broken)?;
        if !tail.rest.is_empty() {
            line(String::from_utf8_lossy(&tail.rest).trim_end());
        }
        Ok(status)
    }

    /// Runs it to its end, with each line of its standard error told as it comes.
    pub(super) async fn follow(
        &self,
        args: &[&str],
        mut line: impl FnMut(&str) + Send,
    ) -> Answer<ExitStatus> {
        let mut group = self.start(args)?;
        let broken = |error: std::io::Error| {
            ProviderError::permanent(self.program, format!("its output broke off: {error}"))
        };
        let stdout = group.child.stdout.take();
        let drain = async {
            let mut rest = Vec::new();
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut rest).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let stderr = group.child.stderr.take();
        let follow = async {
            let Some(stderr) = stderr else { return Ok(()) };
            let mut lines = BufReader::new(stderr);
            let mut bytes = Vec::new();
            while lines.read_until(b'\n', &mut bytes).await? > 0 {
                line(String::from_utf8_lossy(&bytes).trim_end());
                bytes.clear();
            }
            Ok::<_, std::io::Error>(())
        };
        tokio::try_join!(drain, follow).map_err(broken)?;
        group.child.wait().await.map_err(broken)
    }
}

/// How often a growing file is looked at.
const FOLLOW: Duration = Duration::from_millis(50);

/// A file that only its owner can read, new and empty.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)
}

/// The end of a file that grows.
struct Tail {
    file: File,
    rest: Vec<u8>,
}

impl Tail {
    /// Tells the lines that have come since the last look.
    fn read(&mut self, line: &mut impl FnMut(&str)) -> std::io::Result<()> {
        self.file.read_to_end(&mut self.rest)?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            line(String::from_utf8_lossy(&whole).trim_end());
        }
        Ok(())
    }
}

/// A child and all that it started.
struct Group {
    child: Child,
    ending: Ending,
}

impl Drop for Group {
    /// Ends the whole group when nobody waits for it any more.
    fn drop(&mut self) {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            return;
        };
        let Ending { signal, alone, grace } = self.ending;
        let told = if alone { kill_process(pid, signal) } else { kill_process_group(pid, signal) };
        // A group that is gone already needs no ending.
        if told.is_err() {
            return;
        }
        let until = std::time::Instant::now() + grace;
        while std::time::Instant::now() < until {
            // Reaps the child, so that the group can be seen to be gone.
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if test_kill_process_group(pid).is_err() {
                return;
            }
            // What was to end its children itself has ended; what is left of them it has forgotten.
            if ended && alone {
                break;
            }
            // Dropping cannot await, and a group has no event that says it is gone.
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_command_ends_with_its_children_and_sees_only_what_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let environment: Environment =
            vec![("PATH".into(), "/usr/bin:/bin".into()), ("SECRET".into(), "s".into())];
        let tool = Tool {
            program: "sh",
            dir: dir.path(),
            environment: &environment,
            allowed: &["PATH"],
            set: &[],
            install: "",
            ending: AT_ONCE,
        };
        let said = tool.run(&["-c", "echo [$SECRET]; echo e >&2; exit 3"]).await.unwrap();
        assert_eq!(
            (said.status.code(), said.stdout.as_str(), said.stderr.as_str()),
            (Some(3), "[]\n", "e\n")
        );
        let mut children = None;
        let running =
            tool.follow(&["-c", "sleep 300 & echo $! >&2; wait"], |line| children = line.parse::<i32>().ok());
        // The future is dropped once the child's child has said its number.
        let timeout = tokio::time::timeout(Duration::from_secs(1), running).await;
        assert!(timeout.is_err());
        let pid = Pid::from_raw(children.expect("the child's child said its number")).unwrap();
        assert!(
            rustix::process::test_kill_process(pid).is_err() || is_zombie(pid),
            "the child's child outlived the command"
        );
    }

    /// Nobody reaps orphans in some containers.
    fn is_zombie(pid: Pid) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .is_ok_and(|stat| stat.split(") ").nth(1).is_some_and(|rest| rest.starts_with('Z')))
    }
}
