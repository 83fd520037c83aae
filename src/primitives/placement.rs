//! Where an AMI is and who may use it: copies in other regions, launch permissions, the day it counts as outdated.
//! Compared place by place with what is wanted, and brought in line.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext};
use super::snapshot::{LOOKS, pause};
use crate::plan::Change;
use crate::providers::ports::{Ec2, Ec2Read, Image, ImageCopy, TAG_CONTENT, TAG_FLEET, Tags};
use crate::providers::{ErrorKind, ProviderError};
use crate::value::Value;

const DAY: i64 = 86_400;

/// What is wanted of an AMI once it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Further regions.
    pub(super) copies: Vec<String>,
    /// Exactly these accounts may launch it; left as it is when not given.
    pub(super) launch_permissions: Option<Vec<String>>,
    /// Days after its creation from which on it counts as outdated.
    pub(super) deprecate_after_days: Option<u32>,
}

/// The AMI in one region, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) region: String,
    /// Nothing when it is not there.
    pub(super) image: Option<Image>,
    launch_permissions: Vec<String>,
}

impl Place {
    async fn look(
        region: &str,
        image: Option<Image>,
        wanted: &Wanted,
        ec2: &dyn Ec2Read,
    ) -> Result<Self, ProviderError> {
        let launch_permissions = match (&image, &wanted.launch_permissions) {
            (Some(image), Some(_)) => ec2.launch_permissions(&image.id).await?,
            _ => Vec::new(),
        };
        Ok(Self { region: region.to_owned(), image, launch_permissions })
    }

    /// Accounts to add, and to take away.
    fn permissions(&self, wanted: &Wanted) -> (Vec<String>, Vec<String>) {
        let Some(accounts) = &wanted.launch_permissions else { return (Vec::new(), Vec::new()) };
        let wanted: BTreeSet<&String> = accounts.iter().collect();
        let found: BTreeSet<&String> = self.launch_permissions.iter().collect();
        let only =
            |a: &BTreeSet<&String>, b: &BTreeSet<&String>| a.difference(b).map(|it| (*it).clone()).collect();
        (only(&wanted, &found), only(&found, &wanted))
    }

    /// When it must be marked as outdated, unless it is.
    fn deprecation(&self, wanted: &Wanted) -> Option<i64> {
        let days = wanted.deprecate_after_days?;
        let image = self.image.as_ref()?;
        // EC2 keeps whole minutes.
        let at = image.created.saturating_add(i64::from(days) * DAY).div_euclid(60) * 60;
        (image.deprecated != Some(at)).then_some(at)
    }
}

/// Looks at all places of an AMI that is there.
pub(super) async fn survey(
    home: &Image,
    hash: &str,
    wanted: &Wanted,
    cx: &ObserveContext<'_>,
) -> Result<Vec<Place>, ProviderError> {
    let target = cx.scope().target;
    let mut places = vec![Place::look(&target.region, Some(home.clone()), wanted, cx.ec2()).await?];
    for region in &wanted.copies {
        let ec2 = cx.ec2().read_in(region);
        let mut images = ec2.images(&[(TAG_FLEET, &target.fleet), (TAG_CONTENT, hash)]).await?;
        images.retain(|image| matches!(image.state.as_str(), "available" | "pending"));
        images.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let image = images.into_iter().next();
        places.push(Place::look(region, image, wanted, &*ec2).await?);
    }
    Ok(places)
}

/// A moment as people read it, `2026-01-31T12:00:00Z`.
fn date(seconds: i64) -> Value {
    jiff::Timestamp::from_second(seconds).map_or(Value::Int(seconds), |at| Value::string(at.to_string()))
}

/// What differs from what is wanted.
pub(super) fn changes(places: &[Place], wanted: &Wanted) -> Vec<Change> {
    let list = |accounts: &[String]| Value::List(accounts.iter().map(|it| it.as_str().into()).collect());
    let mut changes = Vec::new();
    for place in places {
        let region = &place.region;
        let Some(image) = &place.image else {
            changes.push(Change::new(format!("copies.{region}"), Value::Unknown));
            continue;
        };
        if image.state != "available" {
            changes.push(Change::write(
                format!("state.{region}"),
                image.state.as_str().into(),
                "available".into(),
            ));
        }
        if place.permissions(wanted) != (Vec::new(), Vec::new()) {
            let after = wanted.launch_permissions.as_deref().unwrap_or_default();
            let path = format!("launch_permissions.{region}");
            changes.push(Change::write(path, list(&place.launch_permissions), list(after)));
        }
        if let Some(at) = place.deprecation(wanted) {
            let before = image.deprecated.map_or(Value::Null, date);
            changes.push(Change::write(format!("deprecated.{region}"), before, date(at)));
        }
    }
    changes
}

/// The copies as an output: region to id.
pub(super) fn planned_copies(places: &[Place], wanted: &Wanted) -> Value {
    Value::map(wanted.copies.iter().map(|region| {
        let found =
            places.iter().find(|place| place.region == *region).and_then(|place| place.image.as_ref());
        (region, found.map_or(Value::Unknown, |image| image.id.as_str().into()))
    }))
}

/// Brings all places in line. Returns the copies: region to id.
pub(super) async fn settle(
    home: &Image,
    tags: &Tags,
    wanted: &Wanted,
    cx: &ApplyContext<'_>,
) -> Result<Vec<(String, String)>, ProviderError> {
    let region = &cx.target().region;
    let place = Place::look(region, Some(home.clone()), wanted, cx.ec2()).await?;
    settle_place(&place, wanted, cx.ec2(), cx).await?;
    let mut copies = Vec::new();
    for region in &wanted.copies {
        let ec2 = cx.ec2().in_region(region);
        let image = copy(home, region, tags, &*ec2, cx).await?;
        copies.push((region.clone(), image.id.clone()));
        let place = Place::look(region, Some(image), wanted, &*ec2).await?;
        settle_place(&place, wanted, &*ec2, cx).await?;
    }
    Ok(copies)
}

async fn copy(
    home: &Image,
    region: &str,
    tags: &Tags,
    ec2: &dyn Ec2,
    cx: &ApplyContext<'_>,
) -> Result<Image, ProviderError> {
    let request = ImageCopy {
        source: home.id.clone(),
        source_region: cx.target().region.clone(),
        name: home.name.clone(),
        description: format!("copy of {} in {}", home.id, cx.target().region),
        tags: tags.clone(),
    };
    let image = match ec2.image_named(&home.name).await? {
        Some(image) => image,
        None => {
            cx.progress(&format!("copying {} to {region}", home.id));
            let request = &request;
            let id = cx
                .create(
                    "CopyImage",
                    &(region, request),
                    |token| async move { ec2.copy_image(&token, request).await },
                    |id| async move { is_alive(&id, ec2, cx).await },
                )
                .await?;
            ec2.image(&id).await?.ok_or_else(|| not_visible(&id))?
        }
    };
    if image.tags.get(TAG_CONTENT) != tags.get(TAG_CONTENT) {
        let message =
            format!("the name {} is taken in {region} by {}, which has other content", home.name, image.id);
        return Err(ProviderError::refused("ec2 CopyImage", message)
            .help("deregister that AMI if nothing uses it, or leave the region out of `copies`"));
    }
    wait_available(image, ec2, cx).await
}

/// Whether an AMI that a token answered with can still be used. One that was made a moment ago may not show yet; one that
/// never shows was deregistered since.
async fn is_alive(id: &str, ec2: &dyn Ec2, cx: &ApplyContext<'_>) -> Result<bool, ProviderError> {
    for look in 0..LOOKS {
        match ec2.image(id).await? {
            Some(image) => return Ok(matches!(image.state.as_str(), "pending" | "available")),
            None => cx.sleep(pause(look)).await?,
        }
    }
    Ok(false)
}

async fn settle_place(
    place: &Place,
    wanted: &Wanted,
    ec2: &dyn Ec2,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let Some(image) = &place.image else { return Ok(()) };
    let (add, remove) = place.permissions(wanted);
    if !(add.is_empty() && remove.is_empty()) {
        cx.effect("ModifyImageAttribute", &(&image.id, &add, &remove), |_| {
            ec2.set_launch_permissions(&image.id, &add, &remove)
        })
        .await?;
    }
    if let Some(at) = place.deprecation(wanted) {
        cx.effect("EnableImageDeprecation", &(&image.id, at), |_| ec2.deprecate_image(&image.id, at)).await?;
    }
    Ok(())
}

/// What was just made and does not show yet is not gone: a look later tells.
pub(super) fn not_visible(id: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, "ec2 DescribeImages", format!("{id} is not visible yet"))
}

/// Waits until an AMI can be launched from.
pub(super) async fn wait_available(
    image: Image,
    ec2: &dyn Ec2Read,
    cx: &ApplyContext<'_>,
) -> Result<Image, ProviderError> {
    let mut image = image;
    let mut look = 0;
    while image.state == "pending" {
        cx.progress(&format!("waiting for {}", image.id));
        cx.sleep(pause(look)).await?;
        look += 1;
        image = ec2.image(&image.id).await?.ok_or_else(|| not_visible(&image.id))?;
    }
    if image.state == "available" {
        return Ok(image);
    }
    let reason = image.state_reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    let message = format!("{} is {}{reason}", image.id, image.state);
    Err(ProviderError::permanent("ec2 DescribeImages", message).help("deregister it and run again"))
}
