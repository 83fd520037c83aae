//! Images and snapshots of the simulated EC2, region by region. An AMI's name is taken once in each region, and a
//! snapshot goes only when no AMI is made of it.

use std::collections::BTreeSet;

use super::ec2::{Ec2Sim, refuse, under_token};
use super::tables::{Record, Removable, Tables};
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, Image, ImageCopy, ImageRequest, Snapshot};
use crate::units::Seconds;

/// How long an image takes, registered or copied.
const IMAGE_READY: Seconds = Seconds(30);

pub(super) fn image_at(record: &Record, now: i64) -> Option<Image> {
    let Record::Image { row, ready_at, .. } = record else {
        return None;
    };
    let state = if now < *ready_at { "pending" } else { "available" };
    Some(Image { state: state.to_owned(), ..row.clone() })
}

pub(super) fn snapshot_at(record: &Record, now: i64) -> Option<Snapshot> {
    let Record::Snapshot { row, ready_at, .. } = record else {
        return None;
    };
    let state = if now < *ready_at { "pending" } else { "completed" };
    Some(Snapshot { state: state.to_owned(), ..row.clone() })
}

pub(super) fn no_image(operation: &'static str, id: &str) -> ProviderError {
    refuse(operation, format!("InvalidAMIID.NotFound: {id}"))
}

pub(super) fn no_snapshot(operation: &'static str, id: &str) -> ProviderError {
    refuse(operation, format!("InvalidSnapshot.NotFound: {id}"))
}

impl Ec2Sim {
    /// Refuses a name that an image of this region has.
    fn need_free_name(&self, tables: &Tables, operation: &'static str, name: &str) -> Answer<()> {
        match tables.image_named(&self.region, name) {
            Some(_) => Err(refuse(operation, format!("InvalidAMIName.Duplicate: the name {name} is in use"))),
            None => Ok(()),
        }
    }

    pub(super) fn register(&self, request: &ImageRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 RegisterImage";
        let now = self.sim.now();
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(now, |draft| {
                let tables = draft.tables();
                self.need_free_name(tables, OPERATION, &request.name)?;
                let snapshot_id = &request.snapshot_id;
                let snapshot = self
                    .find(tables, "snapshot", snapshot_id)
                    .and_then(|record| snapshot_at(record, now))
                    .ok_or_else(|| no_snapshot(OPERATION, snapshot_id))?;
                if snapshot.state != "completed" {
                    let message = format!("InvalidSnapshot: {snapshot_id} is {}", snapshot.state);
                    return Err(refuse(OPERATION, message));
                }
                let id = draft.fresh_id("ami");
                let row = Image {
                    id: id.clone(),
                    name: request.name.clone(),
                    state: "pending".to_owned(),
                    state_reason: None,
                    snapshot_id: snapshot_id.clone(),
                    architecture: request.architecture.clone(),
                    boot_mode: request.boot_mode.clone(),
                    root_device: request.root_device.clone(),
                    tags: request.tags.clone(),
                    created: now,
                    deprecated: None,
                };
                let ready_at = self.sim.ready_after(IMAGE_READY);
                let region = self.region.clone();
                draft.put(Record::Image { row, ready_at, region, launch: BTreeSet::new() });
                Ok(id)
            })
        })
    }

    /// Copies an image with its snapshot from another region into this one. Launch permissions and the day it
    /// counts as outdated are not copied, as in EC2.
    pub(super) fn copy(&self, token: &str, request: &ImageCopy) -> Answer<String> {
        const OPERATION: &str = "ec2 CopyImage";
        let now = self.sim.now();
        let there = Self::of(&self.sim, &request.source_region);
        let params = (self.region.as_str(), request);
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(now, |draft| {
                under_token(draft, OPERATION, token, &params, |draft| {
                    let tables = draft.tables();
                    self.need_free_name(tables, OPERATION, &request.name)?;
                    let source = &request.source;
                    let image = there
                        .find(tables, "image", source)
                        .and_then(|record| image_at(record, now))
                        .ok_or_else(|| no_image(OPERATION, source))?;
                    if image.state != "available" {
                        let message = format!("InvalidAMIID.Unavailable: {source} is {}", image.state);
                        return Err(refuse(OPERATION, message));
                    }
                    let snapshot = there
                        .find(tables, "snapshot", &image.snapshot_id)
                        .and_then(|record| snapshot_at(record, now))
                        .ok_or_else(|| no_snapshot(OPERATION, &image.snapshot_id))?;
                    let (snapshot_id, id) = (draft.fresh_id("snap"), draft.fresh_id("ami"));
                    let ready_at = self.sim.ready_after(IMAGE_READY);
                    let row = Snapshot {
                        id: snapshot_id.clone(),
                        state: "pending".to_owned(),
                        tags: request.tags.clone(),
                        created: now,
                        ..snapshot
                    };
                    let region = self.region.clone();
                    draft.put(Record::Snapshot { row, ready_at, region, upload: None, content: None });
                    let row = Image {
                        id: id.clone(),
                        name: request.name.clone(),
                        state: "pending".to_owned(),
                        snapshot_id,
                        tags: request.tags.clone(),
                        created: now,
                        deprecated: None,
                        ..image
                    };
                    let region = self.region.clone();
                    draft.put(Record::Image { row, ready_at, region, launch: BTreeSet::new() });
                    Ok(id)
                })
            })
        })
    }

    /// Changes what can be changed of an image.
    pub(super) fn change_image(
        &self,
        operation: &'static str,
        id: &str,
        change: impl FnOnce(&mut Image, &mut BTreeSet<String>),
    ) -> Answer<()> {
        self.sim.faults.write(operation, || {
            self.sim.world.commit(self.sim.now(), |draft| {
                match self.find(draft.tables(), "image", id).cloned() {
                    Some(Record::Image { mut row, ready_at, region, mut launch }) => {
                        change(&mut row, &mut launch);
                        draft.put(Record::Image { row, ready_at, region, launch });
                        Ok(())
                    }
                    _ => Err(no_image(operation, id)),
                }
            })
        })
    }

    pub(super) fn deprecate(&self, id: &str, at: i64) -> Answer<()> {
        const OPERATION: &str = "ec2 EnableImageDeprecation";
        if at < self.sim.now() {
            let message = format!("InvalidParameter: the time at which {id} is to count as outdated is past");
            return Err(refuse(OPERATION, message));
        }
        // EC2 rounds to the nearest minute.
        let at = at.saturating_add(30).div_euclid(60) * 60;
        self.change_image(OPERATION, id, |row, _| row.deprecated = Some(at))
    }

    pub(super) fn deregister(&self, id: &str) -> Answer<()> {
        self.sim.faults.write("ec2 DeregisterImage", || {
            self.sim.world.commit(self.sim.now(), |draft| {
                if self.find(draft.tables(), "image", id).is_some() {
                    draft.put(Record::Gone { of: Removable::Image, key: id.to_owned() });
                }
                Ok(())
            })
        })
    }

    pub(super) fn drop_snapshot(&self, id: &str) -> Answer<()> {
        const OPERATION: &str = "ec2 DeleteSnapshot";
        self.sim.faults.write(OPERATION, || {
            self.sim.world.commit(self.sim.now(), |draft| {
                let tables = draft.tables();
                if self.find(tables, "snapshot", id).is_none() {
                    return Ok(());
                }
                let user = tables.table("image").find_map(|record| match record {
                    Record::Image { row, .. } if row.snapshot_id == id => Some(row.id.clone()),
                    _ => None,
                });
                if let Some(image) = user {
                    let message = format!("InvalidSnapshot.InUse: {id} is in use by {image}");
                    return Err(refuse(OPERATION, message));
                }
                draft.put(Record::Gone { of: Removable::Snapshot, key: id.to_owned() });
                Ok(())
            })
        })
    }
}
