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
use crate::providers::ports::{
    BlockUpload, Completion, DiskFile, Ec2Read, ImportRequest, ImportTask, ObjectPlace, Snapshot,
    SnapshotStart, TAG_CONTENT, TAG_FLEET, TAG_PARENT, TAG_PRUNED, TAG_STEP, UploadRead,
};
use crate::providers::{ErrorKind, ProviderError};
use crate::units::{GiB, Seconds};

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
    /// Blocks to send, and blocks of the image; nothing when no blocks are sent.
    blocks: Option<(u64, u64)>,
}

impl Known {
    /// What uploading takes, for the plan.
    pub(super) fn describe(&self, source: &Source<'_>) -> String {
        if let Some(snapshot) = &self.complete {
            return format!("nothing to upload: {snapshot} holds this image");
        }
        let Some((send, all)) = self.blocks else {
            return format!("uploads {} to S3, then imports it", source.disk.size);
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

/// Whether a snapshot is encrypted as it would be if it were made now. Keys compare by ARN, or by the id at an ARN's end; an
/// alias compares with nothing, because it may mean another key tomorrow.
fn same_key(wanted: Option<&str>, found: Option<&str>) -> bool {
    match (wanted, found) {
        (None, None) => true,
        (Some(wanted), Some(found)) => wanted == found || found.rsplit('/').next() == Some(wanted),
        _ => false,
    }
}

/// Looks at what there is. Reads the image's blocks when they are to be sent.
pub(super) async fn survey(source: &Source<'_>, cx: &ObserveContext<'_>) -> Result<Known, ProviderError> {
    let scope = cx.scope();
    let default_key = match source.kms_key {
        Some(_) => None,
        None => cx.ec2().default_key().await?,
    };
    let key = source.kms_key.or(default_key.as_deref());
    let mut found = cx.ec2().snapshots(&[(TAG_FLEET, &scope.target.fleet)]).await?;
    found.retain(|it| same_key(key, it.kms_key.as_deref()) && !it.tags.contains_key(TAG_PRUNED));
    found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let tagged = |it: &Snapshot, key: &str, value: &str| it.tags.get(key).is_some_and(|tag| tag == value);
    let same_image = |it: &&Snapshot| tagged(it, TAG_CONTENT, &source.disk.sha256);
    let own = |it: &&Snapshot| tagged(it, TAG_STEP, scope.step.as_str());
    let complete = found.iter().filter(same_image).find(|it| it.state == "completed").map(|it| it.id.clone());
    if complete.is_some() || source.method == Method::Vmimport {
        return Ok(Known { complete, unfinished: None, parent: None, blocks: None });
    }
    let map = cx.upload().blocks(&source.disk).await?;
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
            let send = map.to_send(manifest.as_ref().map(|it| &it.blocks));
            let blocks = Some((send.len(), map.hashes.len() as u64));
            let parent = unfinished.parent.clone();
            return Ok(Known { complete: None, unfinished: Some(unfinished), parent, blocks });
        }
    }
    let mut parent = None;
    let older = found.iter().rev().filter(own).filter(|it| {
        it.state == "completed" && it.size <= source.size() && it.tags.contains_key(TAG_CONTENT)
    });
    for candidate in older.take(if source.incremental { PARENTS_LOOKED_AT } else { 0 }) {
        if let Some(manifest) = cx.upload().manifest(&candidate.id, shelf.as_deref()).await? {
            parent = Some(manifest);
            break;
        }
    }
    let send = map.to_send(parent.as_ref().map(|manifest| &manifest.blocks));
    Ok(Known {
        complete: None,
        unfinished: None,
        parent: parent.map(|manifest| manifest.snapshot_id),
        blocks: Some((send.len(), map.hashes.len() as u64)),
    })
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
    let map = cx.upload().blocks(&source.disk).await?;
    let send = map.to_send(manifest.as_ref().map(|it| &it.blocks));
    let resumed = unfinished.is_some();
    let snapshot = match unfinished {
        Some(unfinished) => unfinished.snapshot,
        None => start(source, parent, cx).await?,
    };
    let stored = cx.stored(&snapshot);
    let missing = send.without(&stored);
    let completion =
        Completion { snapshot: snapshot.clone(), blocks: send.len(), checksum: map.linear_checksum(&send) };
    let job = |send: BlockSet, map: BlockMap| BlockUpload {
        snapshot: snapshot.clone(),
        image: source.disk.clone(),
        map,
        send,
    };
    if missing != send {
        cx.progress(&format!(
            "{snapshot} has {} of {} blocks already",
            send.len() - missing.len(),
            send.len()
        ));
    }
    let all_anew = missing == send;
    let refused = match send_and_complete(job(missing, map.clone()), &completion, cx).await {
        Err(error) if resumed && is_refusal(&error) => error,
        outcome => return outcome.map(|()| snapshot),
    };
    // The journal may say more than EBS has: then everything is sent once more, into the same snapshot.
    let refused = if all_anew {
        refused
    } else {
        cx.progress(&format!("{refused}; sending all blocks again"));
        match send_and_complete(job(send, map), &completion, cx).await {
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

async fn send_and_complete(
    job: BlockUpload,
    completion: &Completion,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let snapshot = job.snapshot.clone();
    if !job.send.is_empty() {
        cx.progress(&format!("sending {} to {snapshot}", job.send.bytes()));
        let fixed = (&snapshot, &job.image.sha256, job.send.to_string());
        let watch = cx.watch(Some(&snapshot));
        cx.effect("PutSnapshotBlock", &fixed, |_| cx.upload().put_blocks(&job, &watch)).await?;
    }
    cx.effect("CompleteSnapshot", completion, |_| cx.upload().complete_snapshot(completion)).await
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
    let mut tags = cx.owner_tags();
    tags.insert(TAG_CONTENT.to_owned(), source.disk.sha256.clone());
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
    let mut tags = cx.owner_tags();
    tags.insert(TAG_CONTENT.to_owned(), source.disk.sha256.clone());
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
