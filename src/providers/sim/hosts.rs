//! Simulated hosts: what the host's half of clawd would do and answer. A volume is formatted only when the
//! caller allows it and nothing is on it.

use async_trait::async_trait;

use super::Sim;
use super::ec2::instance_at;
use super::tables::{Content, Draft, Record, Removable};
use super::volumes::volume_at;
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{
    Answer, Hosts, HostsRead, MemoryConfig, MemoryStatus, MountReport, MountRequest, MountSource,
    UnmountRequest, VolumeSource,
};
use crate::units::GiB;

/// Files a fresh memory directory has: the sentinel and the index.
const FRESH_FILES: u32 = 2;

fn reachable(draft: &Draft<'_>, operation: &'static str, instance: &str, now: i64) -> Answer<()> {
    match draft.tables().get("instance", instance).and_then(|record| instance_at(record, now)) {
        Some(host) if host.state == "running" => Ok(()),
        Some(host) => {
            Err(ProviderError::new(ErrorKind::Transient, operation, format!("{instance} is {}", host.state)))
        }
        None => Err(ProviderError::permanent(operation, format!("{instance} does not exist"))),
    }
}

/// What is on an attached volume; a file system is made where that is allowed and nothing is on it.
fn on_volume(
    draft: &mut Draft<'_>,
    instance: &str,
    source: &VolumeSource,
    now: i64,
) -> Answer<(Content, GiB)> {
    const OPERATION: &str = "host mount";
    let VolumeSource { id, fs, may_format, .. } = source;
    let no_device = || ProviderError::permanent(OPERATION, format!("no device bears the serial of {id}"));
    let tables = draft.tables();
    let record = tables.get("volume", id).cloned().ok_or_else(no_device)?;
    if volume_at(tables, &record, now).and_then(|volume| volume.attached_to).as_deref() != Some(instance) {
        return Err(no_device());
    }
    let Record::Volume { row, ready_at, content } = record else {
        return Err(no_device());
    };
    let content = match content {
        Some(content) if content.fs == *fs => content,
        Some(content) => {
            let message = format!("{id} holds {}, not {fs}: it is not formatted anew", content.fs);
            return Err(
                ProviderError::refused(OPERATION, message).help("give the step the file system it has")
            );
        }
        None if *may_format => Content { fs: fs.clone(), uuid: draft.fresh_id("uuid") },
        None => {
            let message = format!("{id} has no file system, and its tag does not say that it is blank");
            return Err(ProviderError::refused(OPERATION, message)
                .help("look at the volume; if it is empty, tag it clawd:state=blank"));
        }
    };
    let size = row.size;
    draft.put(Record::Volume { row, ready_at, content: Some(content.clone()) });
    Ok((content, size))
}

#[async_trait]
impl HostsRead for Sim {
    async fn mounted(&self, instance: &str, path: &str) -> Answer<Option<MountReport>> {
        self.faults.read("host mount status")?;
        let key = format!("{instance}#{path}");
        Ok(self.world.read(|tables| match tables.get("mount", &key) {
            Some(Record::Mount { row, .. }) => Some(row.clone()),
            _ => None,
        }))
    }

    async fn memory(&self, instance: &str, dir: &str) -> Answer<Option<MemoryStatus>> {
        self.faults.read("host memory status")?;
        let key = format!("{instance}#{dir}");
        Ok(self.world.read(|tables| match tables.get("memory", &key) {
            Some(Record::Memory { row, .. }) => Some(row.clone()),
            _ => None,
        }))
    }
}

#[async_trait]
impl Hosts for Sim {
    async fn mount(&self, _token: &str, instance: &str, request: &MountRequest) -> Answer<MountReport> {
        const OPERATION: &str = "host mount";
        let now = self.now();
        self.faults.write(OPERATION, || {
            self.world.commit(now, |draft| {
                reachable(draft, OPERATION, instance, now)?;
                let key = format!("{instance}#{}", request.path);
                if let Some(Record::Mount { row: mounted, .. }) = draft.tables().get("mount", &key)
                    && mounted.source != request.source.id()
                {
                    let message = format!("{} is the mount of {}", request.path, mounted.source);
                    return Err(ProviderError::refused(OPERATION, message));
                }
                let (content, size) = match &request.source {
                    MountSource::Volume(source) => on_volume(draft, instance, source, now)?,
                    // There is nothing to make: the file system is the stack's.
                    MountSource::Efs(_) => (Content { fs: "efs".to_owned(), uuid: String::new() }, GiB(0)),
                };
                let report = MountReport {
                    source: request.source.id().to_owned(),
                    path: request.path.clone(),
                    fs: content.fs.clone(),
                    uuid: content.uuid.clone(),
                    owner: request.owner.clone(),
                    group: request.group.clone(),
                    mode: request.mode.clone(),
                    size,
                };
                draft.put(Record::Mount { instance: instance.to_owned(), row: report.clone() });
                Ok(report)
            })
        })
    }

    async fn unmount(&self, _token: &str, instance: &str, request: &UnmountRequest) -> Answer<()> {
        const OPERATION: &str = "host unmount";
        let now = self.now();
        self.faults.write(OPERATION, || {
            self.world.commit(now, |draft| {
                reachable(draft, OPERATION, instance, now)?;
                let key = format!("{instance}#{}", request.path);
                let prefix = format!("{instance}#");
                let elsewhere = draft.tables().with_prefix("mount", &prefix).find_map(|record| match record {
                    Record::Mount { row, .. } if row.source == request.volume_id && row.path != request.path => {
                        Some(row.path.clone())
                    }
                    _ => None,
                });
                if let Some(path) = elsewhere {
                    let message = format!("{} is mounted at {path}", request.volume_id);
                    return Err(ProviderError::refused(OPERATION, message)
                        .help("name that as `path`, or unmount it there first: it would be pulled from under its mount"));
                }
                match draft.tables().get("mount", &key) {
                    None => Ok(()),
                    Some(Record::Mount { row, .. }) if row.source != request.volume_id => {
                        let message = format!("{} is the mount of {}", request.path, row.source);
                        Err(ProviderError::refused(OPERATION, message))
                    }
                    Some(_) => {
                        draft.put(Record::Gone { of: Removable::Mount, key });
                        Ok(())
                    }
                }
            })
        })
    }

    async fn keep_memory(&self, _token: &str, instance: &str, config: &MemoryConfig) -> Answer<MemoryStatus> {
        const OPERATION: &str = "host memory";
        let now = self.now();
        self.faults.write(OPERATION, || {
            self.world.commit(now, |draft| {
                reachable(draft, OPERATION, instance, now)?;
                let key = format!("{instance}#");
                let below = config.dir.starts_with(&format!("{}/", config.mount.trim_end_matches('/')));
                let mounted = draft
                    .tables()
                    .with_prefix("mount", &key)
                    .any(|record| matches!(record, Record::Mount { row, .. } if row.path == config.mount));
                if !mounted || !below {
                    let message = format!("{} lies on no mounted volume", config.dir);
                    return Err(ProviderError::refused(OPERATION, message)
                        .help("an unmounted directory must not read as \"everything deleted\": mount the volume first"));
                }
                let key = format!("{instance}#{}", config.dir);
                let files = match draft.tables().get("memory", &key) {
                    Some(Record::Memory { row, .. }) => row.files,
                    _ => FRESH_FILES,
                };
                // The simulator's rounds end in step, and its watching hosts stay so: there is no age to tell.
                let status = MemoryStatus {
                    config: config.clone(),
                    in_step: true,
                    age: None,
                    versions: None,
                    conflicts: 0,
                    files,
                    pending: None,
                };
                draft.put(Record::Memory { instance: instance.to_owned(), row: status.clone() });
                Ok(status)
            })
        })
    }
}
