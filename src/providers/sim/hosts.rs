//! Simulated hosts: what the host's half of clawd would do and answer. A volume is formatted only when the
//! caller allows it and nothing is on it.

use async_trait::async_trait;

use super::Sim;
use super::ec2::{instance_at, volume_at};
use super::tables::{Content, Draft, Record};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{
    Answer, Hosts, HostsRead, MemoryConfig, MemoryStatus, MountReport, MountRequest,
};

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
                let tables = draft.tables();
                let id = &request.volume_id;
                let no_device =
                    || ProviderError::permanent(OPERATION, format!("no device bears the serial of {id}"));
                let record = tables.get("volume", id).cloned().ok_or_else(no_device)?;
                if volume_at(tables, &record, now).and_then(|volume| volume.attached_to).as_deref()
                    != Some(instance)
                {
                    return Err(no_device());
                }
                let Record::Volume { row, ready_at, content } = record else {
                    return Err(no_device());
                };
                let key = format!("{instance}#{}", request.path);
                if let Some(Record::Mount { row: mounted, .. }) = tables.get("mount", &key)
                    && mounted.volume_id != *id
                {
                    let message = format!("{} is the mount of {}", request.path, mounted.volume_id);
                    return Err(ProviderError::refused(OPERATION, message));
                }
                let content = match content {
                    Some(content) if content.fs == request.fs => content,
                    Some(content) => {
                        let message = format!(
                            "{id} holds {}, not {}: it is not formatted anew",
                            content.fs, request.fs
                        );
                        return Err(ProviderError::refused(OPERATION, message)
                            .help("give the step the file system it has"));
                    }
                    None if request.may_format => {
                        Content { fs: request.fs.clone(), uuid: draft.fresh_id("uuid") }
                    }
                    None => {
                        let message =
                            format!("{id} has no file system, and its tag does not say that it is blank");
                        return Err(ProviderError::refused(OPERATION, message)
                            .help("look at the volume; if it is empty, tag it clawd:state=blank"));
                    }
                };
                let report = MountReport {
                    volume_id: id.clone(),
                    path: request.path.clone(),
                    fs: content.fs.clone(),
                    uuid: content.uuid.clone(),
                    owner: request.owner.clone(),
                    group: request.group.clone(),
                    mode: request.mode.clone(),
                    size: row.size,
                };
                draft.put(Record::Volume { row, ready_at, content: Some(content) });
                draft.put(Record::Mount { instance: instance.to_owned(), row: report.clone() });
                Ok(report)
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
                let mounted = draft.tables().with_prefix("mount", &key).any(|record| match record {
                    Record::Mount { row, .. } => {
                        config.dir.starts_with(&format!("{}/", row.path.trim_end_matches('/')))
                    }
                    _ => false,
                });
                if !mounted {
                    let message = format!("{} lies on no mounted volume", config.dir);
                    return Err(ProviderError::refused(OPERATION, message)
                        .help("an unmounted directory must not read as \"everything deleted\": mount the volume first"));
                }
                let key = format!("{instance}#{}", config.dir);
                let files = match draft.tables().get("memory", &key) {
                    Some(Record::Memory { row, .. }) => row.files,
                    _ => FRESH_FILES,
                };
                let status = MemoryStatus { config: config.clone(), in_step: true, conflicts: 0, files };
                draft.put(Record::Memory { instance: instance.to_owned(), row: status.clone() });
                Ok(status)
            })
        })
    }
}
