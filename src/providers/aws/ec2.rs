//! EC2 in one region.
//!
//! Calls with a token are retried by the SDK; calls without one (RegisterImage, AttachVolume, ModifyVolume) are sent once
//! and read back by whoever made them. Look-ups see this account's own resources only, but for `image`.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, Filter, ImageAttributeName,
    ImdsSupportValues, Instance as Ec2Instance, LaunchPermission, LaunchPermissionModifications,
    PermissionGroup, Reservation, VolumeModificationState, VolumeType,
};
use aws_smithy_types::DateTime;

use super::Session;
use super::convert::{self, filter, tag_filters, tag_list, tag_specification};
use super::error::is_absent;
use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, Ec2, Ec2Read, Image, ImageCopy, ImageRequest, ImageUse, Instance, Modification, Owned, Snapshot,
    SnapshotRequest, TAG_FLEET, TAG_HOST, TAG_STEP, Tags, Volume, VolumeRequest, VolumeShape,
};
use crate::units::GiB;

/// The word for everybody in launch permissions.
const ALL: &str = "all";

/// States of instances that still need their AMI when they are started again.
const LIVING: [&str; 4] = ["pending", "running", "stopping", "stopped"];

/// Device names that are free on a NixOS instance; the volume is found by its serial number, not by this name.
const DEVICES: std::ops::RangeInclusive<char> = 'f'..='p';

/// EC2 in one region.
pub(crate) struct Regional {
    session: Arc<Session>,
    region: String,
}

/// EC2 counts in signed 32 bits.
fn int(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn signed(number: Option<u32>) -> Option<i32> {
    number.map(|number| int(number.into()))
}

/// A call without token is sent once: whether it had its effect is found by looking.
fn once() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::Config::builder().retry_config(RetryConfig::disabled())
}

fn no_id(operation: &str) -> ProviderError {
    ProviderError::permanent(operation, "the answer has no id")
}

impl Regional {
    /// EC2 in the profile's region.
    pub(super) fn home(session: Arc<Session>) -> Self {
        let region = session.settings().region.clone();
        Self { session, region }
    }

    fn elsewhere(&self, region: &str) -> Arc<Self> {
        Arc::new(Self { session: Arc::clone(&self.session), region: region.to_owned() })
    }

    async fn client(&self) -> Answer<Client> {
        Ok(Client::new(&self.session.config_in(&self.region).await?))
    }

    async fn own_images(&self, filters: Vec<Filter>) -> Answer<Vec<Image>> {
        let mut pages = self
            .client()
            .await?
            .describe_images()
            .owners("self")
            .set_filters((!filters.is_empty()).then_some(filters))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.session.failed("ec2 DescribeImages", &error))?;
            found.extend(page.images().iter().map(convert::image));
        }
        Ok(found)
    }

    async fn find_volumes(&self, filters: Vec<Filter>) -> Answer<Vec<Volume>> {
        let mut pages = self
            .client()
            .await?
            .describe_volumes()
            .set_filters((!filters.is_empty()).then_some(filters))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.session.failed("ec2 DescribeVolumes", &error))?;
            found.extend(page.volumes().iter().map(convert::volume));
        }
        Ok(found)
    }

    /// Instances that use images.
    async fn instance_uses(&self) -> Answer<Vec<ImageUse>> {
        let mut pages = self
            .client()
            .await?
            .describe_instances()
            .filters(filter("instance-state-name", &LIVING))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.session.failed("ec2 DescribeInstances", &error))?;
            for instance in page.reservations().iter().flat_map(Reservation::instances) {
                let instance = convert::instance(instance);
                let host = instance.tags.get(TAG_HOST).cloned();
                found.push(ImageUse { image_id: instance.image_id, by: instance.id, host });
            }
        }
        Ok(found)
    }

    /// Launch templates that use images, by their newest and their default version.
    async fn template_uses(&self) -> Answer<Vec<ImageUse>> {
        let mut pages = self
            .client()
            .await?
            .describe_launch_template_versions()
            .versions("$Latest")
            .versions("$Default")
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| self.session.failed("ec2 DescribeLaunchTemplateVersions", &error))?;
            for version in page.launch_template_versions() {
                let image = version.launch_template_data().and_then(|data| data.image_id());
                if let (Some(image), Some(template)) = (image, version.launch_template_id()) {
                    found.push(ImageUse { image_id: image.to_owned(), by: template.to_owned(), host: None });
                }
            }
        }
        Ok(found)
    }

    /// The device name for a volume on an instance: one that is not in use there.
    async fn free_device(&self, client: &Client, instance: &str) -> Answer<String> {
        const OPERATION: &str = "ec2 DescribeInstances";
        let found = client
            .describe_instances()
            .instance_ids(instance)
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        let used: BTreeSet<String> = found
            .reservations()
            .iter()
            .flat_map(Reservation::instances)
            .flat_map(Ec2Instance::block_device_mappings)
            .filter_map(|it| it.device_name().map(str::to_owned))
            .collect();
        DEVICES
            .map(|letter| format!("/dev/sd{letter}"))
            .find(|device| !used.contains(device))
            .ok_or_else(|| ProviderError::permanent(OPERATION, format!("{instance} has no free device name")))
    }
}

#[async_trait]
impl Ec2Read for Regional {
    async fn images(&self, tags: &[(&str, &str)]) -> Answer<Vec<Image>> {
        self.own_images(tag_filters(tags)).await
    }

    async fn image_named(&self, name: &str) -> Answer<Option<Image>> {
        // Filters take `*` and `?` as patterns, names may hold neither; compared once more all the same.
        let found = self.own_images(vec![filter("name", &[name])]).await?;
        Ok(found.into_iter().find(|image| image.name == name))
    }

    async fn image(&self, id: &str) -> Answer<Option<Image>> {
        match self.client().await?.describe_images().image_ids(id).send().await {
            Ok(found) => Ok(found.images().iter().map(convert::image).find(|image| image.id == id)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.session.failed("ec2 DescribeImages", &error)),
        }
    }

    async fn launch_permissions(&self, image: &str) -> Answer<Vec<String>> {
        let found = self
            .client()
            .await?
            .describe_image_attribute()
            .image_id(image)
            .attribute(ImageAttributeName::LaunchPermission)
            .send()
            .await
            .map_err(|error| self.session.failed("ec2 DescribeImageAttribute", &error))?;
        let name = |it: &LaunchPermission| match (it.user_id(), it.group()) {
            (Some(account), _) => Some(account.to_owned()),
            (None, Some(_)) => Some(ALL.to_owned()),
            // Organisations are not this primitive's to give or take.
            (None, None) => None,
        };
        let names: BTreeSet<String> = found.launch_permissions().iter().filter_map(name).collect();
        Ok(names.into_iter().collect())
    }

    async fn image_uses(&self) -> Answer<Vec<ImageUse>> {
        let mut uses = self.instance_uses().await?;
        uses.extend(self.template_uses().await?);
        Ok(uses)
    }

    async fn snapshot(&self, id: &str) -> Answer<Option<Snapshot>> {
        match self.client().await?.describe_snapshots().snapshot_ids(id).send().await {
            Ok(found) => {
                Ok(found.snapshots().iter().map(convert::snapshot).find(|snapshot| snapshot.id == id))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.session.failed("ec2 DescribeSnapshots", &error)),
        }
    }

    async fn snapshots(&self, tags: &[(&str, &str)]) -> Answer<Vec<Snapshot>> {
        let mut pages = self
            .client()
            .await?
            .describe_snapshots()
            .owner_ids("self")
            .set_filters(Some(tag_filters(tags)))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.session.failed("ec2 DescribeSnapshots", &error))?;
            found.extend(page.snapshots().iter().map(convert::snapshot));
        }
        Ok(found)
    }

    async fn default_key(&self) -> Answer<Option<String>> {
        let client = self.client().await?;
        let encrypts = client
            .get_ebs_encryption_by_default()
            .send()
            .await
            .map_err(|error| self.session.failed("ec2 GetEbsEncryptionByDefault", &error))?;
        if encrypts.ebs_encryption_by_default() != Some(true) {
            return Ok(None);
        }
        let key = client
            .get_ebs_default_kms_key_id()
            .send()
            .await
            .map_err(|error| self.session.failed("ec2 GetEbsDefaultKmsKeyId", &error))?;
        Ok(Some(key.kms_key_id().unwrap_or_default().to_owned()))
    }

    async fn volumes(&self, tags: &[(&str, &str)]) -> Answer<Vec<Volume>> {
        self.find_volumes(tag_filters(tags)).await
    }

    async fn volume(&self, id: &str) -> Answer<Option<Volume>> {
        match self.client().await?.describe_volumes().volume_ids(id).send().await {
            Ok(found) => Ok(found.volumes().iter().map(convert::volume).find(|volume| volume.id == id)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.session.failed("ec2 DescribeVolumes", &error)),
        }
    }

    async fn modification(&self, volume: &str) -> Answer<Modification> {
        let found = self.client().await?.describe_volumes_modifications().volume_ids(volume).send().await;
        let found = match found {
            Ok(found) => found,
            // That is how EC2 says that a volume was never changed.
            Err(error) if is_absent(&error) => return Ok(Modification::Done),
            Err(error) => return Err(self.session.failed("ec2 DescribeVolumesModifications", &error)),
        };
        let latest = found
            .volumes_modifications()
            .iter()
            .max_by_key(|it| it.start_time().map(|time| (time.secs(), time.subsec_nanos())));
        Ok(match latest.and_then(|it| it.modification_state()) {
            Some(VolumeModificationState::Modifying) => Modification::Modifying,
            Some(VolumeModificationState::Failed) => Modification::Failed,
            // The new size is there while data is still being moved.
            _ => Modification::Done,
        })
    }

    async fn instance(&self, id: &str) -> Answer<Option<Instance>> {
        match self.client().await?.describe_instances().instance_ids(id).send().await {
            Ok(found) => {
                let instances = found.reservations().iter().flat_map(Reservation::instances);
                Ok(instances.map(convert::instance).find(|instance| instance.id == id))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.session.failed("ec2 DescribeInstances", &error)),
        }
    }

    async fn owned(&self, fleet: &str) -> Answer<Vec<Owned>> {
        let tags = [(TAG_FLEET, fleet)];
        let step = |tags: &Tags| tags.get(TAG_STEP).cloned();
        let owned = |kind: &str, id: String, step: Option<String>, size: Option<GiB>, created: i64| Owned {
            kind: kind.to_owned(),
            id,
            step,
            size,
            created,
        };
        let images = self.images(&tags).await?;
        let snapshots = self.snapshots(&tags).await?;
        let volumes = self.volumes(&tags).await?;
        let mut all: Vec<Owned> =
            images.into_iter().map(|it| owned("ami", it.id, step(&it.tags), None, it.created)).collect();
        all.extend(
            snapshots
                .into_iter()
                .map(|it| owned("snapshot", it.id, step(&it.tags), Some(it.size), it.created)),
        );
        all.extend(
            volumes.into_iter().map(|it| owned("volume", it.id, step(&it.tags), Some(it.size), it.created)),
        );
        Ok(all)
    }

    fn read_in(&self, region: &str) -> Arc<dyn Ec2Read> {
        self.elsewhere(region)
    }
}

#[async_trait]
impl Ec2 for Regional {
    async fn register_image(&self, request: &ImageRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 RegisterImage";
        let root = EbsBlockDevice::builder()
            .snapshot_id(&request.snapshot_id)
            .volume_type(VolumeType::from(request.volume_type.as_str()))
            .volume_size(int(request.size.0))
            .set_iops(signed(request.iops))
            .set_throughput(signed(request.throughput))
            .delete_on_termination(true)
            .build();
        let registered = self
            .client()
            .await?
            .register_image()
            .name(&request.name)
            .set_description((!request.description.is_empty()).then(|| request.description.clone()))
            .architecture(ArchitectureValues::from(request.architecture.as_str()))
            .boot_mode(BootModeValues::from(request.boot_mode.as_str()))
            .root_device_name(&request.root_device)
            .block_device_mappings(
                BlockDeviceMapping::builder().device_name(&request.root_device).ebs(root).build(),
            )
            .virtualization_type("hvm")
            .ena_support(request.ena)
            .set_imds_support(request.imdsv2.then_some(ImdsSupportValues::V20))
            .tag_specifications(tag_specification("image", &request.tags))
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        registered.image_id().map(str::to_owned).ok_or_else(|| no_id(OPERATION))
    }

    async fn copy_image(&self, token: &str, request: &ImageCopy) -> Answer<String> {
        const OPERATION: &str = "ec2 CopyImage";
        let copied = self
            .client()
            .await?
            .copy_image()
            .client_token(token)
            .source_image_id(&request.source)
            .source_region(&request.source_region)
            .name(&request.name)
            .description(&request.description)
            .tag_specifications(tag_specification("image", &request.tags))
            .tag_specifications(tag_specification("snapshot", &request.tags))
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        copied.image_id().map(str::to_owned).ok_or_else(|| no_id(OPERATION))
    }

    async fn set_launch_permissions(&self, image: &str, add: &[String], remove: &[String]) -> Answer<()> {
        let permission = |account: &String| {
            let builder = LaunchPermission::builder();
            if account == ALL {
                builder.group(PermissionGroup::All).build()
            } else {
                builder.user_id(account).build()
            }
        };
        let list = |accounts: &[String]| -> Option<Vec<LaunchPermission>> {
            (!accounts.is_empty()).then(|| accounts.iter().map(permission).collect())
        };
        let changes =
            LaunchPermissionModifications::builder().set_add(list(add)).set_remove(list(remove)).build();
        self.client()
            .await?
            .modify_image_attribute()
            .image_id(image)
            .attribute("launchPermission")
            .launch_permission(changes)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.session.failed("ec2 ModifyImageAttribute", &error))
    }

    async fn deprecate_image(&self, image: &str, at: i64) -> Answer<()> {
        self.client()
            .await?
            .enable_image_deprecation()
            .image_id(image)
            .deprecate_at(DateTime::from_secs(at))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.session.failed("ec2 EnableImageDeprecation", &error))
    }

    async fn deregister_image(&self, image: &str) -> Answer<()> {
        match self.client().await?.deregister_image().image_id(image).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.session.failed("ec2 DeregisterImage", &error)),
        }
    }

    async fn delete_snapshot(&self, snapshot: &str) -> Answer<()> {
        match self.client().await?.delete_snapshot().snapshot_id(snapshot).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.session.failed("ec2 DeleteSnapshot", &error)),
        }
    }

    async fn create_volume(&self, token: &str, request: &VolumeRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 CreateVolume";
        let created = self
            .client()
            .await?
            .create_volume()
            .client_token(token)
            .availability_zone(&request.zone)
            .size(int(request.size.0))
            .volume_type(VolumeType::from(request.kind.as_str()))
            .set_iops(signed(request.iops))
            .set_throughput(signed(request.throughput))
            .set_encrypted(request.kms_key.is_some().then_some(true))
            .set_kms_key_id(request.kms_key.clone())
            .set_snapshot_id(request.snapshot.clone())
            .tag_specifications(tag_specification("volume", &request.tags))
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        created.volume_id().map(str::to_owned).ok_or_else(|| no_id(OPERATION))
    }

    async fn attach_volume(&self, volume: &str, instance: &str) -> Answer<()> {
        let held = self.volume(volume).await?.filter(|it| !it.leaving).and_then(|it| it.attached_to);
        if held.as_deref() == Some(instance) {
            return Ok(());
        }
        let client = self.client().await?;
        let device = self.free_device(&client, instance).await?;
        client
            .attach_volume()
            .volume_id(volume)
            .instance_id(instance)
            .device(device)
            .customize()
            .config_override(once())
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.session.failed("ec2 AttachVolume", &error))
    }

    async fn detach_volume(&self, volume: &str, instance: &str) -> Answer<()> {
        // One that is leaving was told before.
        let held = self.volume(volume).await?.filter(|it| !it.leaving).and_then(|it| it.attached_to);
        if held.as_deref() != Some(instance) {
            return Ok(());
        }
        // Without force: what the instance still writes would be lost.
        let sent = self
            .client()
            .await?
            .detach_volume()
            .volume_id(volume)
            .instance_id(instance)
            .customize()
            .config_override(once())
            .send()
            .await;
        sent.map(|_| ()).map_err(|error| self.session.failed("ec2 DetachVolume", &error))
    }

    async fn delete_volume(&self, volume: &str) -> Answer<()> {
        match self.client().await?.delete_volume().volume_id(volume).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.session.failed("ec2 DeleteVolume", &error)),
        }
    }

    async fn create_snapshot(&self, request: &SnapshotRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 CreateSnapshot";
        let created = self
            .client()
            .await?
            .create_snapshot()
            .volume_id(&request.volume_id)
            .description(&request.description)
            .tag_specifications(tag_specification("snapshot", &request.tags))
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        created.snapshot_id().map(str::to_owned).ok_or_else(|| no_id(OPERATION))
    }

    async fn modify_volume(&self, volume: &str, wanted: &VolumeShape) -> Answer<()> {
        let found = self.volume(volume).await?;
        let keeps = |wanted: Option<u32>, found: Option<u32>| wanted.is_none() || wanted == found;
        if found.is_some_and(|it| {
            it.size == wanted.size
                && it.kind == wanted.kind
                && keeps(wanted.iops, it.iops)
                && keeps(wanted.throughput, it.throughput)
        }) {
            return Ok(());
        }
        self.client()
            .await?
            .modify_volume()
            .volume_id(volume)
            .size(int(wanted.size.0))
            .volume_type(VolumeType::from(wanted.kind.as_str()))
            .set_iops(signed(wanted.iops))
            .set_throughput(signed(wanted.throughput))
            .customize()
            .config_override(once())
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.session.failed("ec2 ModifyVolume", &error))
    }

    async fn tag(&self, id: &str, tags: &Tags) -> Answer<()> {
        self.client()
            .await?
            .create_tags()
            .resources(id)
            .set_tags(Some(tag_list(tags)))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.session.failed("ec2 CreateTags", &error))
    }

    fn in_region(&self, region: &str) -> Arc<dyn Ec2> {
        self.elsewhere(region)
    }
}
