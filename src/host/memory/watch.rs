//! Keeping a memory in step all the time: a round when something changed here, and one every so often for what changed elsewhere.
//!
//! What changes is told by the kernel. A change waits for others to follow, so that an agent that writes ten files causes one round;
//! a failing store is asked less and less often. Nothing is decided by what the kernel says: each round looks at everything, so an
//! event that was lost costs time and no line. Between rounds no file of the memory is held open, and its volume can be unmounted.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::error::MemoryError;
use super::{Memory, Report, Shrinking};
use crate::memory::path::RESERVED;
use crate::providers::ports::MemoryStore;

/// How long nothing must have changed before a round.
const QUIET: Duration = Duration::from_millis(500);

/// How long a change waits at most while others follow.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after a first failure a round is tried again; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What changes in a directory.
const CHANGES: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::DONT_FOLLOW);

/// Room for the events of one read.
const BUFFER: usize = 16 << 10;

/// The kernel's word for what changes below a directory.
pub struct Watch {
    events: EventStream<Vec<u8>>,
    /// Which directory a watch is of.
    dirs: HashMap<WatchDescriptor, PathBuf>,
}

impl Watch {
    /// Watches a directory and all below it.
    ///
    /// # Errors
    /// The kernel gives no more watches; the directory is not there.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let events = Inotify::init()?.into_event_stream(vec![0; BUFFER])?;
        let mut watch = Self { events, dirs: HashMap::new() };
        watch.add(dir)?;
        Ok(watch)
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        let watch = self.events.watches().add(dir, CHANGES)?;
        self.dirs.insert(watch, dir.to_owned());
        // Whatever is made while this looks is told, because the directory is watched by now.
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && !is_own(&entry.file_name().to_string_lossy()) {
                self.add_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A directory that went while we looked needs no watch.
    fn add_if_there(&mut self, dir: &Path) -> io::Result<()> {
        match self.add(dir) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Waits until something has changed.
    ///
    /// # Errors
    /// The kernel's events cannot be read.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let Some(event) = self.events.next().await else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let event = event?;
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                // Directories may have been made of which nobody was told.
                return Err(io::Error::other("too much changed at once to be told"));
            }
            // Files on their way are clawd's own.
            let name = event.name.as_ref().map(|name| name.to_string_lossy().into_owned());
            if name.as_deref().is_some_and(is_own) {
                continue;
            }
            if event.mask.contains(EventMask::IGNORED) {
                // What was watched is gone, and was told of before.
                self.dirs.remove(&event.wd);
                continue;
            }
            if event.mask.contains(EventMask::ISDIR)
                && let (Some(dir), Some(name)) = (self.dirs.get(&event.wd), name)
            {
                self.add_if_there(&dir.join(name))?;
            }
            return Ok(());
        }
    }

    /// Waits until nothing has changed for a moment, or for as long as a change may wait.
    async fn settle(&mut self) -> io::Result<()> {
        let last = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + QUIET).min(last);
            match timeout_at(quiet, self.changed()).await {
                Ok(changed) => changed?,
                Err(_) => return Ok(()),
            }
            if Instant::now() >= last {
                return Ok(());
            }
        }
    }
}

fn is_own(name: &str) -> bool {
    name.starts_with(RESERVED)
}

/// What happens while a memory is kept in step.
#[derive(Debug)]
pub enum Told {
    /// A round has ended.
    Round(Report),
    /// A round could not be made; the next try is this long away.
    Failed(MemoryError, Duration),
    /// The kernel does not tell what changes, so only the period is left.
    Blind(io::Error),
}

/// Keeps a memory in step until `stop` is there: a round that runs is finished first. The memory is opened anew for each round, so
/// that a directory that was unmounted meanwhile is noticed.
pub async fn keep_in_step(
    dir: &Path,
    store: &dyn MemoryStore,
    remote: &str,
    period: Duration,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(Told),
) {
    tokio::pin!(stop);
    let (mut failures, mut retries) = (0_u32, 0_u32);
    // Watched before the first round: what changes while it runs causes the next one.
    let mut watch = None;
    loop {
        if watch.is_none() {
            watch = match Watch::of(dir) {
                Ok(watch) => Some(watch),
                Err(error) => {
                    tell(Told::Blind(error));
                    None
                }
            };
        }
        // A round is never broken off: stopping waits for its end.
        let pause = match round(dir, store, remote).await {
            Ok(report) => {
                // Single files may fail for ever, and are no reason not to watch the others.
                let failed = !report.failed.is_empty();
                tell(Told::Round(report));
                failures = 0;
                retries = if failed { retries + 1 } else { 0 };
                if failed { pause(retries).min(period) } else { period }
            }
            Err(error) => {
                failures += 1;
                let pause = pause(failures);
                tell(Told::Failed(error, pause));
                // What is watched may be what was there before a directory was unmounted, or replaced.
                watch = None;
                pause
            }
        };
        let until = Instant::now() + pause;
        let changed = async {
            match &mut watch {
                // While no round can be made, a change here makes it no better.
                Some(watch) if failures == 0 => match watch.changed().await {
                    Ok(()) => watch.settle().await,
                    Err(error) => Err(error),
                },
                _ => std::future::pending().await,
            }
        };
        let lost = tokio::select! {
            biased;
            () = &mut stop => return,
            changed = changed => changed.err(),
            () = sleep_until(until) => None,
        };
        if let Some(error) = lost {
            tell(Told::Blind(error));
            watch = None;
            sleep(QUIET).await;
        }
    }
}

async fn round(dir: &Path, store: &dyn MemoryStore, remote: &str) -> Result<Report, MemoryError> {
    Memory::open(dir)?.sync(store, remote, Shrinking::Refused).await
}

/// Longer with each failure in a row, and different for each host.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + fastrand::f64() / 2.0)
}
