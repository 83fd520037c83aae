//! EC2's types as the ports have them. What EC2 leaves out is an empty text or a zero: ids are always there in practice.

use aws_sdk_ec2::types::{self as ec2, Filter, ResourceType, TagSpecification};
use aws_smithy_types::DateTime;

use crate::providers::ports::{Image, Instance, Snapshot, Tags, Volume};
use crate::units::GiB;

pub(super) fn tags(tags: &[ec2::Tag]) -> Tags {
    let pair = |tag: &ec2::Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

pub(super) fn tag_list(tags: &Tags) -> Vec<ec2::Tag> {
    tags.iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build()).collect()
}

pub(super) fn tag_specification(resource: &str, tags: &Tags) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(ResourceType::from(resource))
        .set_tags(Some(tag_list(tags)))
        .build()
}

/// Filters for all of these tags.
pub(super) fn tag_filters(tags: &[(&str, &str)]) -> Vec<Filter> {
    tags.iter().map(|(key, value)| filter(&format!("tag:{key}"), &[value])).collect()
}

pub(super) fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// What EC2 has in the place of a volume where there was none: snapshots that were imported, copied or sent as blocks.
const NO_VOLUME: &str = "vol-ffffffff";

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

/// Seconds since the epoch of a time in EC2's texts, `2026-01-01T00:00:00.000Z`.
fn seconds(time: Option<&str>) -> Option<i64> {
    time?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn size(gib: Option<i32>) -> GiB {
    GiB(gib.and_then(|gib| u64::try_from(gib).ok()).unwrap_or(0))
}

fn count(number: Option<i32>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

pub(super) fn image(image: &ec2::Image) -> Image {
    let mappings = image.block_device_mappings();
    let root = mappings.iter().find(|it| it.device_name() == image.root_device_name()).or(mappings.first());
    let snapshot = root.and_then(|it| it.ebs()).and_then(|ebs| ebs.snapshot_id());
    Image {
        id: text(image.image_id()),
        name: text(image.name()),
        state: text(image.state().map(ec2::ImageState::as_str)),
        state_reason: image.state_reason().and_then(|reason| reason.message()).map(str::to_owned),
        snapshot_id: text(snapshot),
        architecture: text(image.architecture().map(ec2::ArchitectureValues::as_str)),
        // EC2 says nothing for images that were registered without one, and boots them with BIOS on x86.
        boot_mode: image.boot_mode().map_or("legacy-bios", ec2::BootModeValues::as_str).to_owned(),
        root_device: text(image.root_device_name()),
        tags: tags(image.tags()),
        created: seconds(image.creation_date()).unwrap_or(0),
        deprecated: seconds(image.deprecation_time()),
    }
}

pub(super) fn snapshot(snapshot: &ec2::Snapshot) -> Snapshot {
    Snapshot {
        id: text(snapshot.snapshot_id()),
        state: text(snapshot.state().map(ec2::SnapshotState::as_str)),
        state_reason: snapshot.state_message().filter(|message| !message.is_empty()).map(str::to_owned),
        size: size(snapshot.volume_size()),
        // EC2 names a volume that never was for snapshots that are of none.
        volume_id: snapshot.volume_id().filter(|id| *id != NO_VOLUME).map(str::to_owned),
        kms_key: match snapshot.encrypted() {
            Some(true) => Some(text(snapshot.kms_key_id())),
            _ => None,
        },
        tags: tags(snapshot.tags()),
        created: snapshot.start_time().map_or(0, DateTime::secs),
    }
}

pub(super) fn volume(volume: &ec2::Volume) -> Volume {
    let held = volume
        .attachments()
        .iter()
        .find(|it| it.state().is_none_or(|state| *state != ec2::VolumeAttachmentState::Detached));
    Volume {
        id: text(volume.volume_id()),
        zone: text(volume.availability_zone()),
        size: size(volume.size()),
        kind: text(volume.volume_type().map(ec2::VolumeType::as_str)),
        state: text(volume.state().map(ec2::VolumeState::as_str)),
        iops: count(volume.iops()),
        throughput: count(volume.throughput()),
        leaving: held.and_then(|it| it.state()).is_some_and(|state| {
            matches!(state, ec2::VolumeAttachmentState::Detaching | ec2::VolumeAttachmentState::Busy)
        }),
        attached_to: held.and_then(|it| it.instance_id()).map(str::to_owned),
        snapshot: volume.snapshot_id().filter(|id| !id.is_empty()).map(str::to_owned),
        tags: tags(volume.tags()),
        created: volume.create_time().map_or(0, DateTime::secs),
    }
}

pub(super) fn instance(instance: &ec2::Instance) -> Instance {
    Instance {
        id: text(instance.instance_id()),
        zone: text(instance.placement().and_then(|it| it.availability_zone())),
        image_id: text(instance.image_id()),
        state: text(instance.state().and_then(|it| it.name()).map(ec2::InstanceStateName::as_str)),
        tags: tags(instance.tags()),
        created: instance.launch_time().map_or(0, DateTime::secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_keys_are_read() {
        assert_eq!(seconds(Some("2026-01-01T00:00:00.000Z")), Some(1_767_225_600));
        assert_eq!(seconds(Some("yesterday")), None);
        let plain = ec2::Snapshot::builder().snapshot_id("snap-1").encrypted(false).kms_key_id("k").build();
        assert_eq!(snapshot(&plain).kms_key, None);
        let secret = ec2::Snapshot::builder().encrypted(true).kms_key_id("k").build();
        assert_eq!(snapshot(&secret).kms_key.as_deref(), Some("k"));
    }
}
