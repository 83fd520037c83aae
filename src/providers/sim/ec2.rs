//! Simulated EC2 of one region: the ports and instances here, images and snapshots in `images`, volumes in `volumes`. Refuses what EC2
//! refuses, with EC2's error codes in the message: a duplicate AMI name, a volume attached elsewhere, another zone,
//! a token with other parameters.
//!
//! Regions share one world. Images and snapshots are kept apart by region; instances and volumes are in the home
//! region, other regions have none.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::Sim;
use super::images::{image_at, no_image, snapshot_at};
use super::tables::{Draft, Record, Tables};
use super::volumes::volume_at;
use crate::digest::sha256_hex;
use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, Ec2, Ec2Read, Image, ImageCopy, ImageRequest, ImageUse, Instance, Modification, Owned, Snapshot,
    SnapshotRequest, TAG_FLEET, TAG_HOST, TAG_STEP, Tags, Volume, VolumeRequest, VolumeShape,
};
use crate::units::GiB;

/// An AMI that is always there, as public images are. It can be launched from; it is in no table.
pub(super) const PUBLIC_AMI: &str = "ami-0123456789abcdef0";

/// EC2 of one region.
pub(super) struct Ec2Sim {
    pub(super) sim: Arc<Sim>,
    /// As records have it: empty for the home region.
    pub(super) region: String,
}

impl Ec2Sim {
    /// EC2 of a region, by its name.
    pub(super) fn of(sim: &Arc<Sim>, region: &str) -> Self {
        let region = if region == sim.home { "" } else { region };
        Self { sim: Arc::clone(sim), region: region.to_owned() }
    }

    /// Whether a record is in this region.
    fn holds(&self, record: &Record) -> bool {
        record.region() == self.region
    }

    /// A record of this region.
    pub(super) fn find<'a>(&self, tables: &'a Tables, table: &'static str, id: &str) -> Option<&'a Record> {
        tables.get(table, id).filter(|record| self.holds(record))
    }

    /// The records of this region that may carry all these tags; the caller filters.
    fn tagged<'a>(&self, tables: &'a Tables, table: &'static str, tags: &[(&str, &str)]) -> Vec<&'a Record> {
        let mut found = tables.tagged(table, tags);
        found.retain(|record| self.holds(record));
        found
    }
}

pub(super) fn refuse(operation: &'static str, message: String) -> ProviderError {
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
impl Ec2Read for Ec2Sim {
    async fn images(&self, tags: &[(&str, &str)]) -> Answer<Vec<Image>> {
        self.sim.faults.read("ec2 DescribeImages")?;
        let now = self.sim.now();
        Ok(self.sim.world.read(|tables| {
            self.tagged(tables, "image", tags)
                .into_iter()
                .filter_map(|record| image_at(record, now))
                .filter(|image| carries(&image.tags, tags))
                .collect()
        }))
    }

    async fn image_named(&self, name: &str) -> Answer<Option<Image>> {
        self.sim.faults.read("ec2 DescribeImages")?;
        let now = self.sim.now();
        Ok(self
            .sim
            .world
            .read(|tables| tables.image_named(&self.region, name).and_then(|record| image_at(record, now))))
    }

    async fn image(&self, id: &str) -> Answer<Option<Image>> {
        self.sim.faults.read("ec2 DescribeImages")?;
        let now = self.sim.now();
        Ok(self
            .sim
            .world
            .read(|tables| self.find(tables, "image", id).and_then(|record| image_at(record, now))))
    }

    async fn launch_permissions(&self, image: &str) -> Answer<Vec<String>> {
        const OPERATION: &str = "ec2 DescribeImageAttribute";
        self.sim.faults.read(OPERATION)?;
        let found = self.sim.world.read(|tables| match self.find(tables, "image", image) {
            Some(Record::Image { launch, .. }) => Some(launch.iter().cloned().collect::<Vec<_>>()),
            _ => None,
        });
        found.ok_or_else(|| no_image(OPERATION, image))
    }

    async fn image_uses(&self) -> Answer<Vec<ImageUse>> {
        self.sim.faults.read("ec2 DescribeInstances")?;
        let now = self.sim.now();
        Ok(self.sim.world.read(|tables| {
            tables
                .table("instance")
                .filter(|record| self.holds(record))
                .filter_map(|record| instance_at(record, now))
                .filter(|instance| instance.state != "terminated")
                .map(|Instance { id, image_id, tags, .. }| {
                    let host = tags.get(TAG_HOST).cloned();
                    ImageUse { image_id, by: id, host }
                })
                .collect()
        }))
    }

    async fn snapshot(&self, id: &str) -> Answer<Option<Snapshot>> {
        self.sim.faults.read("ec2 DescribeSnapshots")?;
        let now = self.sim.now();
        Ok(self
            .sim
            .world
            .read(|tables| self.find(tables, "snapshot", id).and_then(|record| snapshot_at(record, now))))
    }

    async fn snapshots(&self, tags: &[(&str, &str)]) -> Answer<Vec<Snapshot>> {
        self.sim.faults.read("ec2 DescribeSnapshots")?;
        let now = self.sim.now();
        Ok(self.sim.world.read(|tables| {
            self.tagged(tables, "snapshot", tags)
                .into_iter()
                .filter_map(|record| snapshot_at(record, now))
                .filter(|snapshot| carries(&snapshot.tags, tags))
                .collect()
        }))
    }

    async fn default_key(&self) -> Answer<Option<String>> {
        self.sim.faults.read("ec2 GetEbsEncryptionByDefault")?;
        Ok(None)
    }

    async fn volumes(&self, tags: &[(&str, &str)]) -> Answer<Vec<Volume>> {
        self.sim.faults.read("ec2 DescribeVolumes")?;
        let now = self.sim.now();
        Ok(self.sim.world.read(|tables| {
            self.tagged(tables, "volume", tags)
                .into_iter()
                .filter_map(|record| volume_at(tables, record, now))
                .filter(|volume| carries(&volume.tags, tags))
                .collect()
        }))
    }

    async fn volume(&self, id: &str) -> Answer<Option<Volume>> {
        self.sim.faults.read("ec2 DescribeVolumes")?;
        let now = self.sim.now();
        Ok(self
            .sim
            .world
            .read(|tables| self.find(tables, "volume", id).and_then(|record| volume_at(tables, record, now))))
    }

    async fn modification(&self, _: &str) -> Answer<Modification> {
        self.sim.faults.read("ec2 DescribeVolumesModifications")?;
        Ok(Modification::Done)
    }

    async fn instance(&self, id: &str) -> Answer<Option<Instance>> {
        self.sim.faults.read("ec2 DescribeInstances")?;
        let now = self.sim.now();
        Ok(self
            .sim
            .world
            .read(|tables| self.find(tables, "instance", id).and_then(|record| instance_at(record, now))))
    }

    async fn owned(&self, fleet: &str) -> Answer<Vec<Owned>> {
        self.sim.faults.read("ec2 DescribeTags")?;
        Ok(self.sim.world.read(|tables| {
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
                .filter(|record| self.holds(record))
                .filter_map(of)
                .collect()
        }))
    }

    fn read_in(&self, region: &str) -> Arc<dyn Ec2Read> {
        Arc::new(Self::of(&self.sim, region))
    }
}

#[async_trait]
impl Ec2 for Ec2Sim {
    async fn register_image(&self, request: &ImageRequest) -> Answer<String> {
        self.register(request)
    }

    async fn copy_image(&self, token: &str, request: &ImageCopy) -> Answer<String> {
        self.copy(token, request)
    }

    async fn set_launch_permissions(&self, image: &str, add: &[String], remove: &[String]) -> Answer<()> {
        self.change_image("ec2 ModifyImageAttribute", image, |_, launch| {
            launch.extend(add.iter().cloned());
            launch.retain(|account| !remove.contains(account));
        })
    }

    async fn deprecate_image(&self, image: &str, at: i64) -> Answer<()> {
        self.deprecate(image, at)
    }

    async fn deregister_image(&self, image: &str) -> Answer<()> {
        self.deregister(image)
    }

    async fn delete_snapshot(&self, snapshot: &str) -> Answer<()> {
        self.drop_snapshot(snapshot)
    }

    async fn create_volume(&self, token: &str, request: &VolumeRequest) -> Answer<String> {
        self.create_disk(token, request)
    }

    async fn attach_volume(&self, volume: &str, instance: &str) -> Answer<()> {
        self.attach(volume, instance)
    }

    async fn detach_volume(&self, volume: &str, instance: &str) -> Answer<()> {
        self.detach(volume, instance)
    }

    async fn delete_volume(&self, volume: &str) -> Answer<()> {
        self.delete_disk(volume)
    }

    async fn create_snapshot(&self, request: &SnapshotRequest) -> Answer<String> {
        self.snapshot_of(request)
    }

    async fn modify_volume(&self, volume: &str, wanted: &VolumeShape) -> Answer<()> {
        self.modify(volume, wanted)
    }

    async fn tag(&self, id: &str, tags: &Tags) -> Answer<()> {
        const OPERATION: &str = "ec2 CreateTags";
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(self.sim.now(), |draft| {
                let tables = draft.tables();
                let found = ["volume", "image", "snapshot"]
                    .into_iter()
                    .find_map(|table| self.find(tables, table, id));
                let Some(mut record) = found.cloned() else {
                    return Err(refuse(OPERATION, format!("InvalidID: {id}")));
                };
                if let Some(own) = record.tags_mut() {
                    own.extend(tags.clone());
                }
                draft.put(record);
                Ok(())
            })
        })
    }

    fn in_region(&self, region: &str) -> Arc<dyn Ec2> {
        Arc::new(Self::of(&self.sim, region))
    }
}
