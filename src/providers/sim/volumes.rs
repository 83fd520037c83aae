//! Volumes of the simulated EC2, with what is on them, and the snapshots that are made of them. A volume goes only when it is
//! attached nowhere, and what is detached is not mounted any more.

use super::ec2::{Ec2Sim, instance_at, refuse, under_token};
use super::images::no_snapshot;
use super::tables::{Content, Record, Removable, Tables};
use crate::providers::ports::{Answer, Snapshot, SnapshotRequest, Volume, VolumeRequest, VolumeShape};
use crate::units::Seconds;

/// How long a volume takes.
const VOLUME_READY: Seconds = Seconds(8);

/// How long a snapshot of a volume takes.
const SNAPSHOT_READY: Seconds = Seconds(60);

pub(super) fn volume_at(tables: &Tables, record: &Record, now: i64) -> Option<Volume> {
    let Record::Volume { row, ready_at, .. } = record else {
        return None;
    };
    let mut volume = row.clone();
    let holder_gone = |id: &String| {
        tables
            .get("instance", id)
            .and_then(|record| instance_at(record, now))
            .is_none_or(|it| it.state == "terminated")
    };
    if volume.attached_to.as_ref().is_some_and(holder_gone) {
        volume.attached_to = None;
    }
    volume.state = match &volume.attached_to {
        Some(_) => "in-use",
        None if now < *ready_at => "creating",
        None => "available",
    }
    .to_owned();
    Some(volume)
}

impl Ec2Sim {
    pub(super) fn create_disk(&self, token: &str, request: &VolumeRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 CreateVolume";
        if !self.region.is_empty() {
            let message = format!("UnsupportedOperation: simulated volumes are in {} only", self.sim.home);
            return Err(refuse(OPERATION, message));
        }
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(self.sim.now(), |draft| {
                under_token(draft, OPERATION, token, request, |draft| {
                    let content = match &request.snapshot {
                        Some(snapshot) => self.content_of(draft.tables(), snapshot)?,
                        None => None,
                    };
                    let id = draft.fresh_id("vol");
                    draft.put(Record::Volume {
                        row: Volume {
                            id: id.clone(),
                            zone: request.zone.clone(),
                            size: request.size,
                            kind: request.kind.clone(),
                            iops: request.iops,
                            throughput: request.throughput,
                            state: "creating".to_owned(),
                            attached_to: None,
                            leaving: false,
                            snapshot: request.snapshot.clone(),
                            tags: request.tags.clone(),
                            created: self.sim.now(),
                        },
                        ready_at: self.sim.ready_after(VOLUME_READY),
                        content,
                    });
                    Ok(id)
                })
            })
        })
    }

    pub(super) fn attach(&self, volume: &str, instance: &str) -> Answer<()> {
        const OPERATION: &str = "ec2 AttachVolume";
        let now = self.sim.now();
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(now, |draft| {
                let tables = draft.tables();
                let record = self
                    .find(tables, "volume", volume)
                    .ok_or_else(|| refuse(OPERATION, format!("InvalidVolume.NotFound: {volume}")))?;
                let there = volume_at(tables, record, now)
                    .ok_or_else(|| refuse(OPERATION, format!("InvalidVolume.NotFound: {volume}")))?;
                let host = self
                    .find(tables, "instance", instance)
                    .and_then(|record| instance_at(record, now))
                    .ok_or_else(|| refuse(OPERATION, format!("InvalidInstanceID.NotFound: {instance}")))?;
                match (there.attached_to.as_deref(), there.state.as_str()) {
                    (Some(holder), _) if holder == instance => return Ok(()),
                    (Some(holder), _) => {
                        return Err(refuse(
                            OPERATION,
                            format!("VolumeInUse: {volume} is already attached to {holder}"),
                        ));
                    }
                    (None, "available") => {}
                    (None, state) => {
                        return Err(refuse(OPERATION, format!("IncorrectState: {volume} is {state}")));
                    }
                }
                if host.state != "running" {
                    return Err(refuse(OPERATION, format!("IncorrectState: {instance} is {}", host.state)));
                }
                if host.zone != there.zone {
                    let message = format!(
                        "InvalidVolume.ZoneMismatch: {volume} is in {}, {instance} in {}",
                        there.zone, host.zone
                    );
                    return Err(refuse(OPERATION, message));
                }
                if let Record::Volume { row, ready_at, content } = record.clone() {
                    let row = Volume { attached_to: Some(instance.to_owned()), ..row };
                    draft.put(Record::Volume { row, ready_at, content });
                }
                Ok(())
            })
        })
    }

    pub(super) fn detach(&self, volume: &str, instance: &str) -> Answer<()> {
        const OPERATION: &str = "ec2 DetachVolume";
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(self.sim.now(), |draft| {
                let tables = draft.tables();
                let Some(Record::Volume { row, ready_at, content }) =
                    self.find(tables, "volume", volume).cloned()
                else {
                    return Err(refuse(OPERATION, format!("InvalidVolume.NotFound: {volume}")));
                };
                if row.attached_to.as_deref() != Some(instance) {
                    return Ok(());
                }
                // EC2 would wait for a host that has it mounted, until somebody pulls it by force.
                let running = self
                    .find(tables, "instance", instance)
                    .and_then(|record| instance_at(record, self.sim.now()))
                    .is_some_and(|it| it.state == "running");
                let prefix = format!("{instance}#");
                let gone: Vec<String> = tables
                    .with_prefix("mount", &prefix)
                    .filter(|record| matches!(record, Record::Mount { row, .. } if row.source == volume))
                    .map(|record| record.place().1)
                    .collect();
                if let Some(key) = gone.first().filter(|_| running) {
                    let message = format!("IncorrectState: {volume} is mounted on its host ({key})");
                    return Err(refuse(OPERATION, message));
                }
                for key in gone {
                    draft.put(Record::Gone { of: Removable::Mount, key });
                }
                let row = Volume { attached_to: None, ..row };
                draft.put(Record::Volume { row, ready_at, content });
                Ok(())
            })
        })
    }

    pub(super) fn delete_disk(&self, volume: &str) -> Answer<()> {
        const OPERATION: &str = "ec2 DeleteVolume";
        let now = self.sim.now();
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(now, |draft| {
                let tables = draft.tables();
                let Some(record) = self.find(tables, "volume", volume) else { return Ok(()) };
                if let Some(holder) = volume_at(tables, record, now).and_then(|it| it.attached_to) {
                    let message = format!("VolumeInUse: {volume} is attached to {holder}");
                    return Err(refuse(OPERATION, message));
                }
                draft.put(Record::Gone { of: Removable::Volume, key: volume.to_owned() });
                Ok(())
            })
        })
    }

    pub(super) fn modify(&self, volume: &str, wanted: &VolumeShape) -> Answer<()> {
        const OPERATION: &str = "ec2 ModifyVolume";
        let VolumeShape { size, kind, iops, throughput } = wanted.clone();
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(self.sim.now(), |draft| {
                match self.find(draft.tables(), "volume", volume).cloned() {
                    Some(Record::Volume { row, .. }) if row.size > size => {
                        let message =
                            format!("InvalidParameterValue: {volume} has {}, {size} is smaller", row.size);
                        Err(refuse(OPERATION, message))
                    }
                    Some(Record::Volume { row, ready_at, content }) => {
                        let (iops, throughput) = (iops.or(row.iops), throughput.or(row.throughput));
                        let row = Volume { size, kind, iops, throughput, ..row };
                        draft.put(Record::Volume { row, ready_at, content });
                        Ok(())
                    }
                    _ => Err(refuse(OPERATION, format!("InvalidVolume.NotFound: {volume}"))),
                }
            })
        })
    }

    /// What a volume has that is made from a snapshot.
    fn content_of(&self, tables: &Tables, snapshot: &str) -> Answer<Option<Content>> {
        match self.find(tables, "snapshot", snapshot) {
            Some(Record::Snapshot { content, .. }) => Ok(content.clone()),
            _ => Err(no_snapshot("ec2 CreateVolume", snapshot)),
        }
    }

    /// Begins a snapshot of a volume.
    pub(super) fn snapshot_of(&self, request: &SnapshotRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 CreateSnapshot";
        let now = self.sim.now();
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(now, |draft| {
                let id = &request.volume_id;
                let Some(Record::Volume { row: volume, content, .. }) =
                    self.find(draft.tables(), "volume", id).cloned()
                else {
                    return Err(refuse(OPERATION, format!("InvalidVolume.NotFound: {id}")));
                };
                let row = Snapshot {
                    id: draft.fresh_id("snap"),
                    state: "pending".to_owned(),
                    state_reason: None,
                    size: volume.size,
                    volume_id: Some(volume.id),
                    kms_key: None,
                    tags: request.tags.clone(),
                    created: now,
                };
                let (id, ready_at) = (row.id.clone(), self.sim.ready_after(SNAPSHOT_READY));
                let region = self.region.clone();
                draft.put(Record::Snapshot { row, ready_at, region, upload: None, content });
                Ok(id)
            })
        })
    }
}
