//! Hosts that this machine stands for: each volume is a disk image, attached as a loop device, and what runs on a host is run here, by
//! the same command that runs on an instance. For rehearsals beside a test server in a cloud's place, never beside a real one: the
//! images are this machine's own.
//!
//! An image lies in the directory of the instance that its volume is attached to, and moves when the volume does.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AT_ONCE, Tool, Workplace, plain};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{
    Answer, HOST_FORMAT, HostError, HostOutcome, HostReply, HostSpec, Hosts, HostsRead, MemoryConfig,
    MemoryRequest, MemoryStatus, MountReport, MountRequest, MountSource, MountedRequest, UnmountRequest,
    VolumeSource,
};
use crate::units::GiB;

/// What the commands may see of the environment: where programs are, and who calls a shared memory.
const ALLOWED: [&str; 5] =
    ["PATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"];

/// How long a detached device may keep its image, and how often it is looked at: the kernel has no event for it that a process
/// could wait for.
const DETACHING: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_millis(50);

/// The hosts of this machine.
pub(super) struct LocalHosts {
    place: Workplace,
    /// clawd itself.
    clawd: PathBuf,
    /// Where the images are.
    images: PathBuf,
    /// Variables of the commands, such as where a test server is.
    variables: Vec<(String, std::ffi::OsString)>,
}

fn wrong(what: &str, path: &Path, error: &std::io::Error) -> ProviderError {
    ProviderError::permanent("local host", format!("cannot {what} {}: {error}", path.display()))
        .help("loop devices and mounts are root's; run as root, or use another profile")
}

impl LocalHosts {
    pub(super) fn new(
        place: Workplace,
        clawd: PathBuf,
        images: PathBuf,
        variables: Vec<(String, std::ffi::OsString)>,
    ) -> Self {
        Self { place, clawd, images, variables }
    }

    async fn run(&self, program: &str, args: &[&str]) -> Answer<String> {
        let said = self.tool(program).run(args).await?;
        match said.status.success() {
            true => Ok(said.stdout),
            false => Err(ProviderError::permanent(program, plain(said.stderr.trim()))
                .help("loop devices and mounts are root's; run as root, or use another profile")),
        }
    }

    fn tool<'a>(&'a self, program: &'a str) -> Tool<'a> {
        Tool {
            program,
            dir: &self.place.root,
            environment: &self.place.environment,
            allowed: &ALLOWED,
            set: &self.variables,
            install: "install util-linux",
            ending: AT_ONCE,
        }
    }

    /// The directory of the disks of an instance.
    fn disks(&self, instance: &str) -> Answer<PathBuf> {
        let dir = self.images.join(instance);
        fs::create_dir_all(&dir).map_err(|error| wrong("make", &dir, &error))?;
        dir.canonicalize().map_err(|error| wrong("use", &dir, &error))
    }

    /// Attaches a volume's image, as EC2 attaches a volume: from wherever it was, made when it is new, grown when the volume grew.
    async fn attach(&self, instance: &str, volume: &str, size: GiB) -> Answer<()> {
        let image = self.disks(instance)?.join(format!("{volume}.img"));
        if !image.exists()
            && let Some(before) = self.elsewhere(volume)?
        {
            // The other instance is gone, or let go of it: EC2 would not have let the volume be attached here otherwise.
            self.release(&before).await?;
            fs::rename(&before, &image).map_err(|error| wrong("move", &before, &error))?;
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&image);
        let file = file.map_err(|error| wrong("make", &image, &error))?;
        let bytes = size.0 << 30;
        let length = file.metadata().map_err(|error| wrong("look at", &image, &error))?.len();
        if length < bytes {
            file.set_len(bytes).map_err(|error| wrong("grow", &image, &error))?;
        }
        let path = image.to_string_lossy().into_owned();
        match self.loops(&image).await?.as_slice() {
            [] => self.run("losetup", &["--find", &path]).await.map(|_| ()),
            [device] if length < bytes => self.run("losetup", &["--set-capacity", device]).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Takes a volume's image away from the machine, with whatever is mounted from it.
    async fn release(&self, image: &Path) -> Answer<()> {
        for device in self.loops(image).await? {
            let mounted = self
                .tool("findmnt")
                .run(&["--noheadings", "--output", "TARGET", "--source", &device])
                .await?;
            for path in mounted.stdout.lines() {
                self.run("umount", &[path]).await?;
            }
            self.run("losetup", &["--detach", &device]).await?;
        }
        // A device that somebody looks at in this moment is detached when he is done, and has the image until then: whoever attaches
        // it meanwhile would be told that it is attached.
        let until = Instant::now() + DETACHING;
        while let Some(device) = self.loops(image).await?.first() {
            if Instant::now() >= until {
                let message = format!("{device} still has {} after it was detached", image.display());
                return Err(ProviderError::new(ErrorKind::Transient, "losetup", message)
                    .help("something uses the device: `lsof` or `fuser` says what"));
            }
            tokio::time::sleep(PATIENCE).await;
        }
        Ok(())
    }

    async fn loops(&self, image: &Path) -> Answer<Vec<String>> {
        let path = image.to_string_lossy();
        let said = self.run("losetup", &["--noheadings", "--output", "NAME", "--associated", &path]).await?;
        Ok(said.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// The image of a volume in another instance's directory.
    fn elsewhere(&self, volume: &str) -> Answer<Option<PathBuf>> {
        let entries = fs::read_dir(&self.images).map_err(|error| wrong("read", &self.images, &error))?;
        let name = format!("{volume}.img");
        Ok(entries.filter_map(Result::ok).map(|entry| entry.path().join(&name)).find(|path| path.exists()))
    }

    /// Asks `clawd host` here what an instance would be asked.
    async fn ask<T: DeserializeOwned>(
        &self,
        instance: &str,
        what: &str,
        token: Option<&str>,
        request: &(impl Serialize + Sync),
    ) -> Answer<T> {
        let operation = format!("host {what}");
        let broken = |why: String| ProviderError::permanent(&operation, format!("{instance} answered {why}"));
        let disks = self.disks(instance)?;
        let spec = self.spec(token, request)?;
        let path = spec.0.to_string_lossy().into_owned();
        // Each of the hosts has answers, and a lock, of its own.
        let (images, run) = (disks.to_string_lossy(), disks.join("run"));
        let (run, clawd) = (run.to_string_lossy(), self.clawd.to_string_lossy());
        let args = ["host", what, "--spec", &path, "--images", &images, "--run", &run];
        let said = self.tool(&clawd).run(&args).await?;
        let Some(line) = said.stdout.lines().last() else {
            return Err(broken(format!("nothing: {}", plain(said.stderr.trim()))));
        };
        let reply: HostReply<T> =
            serde_json::from_str(line).map_err(|error| broken(format!("something else: {error}")))?;
        if reply.version != HOST_FORMAT || reply.token.as_deref() != token {
            return Err(broken("another question".to_owned()));
        }
        match reply.outcome {
            HostOutcome::Ok(done) => Ok(done),
            HostOutcome::Error(HostError { kind, message, help }) => {
                // Output of a host is data.
                let (message, help) = (plain(&message), help.map(|help| plain(&help)));
                Err(HostError { kind, message, help }.of(&operation))
            }
        }
    }

    fn spec(&self, token: Option<&str>, request: &impl Serialize) -> Answer<Spec> {
        let path = self.place.cache.join(format!("host-{:016x}.json", fastrand::u64(..)));
        let text = serde_json::to_vec(&HostSpec::new(token.map(str::to_owned), request)).unwrap_or_default();
        fs::create_dir_all(&self.place.cache).map_err(|error| wrong("make", &self.place.cache, &error))?;
        let written = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        let spec = Spec(path);
        written
            .and_then(|mut file| file.write_all(&text))
            .map_err(|error| wrong("write", &spec.0, &error))?;
        Ok(spec)
    }
}

/// A spec's file, which goes when it was read.
struct Spec(PathBuf);

impl Drop for Spec {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[async_trait]
impl HostsRead for LocalHosts {
    async fn mounted(&self, instance: &str, path: &str) -> Answer<Option<MountReport>> {
        self.ask(instance, "mounted", None, &MountedRequest { path: path.to_owned() }).await
    }

    async fn memory(&self, instance: &str, dir: &str) -> Answer<Option<MemoryStatus>> {
        self.ask(instance, "memory-status", None, &MemoryRequest { dir: dir.to_owned() }).await
    }
}

#[async_trait]
impl Hosts for LocalHosts {
    async fn mount(&self, token: &str, instance: &str, request: &MountRequest) -> Answer<MountReport> {
        if let MountSource::Volume(VolumeSource { id, size, .. }) = &request.source {
            self.attach(instance, id, *size).await?;
        }
        self.ask(instance, "mount", Some(token), request).await
    }

    async fn unmount(&self, token: &str, instance: &str, request: &UnmountRequest) -> Answer<()> {
        let done: () = self.ask(instance, "unmount", Some(token), request).await?;
        // What is unmounted here is detached next, and then the host has no such disk.
        self.release(&self.disks(instance)?.join(format!("{}.img", request.volume_id))).await?;
        Ok(done)
    }

    async fn keep_memory(&self, token: &str, instance: &str, config: &MemoryConfig) -> Answer<MemoryStatus> {
        self.ask(instance, "memory", Some(token), config).await
    }
}
