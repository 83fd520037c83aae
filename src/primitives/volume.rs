//! Data volumes, as `mount_volume` and `release_volume` find, move and mark them. What a volume may be used for stands in its tag
//! `clawd:state`, written before and after whatever changes it, so that no later run takes a volume with data for a blank one.
//!
//! Never detaches by force and never deletes what is attached.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::context::{ApplyContext, Scope};
use super::partial::Partial;
use crate::providers::ports::{
    Ec2Read, Instance, TAG_FLEET, TAG_HOST, TAG_STATE, TAG_STEP, Tags, UnmountRequest, Volume,
};
use crate::providers::{ErrorKind, ProviderError};
use crate::value::Value;

/// How often a volume on its way is looked at.
pub(super) const POLL: Duration = Duration::from_secs(5);

/// Nothing was ever written to it.
pub(super) const BLANK: &str = "blank";
/// Followed by the beginning of the token of the step that formats.
pub(super) const FORMATTING: &str = "formatting:";
/// It holds a file system.
pub(super) const FORMATTED: &str = "formatted";
/// Followed by the number of the release that is taking it from its host.
pub(super) const RELEASING: &str = "releasing:";
/// Followed by the number of the release: it was taken from its host and waits for another.
pub(super) const RELEASED: &str = "released:";
/// Followed by the volume that took its place.
pub(super) const SUPERSEDED: &str = "superseded:";

/// What a volume may be used for.
pub(super) fn state(volume: &Volume) -> &str {
    volume.tags.get(TAG_STATE).map_or("", String::as_str)
}

/// Whether the mark on a volume allows making a file system on it; one that was made from a snapshot holds one. The host probes the
/// device besides.
pub(super) fn may_format(volume: &Volume) -> bool {
    volume.snapshot.is_none() && (state(volume) == BLANK || state(volume).starts_with(FORMATTING))
}

/// The tag of a state.
pub(super) fn mark(state: impl Into<String>) -> Tags {
    Tags::from([(TAG_STATE.to_owned(), state.into())])
}

pub(super) fn is_gone(instance: &Instance) -> bool {
    matches!(instance.state.as_str(), "shutting-down" | "terminated")
}

/// Whether a volume is there at all.
pub(super) fn is_there(volume: &Volume) -> bool {
    !matches!(volume.state.as_str(), "deleted" | "deleting" | "error")
}

/// Whether a volume is there and in use for what it was made for.
pub(super) fn is_alive(volume: &Volume) -> bool {
    is_there(volume) && !state(volume).starts_with(SUPERSEDED)
}

/// The volumes that a step made for a host, without those that are gone or superseded.
pub(super) async fn of_step(
    ec2: &dyn Ec2Read,
    scope: Scope<'_>,
    step: &str,
    host: &str,
) -> Result<Vec<Volume>, ProviderError> {
    let tags = [(TAG_FLEET, scope.target.fleet.as_str()), (TAG_STEP, step), (TAG_HOST, host)];
    let mut volumes = ec2.volumes(&tags).await?;
    volumes.retain(is_alive);
    volumes.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(volumes)
}

/// The one of several that must be one.
pub(super) fn only(mut volumes: Vec<Volume>, step: &str) -> Result<Option<Volume>, ProviderError> {
    if volumes.len() > 1 {
        let ids: Vec<&str> = volumes.iter().map(|volume| volume.id.as_str()).collect();
        return Err(ProviderError::refused(
            "ec2 DescribeVolumes",
            format!("{} volumes carry the tags of {step}: {}", ids.len(), ids.join(", ")),
        )
        .help("remove the tags from all but the one with the data, or name it: `adopt` to mount, `volume` to release"));
    }
    Ok(volumes.pop())
}

/// A volume that must be there.
pub(super) async fn look_up(id: &str, cx: &ApplyContext<'_>) -> Result<Volume, ProviderError> {
    cx.ec2().volume(id).await?.ok_or_else(|| {
        ProviderError::new(ErrorKind::Transient, "ec2 DescribeVolumes", format!("{id} is not visible"))
    })
}

/// Waits until the volume is free or attached here, and attaches it.
pub(super) async fn attach(
    mut volume: Volume,
    instance: &Instance,
    cx: &ApplyContext<'_>,
) -> Result<Volume, ProviderError> {
    loop {
        match (volume.state.as_str(), volume.attached_to.as_deref()) {
            (_, Some(holder)) if holder == instance.id && !volume.leaving => return Ok(volume),
            // Whoever told it to leave was not this try: it is attached again once it has left.
            (_, Some(holder)) if holder == instance.id => cx.sleep(POLL).await?,
            ("available", None) => {
                cx.progress(&format!("attaching {} to {}", volume.id, instance.id));
                cx.effect("AttachVolume", &(&volume.id, &instance.id), |_| {
                    cx.ec2().attach_volume(&volume.id, &instance.id)
                })
                .await?;
            }
            ("creating", None) => cx.sleep(POLL).await?,
            // Held by an instance that goes away: `decide` refused every other holder.
            (_, Some(holder)) => {
                let gone = cx.ec2().instance(holder).await?.is_none_or(|holder| is_gone(&holder));
                if !gone {
                    return Err(ProviderError::refused(
                        "ec2 AttachVolume",
                        format!("{} is attached to {holder}, which runs", volume.id),
                    )
                    .help(
                        "stop or replace that instance first; a volume in use is never detached by force",
                    ));
                }
                cx.sleep(POLL).await?;
            }
            (state, None) => {
                return Err(ProviderError::permanent(
                    "ec2 AttachVolume",
                    format!("{} is {state}", volume.id),
                )
                .help("look at the volume in EC2"));
            }
        }
        volume = look_up(&volume.id, cx).await?;
    }
}

/// Unmounts a volume on its host, detaches it and waits until it is free. A host that runs is always asked to unmount: it knows whether
/// the volume is mounted at this path, and refuses where it is mounted elsewhere.
pub(super) async fn take_away(
    volume: &Volume,
    path: &str,
    activate: &str,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let mut volume = volume.clone();
    let mut told = false;
    while let Some(holder) = volume.attached_to.clone() {
        let found = cx.ec2().instance(&holder).await?;
        match found.as_ref().map(|it| it.state.as_str()) {
            _ if volume.leaving || told => cx.sleep(POLL).await?,
            // It may still be writing.
            Some("shutting-down" | "stopping") => cx.sleep(POLL).await?,
            Some("pending") => {
                let message = format!("{holder}, which has {}, is starting", volume.id);
                return Err(ProviderError::new(ErrorKind::Transient, "host unmount", message)
                    .help("run again once it runs"));
            }
            running => {
                if running == Some("running") {
                    unmount(&volume, &holder, path, activate, cx).await?;
                }
                cx.progress(&format!("detaching {} from {holder}", volume.id));
                cx.effect("DetachVolume", &(&volume.id, &holder), |_| {
                    cx.ec2().detach_volume(&volume.id, &holder)
                })
                .await?;
                told = true;
            }
        }
        volume = look_up(&volume.id, cx).await?;
    }
    Ok(())
}

async fn unmount(
    volume: &Volume,
    holder: &str,
    path: &str,
    activate: &str,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let request =
        UnmountRequest { volume_id: volume.id.clone(), path: path.to_owned(), activate: activate.to_owned() };
    cx.progress(&format!("unmounting {} from {path}", volume.id));
    cx.effect("host unmount", &(&request, holder), |token| {
        let request = &request;
        async move { cx.hosts().unmount(&token, holder, request).await }
    })
    .await
}

/// The first of these arguments that is not known yet: what is decided without it would be something else.
pub(super) fn unknown_among<T: DeserializeOwned>(
    args: &Partial<'_, T>,
    keys: &[&'static str],
) -> Option<&'static str> {
    keys.iter().copied().find(|key| matches!(args.get(key), Some(Value::Unknown)))
}

/// Marks a volume.
pub(super) async fn tag(
    call: &'static str,
    volume: &str,
    tags: &Tags,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    cx.effect(call, &(volume, tags), |_| cx.ec2().tag(volume, tags)).await
}
