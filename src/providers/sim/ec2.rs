//! Simulated EC2: images, snapshots, volumes, instances. Refuses what EC2 refuses, with EC2's error codes in
//! the message: a duplicate AMI name, a volume attached elsewhere, another zone, a token with other
//! parameters.

use async_trait::async_trait;
use serde::Serialize;

use super::Sim;
use super::world::{Draft, Record, Tables};
use crate::plan::digest::sha256_hex;
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{
    Answer, Ec2, Ec2Read, Image, ImageRequest, Instance, Owned, Snapshot, SnapshotRequest, TAG_FLEET,
    TAG_STEP, Tags, Volume, VolumeRequest, VolumeShape,
};
use crate::units::{GiB, Seconds};

/// How long things take.
const SNAPSHOT_READY: Seconds = Seconds(45);
const IMAGE_READY: Seconds = Seconds(30);
const VOLUME_READY: Seconds = Seconds(8);

/// An AMI that is always there, as public images are.
pub(super) const PUBLIC_AMI: &str = "ami-0123456789abcdef0";

fn refuse(operation: &'static str, message: String) -> ProviderError {
    ProviderError::permanent(operation, message)
}

/// A record's state at a moment: what was on its way is there once its time has come.
pub(super) fn instance_at(record: &Record, now: i64) -> Option<Instance> {
    let Record::Instance { row, gone_at } = record else {
        return None;
    };
    let state = match gone_at {
        Some(at) if now >= *at => "terminated",
        Some(_) => "shutting-down",
        None => row.state.as_str(),
    };
    Some(Instance { state: state.to_owned(), ..row.clone() })
}

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

fn image_at(record: &Record, now: i64) -> Option<Image> {
    let Record::Image { row, ready_at } = record else {
        return None;
    };
    let state = if now < *ready_at { "pending" } else { "available" };
    Some(Image { state: state.to_owned(), ..row.clone() })
}

fn snapshot_at(record: &Record, now: i64) -> Option<Snapshot> {
    let Record::Snapshot { row, ready_at } = record else {
        return None;
    };
    let state = if now < *ready_at { "pending" } else { "completed" };
    Some(Snapshot { state: state.to_owned(), ..row.clone() })
}

fn carries(tags: &Tags, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| tags.get(*key).is_some_and(|tag| tag == value))
}

/// Answers a known token with what it made, or makes something under a new one.
pub(super) fn under_token(
    draft: &mut Draft<'_>,
    operation: &'static str,
    token: &str,
    params: &impl Serialize,
    make: impl FnOnce(&mut Draft<'_>) -> Answer<String>,
) -> Answer<String> {
    let params =
        sha256_hex(&serde_json::to_vec(params).map_err(|error| refuse(operation, error.to_string()))?);
    if let Some(Record::Token { params: known, result, .. }) = draft.tables().get("token", token) {
        return if *known == params {
            Ok(result.clone())
        } else {
            Err(refuse(
                operation,
                "IdempotentParameterMismatch: the token was used with other parameters".to_owned(),
            ))
        };
    }
    let result = make(draft)?;
    draft.put(Record::Token { token: token.to_owned(), params, result: result.clone() });
    Ok(result)
}

#[async_trait]
impl Ec2Read for Sim {
    async fn images(&self, tags: &[(&str, &str)]) -> Answer<Vec<Image>> {
        self.faults.read("ec2 DescribeImages")?;
        let now = self.now();
        Ok(self.world.read(|tables| {
            let found = tables.tagged("image", tags);
            found
                .into_iter()
                .filter_map(|record| image_at(record, now))
                .filter(|image| carries(&image.tags, tags))
                .collect()
        }))
    }

    async fn image_named(&self, name: &str) -> Answer<Option<Image>> {
        self.faults.read("ec2 DescribeImages")?;
        let now = self.now();
        Ok(self.world.read(|tables| tables.image_named(name).and_then(|record| image_at(record, now))))
    }

    async fn snapshot(&self, id: &str) -> Answer<Option<Snapshot>> {
        self.faults.read("ec2 DescribeSnapshots")?;
        let now = self.now();
        Ok(self.world.read(|tables| tables.get("snapshot", id).and_then(|record| snapshot_at(record, now))))
    }

    async fn volumes(&self, tags: &[(&str, &str)]) -> Answer<Vec<Volume>> {
        self.faults.read("ec2 DescribeVolumes")?;
        let now = self.now();
        Ok(self.world.read(|tables| {
            let found = tables.tagged("volume", tags);
            let at = |record| volume_at(tables, record, now).filter(|volume| carries(&volume.tags, tags));
            found.into_iter().filter_map(at).collect()
        }))
    }

    async fn volume(&self, id: &str) -> Answer<Option<Volume>> {
        self.faults.read("ec2 DescribeVolumes")?;
        let now = self.now();
        Ok(self
            .world
            .read(|tables| tables.get("volume", id).and_then(|record| volume_at(tables, record, now))))
    }

    async fn instance(&self, id: &str) -> Answer<Option<Instance>> {
        self.faults.read("ec2 DescribeInstances")?;
        let now = self.now();
        Ok(self.world.read(|tables| tables.get("instance", id).and_then(|record| instance_at(record, now))))
    }

    async fn owned(&self, fleet: &str) -> Answer<Vec<Owned>> {
        self.faults.read("ec2 DescribeTags")?;
        Ok(self.world.read(|tables| {
            let owned = |kind: &str, id: &str, tags: &Tags, size: Option<GiB>, created: i64| {
                carries(tags, &[(TAG_FLEET, fleet)]).then(|| Owned {
                    kind: kind.to_owned(),
                    id: id.to_owned(),
                    step: tags.get(TAG_STEP).cloned(),
                    size,
                    created,
                })
            };
            let of = |record: &Record| match record {
                Record::Image { row, .. } => owned("ami", &row.id, &row.tags, None, row.created),
                Record::Snapshot { row, .. } => {
                    owned("snapshot", &row.id, &row.tags, Some(row.size), row.created)
                }
                Record::Volume { row, .. } => {
                    owned("volume", &row.id, &row.tags, Some(row.size), row.created)
                }
                _ => None,
            };
            ["image", "snapshot", "volume"]
                .into_iter()
                .flat_map(|table| tables.table(table))
                .filter_map(of)
                .collect()
        }))
    }
}

#[async_trait]
impl Ec2 for Sim {
    async fn import_snapshot(&self, token: &str, request: &SnapshotRequest) -> Answer<String> {
        self.faults.write("ec2 ImportSnapshot", || {
            self.world.commit(self.now(), |draft| {
                under_token(draft, "ec2 ImportSnapshot", token, request, |draft| {
                    let id = draft.fresh_id("snap");
                    draft.put(Record::Snapshot {
                        row: Snapshot {
                            id: id.clone(),
                            state: "pending".to_owned(),
                            size: GiB::holding(request.size),
                            tags: request.tags.clone(),
                            created: self.now(),
                        },
                        ready_at: self.ready_after(SNAPSHOT_READY),
                    });
                    Ok(id)
                })
            })
        })
    }

    async fn register_image(&self, request: &ImageRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 RegisterImage";
        let now = self.now();
        self.faults.write(OPERATION, || {
            self.world.commit(now, |draft| {
                let taken = draft.tables().image_named(&request.name).is_some();
                if taken {
                    return Err(refuse(
                        OPERATION,
                        format!("InvalidAMIName.Duplicate: the name {} is in use", request.name),
                    ));
                }
                let snapshot = draft
                    .tables()
                    .get("snapshot", &request.snapshot_id)
                    .and_then(|record| snapshot_at(record, now));
                match snapshot.map(|snapshot| snapshot.state) {
                    Some(state) if state == "completed" => {}
                    Some(state) => {
                        return Err(refuse(
                            OPERATION,
                            format!("InvalidSnapshot: {} is {state}", request.snapshot_id),
                        ));
                    }
                    None => {
                        return Err(refuse(
                            OPERATION,
                            format!("InvalidSnapshot.NotFound: {}", request.snapshot_id),
                        ));
                    }
                }
                let id = draft.fresh_id("ami");
                draft.put(Record::Image {
                    row: Image {
                        id: id.clone(),
                        name: request.name.clone(),
                        state: "pending".to_owned(),
                        snapshot_id: request.snapshot_id.clone(),
                        tags: request.tags.clone(),
                        created: now,
                    },
                    ready_at: self.ready_after(IMAGE_READY),
                });
                Ok(id)
            })
        })
    }

    async fn create_volume(&self, token: &str, request: &VolumeRequest) -> Answer<String> {
        self.faults.write("ec2 CreateVolume", || {
            self.world.commit(self.now(), |draft| {
                under_token(draft, "ec2 CreateVolume", token, request, |draft| {
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
                            tags: request.tags.clone(),
                            created: self.now(),
                        },
                        ready_at: self.ready_after(VOLUME_READY),
                        content: None,
                    });
                    Ok(id)
                })
            })
        })
    }

    async fn attach_volume(&self, volume: &str, instance: &str) -> Answer<()> {
        const OPERATION: &str = "ec2 AttachVolume";
        let now = self.now();
        self.faults.write(OPERATION, || {
            self.world.commit(now, |draft| {
                let tables = draft.tables();
                let record = tables
                    .get("volume", volume)
                    .ok_or_else(|| refuse(OPERATION, format!("InvalidVolume.NotFound: {volume}")))?;
                let there = volume_at(tables, record, now)
                    .ok_or_else(|| refuse(OPERATION, format!("InvalidVolume.NotFound: {volume}")))?;
                let host = tables
                    .get("instance", instance)
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

    async fn modify_volume(&self, volume: &str, wanted: &VolumeShape) -> Answer<()> {
        const OPERATION: &str = "ec2 ModifyVolume";
        let VolumeShape { size, kind, iops, throughput } = wanted.clone();
        self.faults.write(OPERATION, || {
            self.world.commit(self.now(), |draft| match draft.tables().get("volume", volume).cloned() {
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
            })
        })
    }

    async fn tag(&self, id: &str, tags: &Tags) -> Answer<()> {
        const OPERATION: &str = "ec2 CreateTags";
        self.faults.write(OPERATION, || {
            self.world.commit(self.now(), |draft| match draft.tables().get("volume", id).cloned() {
                Some(Record::Volume { mut row, ready_at, content }) => {
                    row.tags.extend(tags.clone());
                    draft.put(Record::Volume { row, ready_at, content });
                    Ok(())
                }
                _ => Err(ProviderError::new(ErrorKind::Permanent, OPERATION, format!("InvalidID: {id}"))),
            })
        })
    }
}
