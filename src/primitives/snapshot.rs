//! From a disk image to a snapshot: what there is already, what must be sent, and sending it.
//!
//! A snapshot is bound to the sha256 of its image by a tag that it carries from its first moment. So a completed one is
//! used again whoever uploaded it, and an unfinished one is gone on with: with the journal only the blocks that it lacks
//! are sent, without it all of them, into the same snapshot. Never registers anything, and never deletes a snapshot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext};
use super::import_ami::Method;
use crate::image::{BlockMap, BlockSet, Manifest};
use crate::providers::ports::Purpose;
use crate::providers::ports::{
    BlockUpload, Blocks, Completion, DiskFile, Ec2Read, ImportRequest, ImportTask, ObjectPlace, Snapshot,
    SnapshotStart, TAG_CONTENT, TAG_FLEET, TAG_KEY, TAG_PARENT, TAG_PRUNED, TAG_STEP, Tags, UploadRead,
};
use crate::providers::{ErrorKind, ProviderError};
use crate::units::{GiB, Seconds};

/// The value of `clawd:key` on a snapshot that was made without asking for a key.
const DEFAULT_KEY: &str = "default";

/// The value of `clawd:parent` on a snapshot that begins empty.
const NO_PARENT: &str = "none";

/// EBS gives an unfinished snapshot up after this long without a block; a run that failed in the evening can be gone on
/// with in the morning. EBS takes 10 minutes to 72 hours.
const UNFINISHED_FOR: Seconds = Seconds(24 * 3600);

/// How many earlier uploads are looked at for one whose manifest is still known.
const PARENTS_LOOKED_AT: usize = 3;

/// How often something that was just made, and does not show, is looked for before it counts as gone.
pub(super) const LOOKS: u32 = 6;

/// How often a snapshot that takes no more blocks is looked at for its completion: some two minutes.
const SEALED_LOOKS: u32 = 12;

/// How long to wait before look number `look` (from 0): short waits first, because small images are done at once.
pub(super) fn pause(look: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(15);
    Duration::from_millis(500).saturating_mul(1 << look.min(8)).min(LONGEST)
}

/// What a snapshot is made of.
pub(super) struct Source<'a> {
    pub(super) disk: DiskFile,
    pub(super) format: &'a str,
    pub(super) method: Method,
    pub(super) kms_key: Option<&'a str>,
    /// Where images and manifests are kept.
    pub(super) bucket: Option<&'a str>,
    /// What object keys begin with.
    pub(super) prefix: &'a str,
    /// The role EC2 imports with.
    pub(super) role: &'a str,
    /// Whether to send only what differs from an earlier upload.
    pub(super) incremental: bool,
}

impl Source<'_> {
    fn size(&self) -> GiB {
        GiB::holding(self.disk.size)
    }

    /// What binds a snapshot to the image, and to how it was asked for.
    fn tags(&self, cx: &ApplyContext<'_>) -> Tags {
        let mut tags = cx.owner_tags();
        tags.insert(TAG_CONTENT.to_owned(), self.disk.sha256.clone());
        tags.insert(TAG_KEY.to_owned(), self.kms_key.unwrap_or(DEFAULT_KEY).to_owned());
        tags
    }

    /// Where the image lies on its way to `ImportSnapshot`: under the hash of its content.
    fn object(&self, bucket: &str) -> ObjectPlace {
        let key = format!("{}/{}.{}", self.prefix.trim_matches('/'), self.disk.sha256, self.format);
        ObjectPlace { bucket: bucket.to_owned(), key }
    }

    /// The bucket and prefix of manifests, `bucket/prefix`.
    fn shelf(&self) -> Option<String> {
        self.bucket.map(|bucket| format!("{bucket}/{}", self.prefix.trim_matches('/')))
    }
}

/// An upload that was begun and not completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Unfinished {
    snapshot: String,
    parent: Option<String>,
}

/// What there is of an image's snapshot, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// A completed snapshot of this image.
    complete: Option<String>,
    /// An unfinished one of this step.
    unfinished: Option<Unfinished>,
    /// The snapshot whose blocks need not be sent.
    parent: Option<String>,
    /// Blocks to send, and blocks of the image; nothing when no blocks are sent, or nobody is shown them.
    blocks: Option<(u64, u64)>,
}

impl Known {
    /// What uploading takes, for the plan.
    pub(super) fn describe(&self, source: &Source<'_>) -> String {
        if let Some(snapshot) = &self.complete {
            return format!("nothing to upload: {snapshot} holds this image");
        }
        let Some((send, all)) = self.blocks else {
            return match source.method {
                Method::Vmimport => format!("uploads {} to S3, then imports it", source.disk.size),
                Method::EbsDirect => format!("uploads what {} hold", source.disk.size),
            };
        };
        // A share for people; precision beyond it is of no use.
        #[allow(clippy::cast_precision_loss)]
        let share = if all == 0 { 0.0 } else { send as f64 * 100.0 / all as f64 };
        let bytes = crate::units::Bytes(send * crate::image::BLOCK_SIZE as u64);
        let base = match (&self.unfinished, &self.parent) {
            (Some(unfinished), _) => format!(", goes on with {}", unfinished.snapshot),
            (None, Some(parent)) => format!(" on top of {parent}"),
            (None, None) if source.incremental => ", no earlier upload to build on".to_owned(),
            (None, None) => String::new(),
        };
        format!("uploads {send} of {all} blocks, {bytes}, {share:.1} % of the image{base}")
    }
}

/// How a new snapshot would be encrypted.
struct Encryption<'a> {
    /// The key that is asked for.
    asked: Option<&'a str>,
    /// The account's key, where such things are encrypted by default.
    default: Option<String>,
}

impl Encryption<'_> {
    /// Whether a snapshot is encrypted as it would be if it were made now. Keys compare by ARN, or by the id at an ARN's end.
    /// An alias may mean another key tomorrow: behind one, a snapshot of the same request is the one that is meant, and none
    /// is a parent, but for AWS's own aliases, which nobody can re-point.
    fn fits(&self, found: &Snapshot, as_parent: bool) -> bool {
        let asked_alike = found.tags.get(TAG_KEY).is_some_and(|tag| tag == self.asked.unwrap_or(DEFAULT_KEY));
        match (self.asked.or(self.default.as_deref()), found.kms_key.as_deref()) {
            (None, None) => true,
            (Some(wanted), Some(found)) => {
                let steady = !wanted.starts_with("alias/") || wanted.starts_with("alias/aws/");
                let same = wanted == found || found.rsplit('/').next() == Some(wanted);
                steady && same || asked_alike && (steady || !as_parent)
            }
            _ => false,
        }
    }
}

/// Looks at what there is.
pub(super) async fn survey(source: &Source<'_>, cx: &ObserveContext<'_>) -> Result<Known, ProviderError> {
    let scope = cx.scope();
    let default = match source.kms_key {
        Some(_) => None,
        None => cx.ec2().default_key().await?,
    };
    let encryption = Encryption { asked: source.kms_key, default };
    let mut found = cx.ec2().snapshots(&[(TAG_FLEET, &scope.target.fleet)]).await?;
    found.retain(|it| encryption.fits(it, false) && !it.tags.contains_key(TAG_PRUNED));
    found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let tagged = |it: &Snapshot, key: &str, value: &str| it.tags.get(key).is_some_and(|tag| tag == value);
    let same_image = |it: &&Snapshot| tagged(it, TAG_CONTENT, &source.disk.sha256);
    let own = |it: &&Snapshot| tagged(it, TAG_STEP, scope.step.as_str());
    let complete = found.iter().filter(same_image).find(|it| it.state == "completed").map(|it| it.id.clone());
    if complete.is_some() || source.method == Method::Vmimport {
        return Ok(Known { complete, unfinished: None, parent: None, blocks: None });
    }
    let shelf = source.shelf();
    let unfinished =
        found.iter().filter(same_image).filter(own).filter(|it| it.state == "pending").find_map(|it| {
            let parent = it.tags.get(TAG_PARENT)?;
            let parent = (parent != NO_PARENT).then(|| parent.clone());
            Some(Unfinished { snapshot: it.id.clone(), parent })
        });
    if let Some(unfinished) = unfinished {
        let base = base(unfinished.parent.as_deref(), shelf.as_deref(), cx.upload()).await?;
        // Without the parent's manifest nobody knows what the snapshot lacks: a new one is begun.
        if let Some(manifest) = base {
            let blocks = count(source, manifest.as_ref(), cx).await?;
            let parent = unfinished.parent.clone();
            return Ok(Known { complete: None, unfinished: Some(unfinished), parent, blocks });
        }
    }
    let mut parent = None;
    let older = found.iter().rev().filter(own).filter(|it| {
        it.state == "completed"
            && it.size <= source.size()
            && it.tags.contains_key(TAG_CONTENT)
            && encryption.fits(it, true)
    });
    for candidate in older.take(if source.incremental { PARENTS_LOOKED_AT } else { 0 }) {
        if let Some(manifest) = cx.upload().manifest(&candidate.id, shelf.as_deref()).await? {
            parent = Some(manifest);
            break;
        }
    }
    let blocks = count(source, parent.as_ref(), cx).await?;
    Ok(Known {
        complete: None,
        unfinished: None,
        parent: parent.map(|manifest| manifest.snapshot_id),
        blocks,
    })
}

/// Blocks to send, and blocks of the image: for people, so the file is read only when a plan is shown.
async fn count(
    source: &Source<'_>,
    parent: Option<&Manifest>,
    cx: &ObserveContext<'_>,
) -> Result<Option<(u64, u64)>, ProviderError> {
    if cx.purpose() == Purpose::Act {
        return Ok(None);
    }
    let map = cx.upload().blocks(&source.disk).await?;
    let send = map.to_send(parent.map(|manifest| &manifest.blocks));
    Ok(Some((send.len(), map.hashes.len() as u64)))
}

/// The manifest to compare with: `Some(None)` when there is no parent, `None` when the parent's is not known.
async fn base(
    parent: Option<&str>,
    shelf: Option<&str>,
    upload: &dyn UploadRead,
) -> Result<Option<Option<Manifest>>, ProviderError> {
    match parent {
        None => Ok(Some(None)),
        Some(parent) => Ok(upload.manifest(parent, shelf).await?.map(Some)),
    }
}

/// Makes the snapshot, or finds the one that is there. Returns its id once it is complete.
pub(super) async fn make(
    source: &Source<'_>,
    known: Known,
    cx: &ApplyContext<'_>,
) -> Result<String, ProviderError> {
    let id = match (&known.complete, source.method) {
        (Some(id), _) => id.clone(),
        (None, Method::EbsDirect) => put(source, known, cx).await?,
        (None, Method::Vmimport) => import(source, cx).await?,
    };
    wait_completed(&id, cx.ec2(), cx).await?;
    if source.method == Method::Vmimport
        && let Some(bucket) = source.bucket
    {
        // Also after a try that died before it came to this.
        let place = source.object(bucket);
        cx.effect("DeleteObject", &place, |_| cx.upload().remove_object(&place)).await?;
    }
    if source.method == Method::EbsDirect {
        keep_manifest(source, &id, cx).await;
    }
    Ok(id)
}

/// Keeps what was uploaded for the next upload. Failing costs that one's savings, not this one.
async fn keep_manifest(source: &Source<'_>, snapshot: &str, cx: &ApplyContext<'_>) {
    let shelf = source.shelf();
    let kept = async {
        if cx.upload().manifest(snapshot, shelf.as_deref()).await?.is_some() {
            return Ok(());
        }
        let blocks = cx.upload().blocks(&source.disk).await?;
        let manifest =
            Manifest { snapshot_id: snapshot.to_owned(), sha256: source.disk.sha256.clone(), blocks };
        cx.upload().keep_manifest(&manifest, shelf.as_deref()).await
    };
    if let Err(error) = kept.await {
        cx.progress(&format!(
            "the next upload will be a full one, the manifest of {snapshot} was not kept: {error}"
        ));
    }
}

/// Puts the blocks through EBS direct. Returns the snapshot's id once EBS has taken it as complete.
async fn put(source: &Source<'_>, known: Known, cx: &ApplyContext<'_>) -> Result<String, ProviderError> {
    let Known { unfinished, parent, .. } = known;
    let shelf = source.shelf();
    let manifest = base(parent.as_deref(), shelf.as_deref(), cx.upload()).await?.ok_or_else(|| {
        let message =
            format!("the manifest of {} is gone since it was looked at", parent.as_deref().unwrap_or("?"));
        ProviderError::new(ErrorKind::Transient, "ebs StartSnapshot", message)
    })?;
    let Some(unfinished) = unfinished else {
        let snapshot = start(source, parent, cx).await?;
        let blocks = match &manifest {
            // Without anything to compare with, the file is read once: hashed on its way.
            None => Blocks::WithData,
            Some(manifest) => {
                let map = cx.upload().blocks(&source.disk).await?;
                let send = map.to_send(Some(&manifest.blocks));
                Blocks::These { map, send }
            }
        };
        let upload = BlockUpload { snapshot, image: source.disk.clone(), blocks };
        send_and_complete(&upload, manifest.as_ref(), cx).await?;
        return Ok(upload.snapshot);
    };
    let snapshot = unfinished.snapshot;
    let map = cx.upload().blocks(&source.disk).await?;
    let send = map.to_send(manifest.as_ref().map(|it| &it.blocks));
    let missing = send.without(&cx.stored(&snapshot));
    let all_anew = missing == send;
    if !all_anew {
        cx.progress(&format!(
            "{snapshot} has {} of {} blocks already",
            send.len() - missing.len(),
            send.len()
        ));
    }
    let upload = |map: BlockMap, send: BlockSet| BlockUpload {
        snapshot: snapshot.clone(),
        image: source.disk.clone(),
        blocks: Blocks::These { map, send },
    };
    let refused = match send_and_complete(&upload(map.clone(), missing), manifest.as_ref(), cx).await {
        Err(error) if is_refusal(&error) => error,
        outcome => return outcome.map(|()| snapshot),
    };
    // The journal may say more than EBS has: then everything is sent once more, into the same snapshot.
    let refused = if all_anew {
        refused
    } else {
        cx.progress(&format!("{refused}; sending all blocks again"));
        match send_and_complete(&upload(map, send), manifest.as_ref(), cx).await {
            Err(error) if is_refusal(&error) => error,
            outcome => return outcome.map(|()| snapshot),
        }
    };
    // Or an earlier try completed it, and its answer was lost.
    if is_sealed(&snapshot, cx).await? { Ok(snapshot) } else { Err(refused) }
}

/// Whether EBS says that a snapshot does not take what it was given, as it does of one that is complete.
fn is_refusal(error: &ProviderError) -> bool {
    let codes = ["ValidationException", "ConflictException"];
    error.kind == ErrorKind::Permanent && codes.iter().any(|code| error.message.contains(code))
}

/// Puts blocks and completes the snapshot: with all blocks that it needs, whichever try put them.
async fn send_and_complete(
    upload: &BlockUpload,
    parent: Option<&Manifest>,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let snapshot = &upload.snapshot;
    let (what, nothing) = match &upload.blocks {
        Blocks::WithData => (format!("the data of {}", upload.image.size), false),
        Blocks::These { send, .. } => (send.bytes().to_string(), send.is_empty()),
    };
    let mut found = None;
    if let (Blocks::These { map, .. }, true) = (&upload.blocks, nothing) {
        found = Some(map.clone());
    } else {
        cx.progress(&format!("sending {what} to {snapshot}"));
        let watch = cx.watch(Some(snapshot));
        let fixed = (snapshot, &upload.image.sha256, &what);
        let found = &mut found;
        cx.effect("PutSnapshotBlock", &fixed, |_| async move {
            *found = Some(cx.upload().put_blocks(upload, &watch).await?);
            Ok(())
        })
        .await?;
    }
    let map =
        found.ok_or_else(|| ProviderError::permanent("ebs PutSnapshotBlock", "the image has no blocks"))?;
    let send = map.to_send(parent.map(|it| &it.blocks));
    let completion =
        Completion { snapshot: snapshot.clone(), blocks: send.len(), checksum: map.linear_checksum(&send) };
    cx.effect("CompleteSnapshot", &completion, |_| cx.upload().complete_snapshot(&completion)).await
}

/// Whether a snapshot that takes no more blocks is complete, or becomes so.
async fn is_sealed(snapshot: &str, cx: &ApplyContext<'_>) -> Result<bool, ProviderError> {
    for look in 0..SEALED_LOOKS {
        match cx.ec2().snapshot(snapshot).await? {
            Some(it) if it.state == "completed" => return Ok(true),
            Some(it) if it.state == "pending" => cx.sleep(pause(look)).await?,
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Begins a snapshot under a token.
async fn start(
    source: &Source<'_>,
    parent: Option<String>,
    cx: &ApplyContext<'_>,
) -> Result<String, ProviderError> {
    let mut tags = source.tags(cx);
    tags.insert(TAG_PARENT.to_owned(), parent.clone().unwrap_or_else(|| NO_PARENT.to_owned()));
    let request = SnapshotStart {
        description: format!(
            "clawd {} {}",
            cx.step(),
            &source.disk.sha256[..12.min(source.disk.sha256.len())]
        ),
        size: source.size(),
        // EBS takes no key together with a parent: a child is encrypted as its parent is.
        kms_key: if parent.is_some() { None } else { source.kms_key.map(str::to_owned) },
        parent,
        timeout: UNFINISHED_FOR,
        tags,
    };
    let request = &request;
    cx.create(
        "StartSnapshot",
        request,
        |token| async move { cx.upload().start_snapshot(&token, request).await },
        |id| async move { is_alive(&id, cx).await },
    )
    .await
}

/// Whether a snapshot that a token answered with can still be used. One that was made a moment ago may not show yet.
async fn is_alive(id: &str, cx: &ApplyContext<'_>) -> Result<bool, ProviderError> {
    for look in 0..LOOKS {
        match cx.ec2().snapshot(id).await? {
            Some(snapshot) => return Ok(matches!(snapshot.state.as_str(), "pending" | "completed")),
            None => cx.sleep(pause(look)).await?,
        }
    }
    Ok(false)
}

/// Uploads the image to S3 and has EC2 import it. Returns the id of the snapshot, tagged.
async fn import(source: &Source<'_>, cx: &ApplyContext<'_>) -> Result<String, ProviderError> {
    let bucket =
        source.bucket.ok_or_else(|| ProviderError::permanent("s3 PutObject", "no bucket is given"))?;
    let place = source.object(bucket);
    let watch = cx.watch(None);
    cx.effect("PutObject", &(&place, &source.disk.sha256), |_| {
        cx.upload().put_object(&source.disk, &place, &watch)
    })
    .await?;
    let request = ImportRequest {
        description: format!(
            "clawd {} {}",
            cx.step(),
            &source.disk.sha256[..12.min(source.disk.sha256.len())]
        ),
        object: place,
        format: source.format.to_owned(),
        role: source.role.to_owned(),
        kms_key: source.kms_key.map(str::to_owned),
        tags: cx.owner_tags(),
    };
    let request = &request;
    let task = cx
        .create(
            "ImportSnapshot",
            request,
            |token| async move { cx.upload().import_snapshot(&token, request).await },
            // A task that failed before this try is not gone on with; one that fails now is reported.
            |id| async move { Ok(cx.upload().import_task(&id).await?.is_none_or(|task| !task.is_dead())) },
        )
        .await?;
    let snapshot = wait_imported(&task, cx).await?;
    let tags = source.tags(cx);
    cx.effect("CreateTags", &(&snapshot, &tags), |_| cx.ec2().tag(&snapshot, &tags)).await?;
    Ok(snapshot)
}

async fn wait_imported(id: &str, cx: &ApplyContext<'_>) -> Result<String, ProviderError> {
    const OPERATION: &str = "ec2 DescribeImportSnapshotTasks";
    let (mut look, mut told) = (0, String::new());
    loop {
        match cx.upload().import_task(id).await? {
            Some(ImportTask { state, snapshot_id: Some(snapshot), .. }) if state == "completed" => {
                return Ok(snapshot);
            }
            Some(task) if task.is_dead() => {
                let message = format!("the import {id} failed: {}", task.message);
                return Err(ProviderError::permanent(OPERATION, message)
                    .help("EC2 said why; the next run imports again, under another token"));
            }
            Some(task) => {
                let line = format!("{id} {}%: {}", task.progress.as_deref().unwrap_or("0"), task.message);
                if line != told {
                    cx.progress(&line);
                    told = line;
                    look = 0;
                }
            }
            None if look < LOOKS => {}
            None => return Err(ProviderError::permanent(OPERATION, format!("the import {id} is gone"))),
        }
        cx.sleep(pause(look)).await?;
        look += 1;
    }
}

async fn wait_completed(id: &str, ec2: &dyn Ec2Read, cx: &ApplyContext<'_>) -> Result<(), ProviderError> {
    const OPERATION: &str = "ec2 DescribeSnapshots";
    let mut look = 0;
    loop {
        match ec2.snapshot(id).await? {
            Some(snapshot) if snapshot.state == "completed" => return Ok(()),
            Some(snapshot) if snapshot.state == "pending" => {}
            None if look < LOOKS => {}
            found => {
                let state = found.as_ref().map_or("gone", |it| it.state.as_str());
                let reason = found.as_ref().and_then(|it| it.state_reason.as_deref());
                let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                // The next try begins another one under the next token.
                return Err(ProviderError::new(
                    ErrorKind::Transient,
                    OPERATION,
                    format!("the snapshot {id} is {state}{reason}"),
                ));
            }
        }
        cx.sleep(pause(look)).await?;
        look += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_compare_by_what_cannot_change() {
        const ARN: &str = "arn:aws:kms:eu-central-1:1:key/1234";
        let snapshot = |key: Option<&str>, asked: &str| Snapshot {
            id: "snap-1".into(),
            state: "completed".into(),
            state_reason: None,
            size: GiB(1),
            volume_id: None,
            kms_key: key.map(str::to_owned),
            tags: Tags::from([(TAG_KEY.to_owned(), asked.to_owned())]),
            created: 0,
        };
        // What is asked for, the account's default, the snapshot's key and request; whether it is the same, and a parent.
        for (asked, default, key, tag, same, parent) in [
            (None, None, None, "default", true, true),
            (None, None, Some(ARN), "default", false, false),
            (None, Some("alias/aws/ebs"), None, "default", false, false),
            (None, Some("alias/aws/ebs"), Some(ARN), "default", true, true),
            (None, Some("alias/mine"), Some(ARN), "default", true, false),
            (None, Some(ARN), Some(ARN), "default", true, true),
            (Some(ARN), None, Some(ARN), ARN, true, true),
            (Some("1234"), None, Some(ARN), "1234", true, true),
            (Some(ARN), None, None, ARN, false, false),
            (Some("alias/mine"), None, Some(ARN), "alias/mine", true, false),
            (Some("alias/other"), None, Some(ARN), "alias/mine", false, false),
        ] {
            let encryption = Encryption { asked, default: default.map(str::to_owned) };
            let found = snapshot(key, tag);
            let shown = format!("{asked:?} {default:?} {key:?} {tag}");
            assert_eq!(
                (encryption.fits(&found, false), encryption.fits(&found, true)),
                (same, parent),
                "{shown}"
            );
        }
    }
}
