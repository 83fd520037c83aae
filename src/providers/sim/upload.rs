//! Simulated uploads: blocks put into snapshots, objects, imports. There are no bytes: the blocks of an image follow
//! from its hash and size, so that images resemble each other as two builds of one flake do, and a manifest can be
//! made again from the two. Everything is in the home region.

use async_trait::async_trait;

use super::Sim;
use super::ec2::{refuse, under_token};
use super::images::snapshot_at;
use super::tables::{Record, Removable, Sent, Tables, object_key};
use crate::image::{BlockHash, BlockMap, BlockSet, Manifest};
use crate::providers::ports::{
    Answer, BlockUpload, Blocks, Completion, DiskFile, ImportRequest, ImportTask, ObjectPlace, Snapshot,
    SnapshotStart, Tags, Upload, UploadRead, Watch,
};
use crate::units::{Bytes, GiB, Seconds};

/// How long a snapshot takes once all its blocks are there, and an import.
const SNAPSHOT_READY: Seconds = Seconds(45);
const IMPORT: Seconds = Seconds(90);

/// How many blocks are put at once: a whole simulated image takes four calls.
const BATCH: usize = 640;

/// A role that does not exist, for rehearsing that.
const MISSING_ROLE: &str = "missing-vmimport";

/// Data and zeroes come in runs of this many blocks.
const RUN: u64 = 64;
/// Of a hundred runs, so many are zeroes.
const ZERO_RUNS: u64 = 60;
/// Of a hundred blocks with data, so many are an image's own.
const OWN_BLOCKS: u64 = 5;

/// Spreads a number over all 64 bits (`splitmix64`); cheap, because planning makes maps of thousands of blocks.
const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stands for the sha256 of a block. Never all zeroes, which stand for a block of zeroes.
fn block_hash(number: u64) -> BlockHash {
    let word = (mix(number) | 1).to_le_bytes();
    let mut hash: BlockHash = [0; 32];
    for part in hash.chunks_exact_mut(word.len()) {
        part.copy_from_slice(&word);
    }
    hash
}

/// The blocks of an image. Which of them hold data, and which of those are the image's own, is the same for all
/// images; the rest of the data is shared by all.
fn blocks_of(sha256: &str, size: Bytes) -> BlockMap {
    let seed = sha256.bytes().fold(0u64, |seed, byte| mix(seed ^ u64::from(byte)));
    let hash = |at: u64| {
        let run = at / RUN;
        // A disk begins with its partition table.
        if run != 0 && mix(run) % 100 < ZERO_RUNS {
            return None;
        }
        let own = mix(!at) % 100 < OWN_BLOCKS;
        Some(block_hash(if own { seed.wrapping_add(at) } else { at }))
    };
    BlockMap { size, hashes: (0..BlockMap::count_for(size)).map(hash).collect() }
}

fn home_snapshot<'a>(tables: &'a Tables, id: &str) -> Option<&'a Record> {
    tables.get("snapshot", id).filter(|record| record.region().is_empty())
}

/// The blocks that were put into a snapshot.
fn put_so_far(operation: &'static str, sent: &Sent) -> Answer<BlockSet> {
    sent.blocks.parse::<BlockSet>().map_err(|error| refuse(operation, error.to_string()))
}

/// The key that encrypts a snapshot to begin: the parent's, where there is one.
fn key_of(
    tables: &Tables,
    operation: &'static str,
    request: &SnapshotStart,
    now: i64,
) -> Answer<Option<String>> {
    let Some(parent) = &request.parent else {
        return Ok(request.kms_key.clone());
    };
    let invalid = |what: String| refuse(operation, format!("ValidationException: {what}"));
    if request.kms_key.is_some() {
        return Err(invalid("a key cannot be given together with a parent snapshot".to_owned()));
    }
    match home_snapshot(tables, parent).and_then(|record| snapshot_at(record, now)) {
        Some(snapshot) if snapshot.state == "completed" => Ok(snapshot.kms_key),
        Some(snapshot) => Err(invalid(format!("the parent snapshot {parent} is {}", snapshot.state))),
        None => Err(invalid(format!("the parent snapshot {parent} does not exist"))),
    }
}

fn task_at(record: &Record, now: i64) -> Option<ImportTask> {
    let Record::Task { row, ready_at } = record else {
        return None;
    };
    if now >= *ready_at {
        return Some(ImportTask { state: "completed".to_owned(), ..row.clone() });
    }
    let left = u64::try_from(ready_at.saturating_sub(now)).unwrap_or(u64::MAX);
    // In quarters: each change is told to people.
    let quarters = IMPORT.0.saturating_sub(left) * 4 / IMPORT.0;
    Some(ImportTask {
        state: "active".to_owned(),
        message: "converting".to_owned(),
        progress: Some((quarters * 25).to_string()),
        snapshot_id: None,
        ..row.clone()
    })
}

impl Sim {
    fn put_batch(&self, snapshot: &str, batch: &BlockSet) -> Answer<()> {
        const OPERATION: &str = "ebs PutSnapshotBlock";
        self.faults.write(OPERATION, || {
            self.world.commit(self.now(), |draft| {
                let found = home_snapshot(draft.tables(), snapshot).cloned();
                let Some(Record::Snapshot { row, ready_at, region, upload: Some(sent), .. }) = found else {
                    let message = format!("ValidationException: the snapshot {snapshot} is not pending");
                    return Err(refuse(OPERATION, message));
                };
                let blocks = put_so_far(OPERATION, &sent)?.union(batch).to_string();
                draft.put(Record::Snapshot {
                    row,
                    ready_at,
                    region,
                    upload: Some(Sent { blocks }),
                    content: None,
                });
                Ok(())
            })
        })
    }
}

#[async_trait]
impl UploadRead for Sim {
    async fn blocks(&self, image: &DiskFile) -> Answer<BlockMap> {
        Ok(blocks_of(&image.sha256, image.size))
    }

    async fn manifest(&self, snapshot: &str, bucket: Option<&str>) -> Answer<Option<Manifest>> {
        if bucket.is_some() {
            self.faults.read("s3 GetObject")?;
        }
        Ok(self.world.read(|tables| match tables.get("manifest", snapshot) {
            Some(Record::Manifest { snapshot, sha256, size }) => Some(Manifest {
                snapshot_id: snapshot.clone(),
                sha256: sha256.clone(),
                blocks: blocks_of(sha256, *size),
            }),
            _ => None,
        }))
    }

    async fn import_task(&self, id: &str) -> Answer<Option<ImportTask>> {
        self.faults.read("ec2 DescribeImportSnapshotTasks")?;
        let now = self.now();
        Ok(self.world.read(|tables| tables.get("task", id).and_then(|record| task_at(record, now))))
    }
}

#[async_trait]
impl Upload for Sim {
    async fn start_snapshot(&self, token: &str, request: &SnapshotStart) -> Answer<String> {
        const OPERATION: &str = "ebs StartSnapshot";
        let now = self.now();
        self.faults.write(OPERATION, || {
            self.world.commit(now, |draft| {
                under_token(draft, OPERATION, token, request, |draft| {
                    let kms_key = key_of(draft.tables(), OPERATION, request, now)?;
                    let id = draft.fresh_id("snap");
                    draft.put(Record::Snapshot {
                        row: Snapshot {
                            id: id.clone(),
                            state: "pending".to_owned(),
                            state_reason: None,
                            size: request.size,
                            volume_id: None,
                            kms_key,
                            tags: request.tags.clone(),
                            created: now,
                        },
                        ready_at: i64::MAX,
                        region: String::new(),
                        upload: Some(Sent::default()),
                        content: None,
                    });
                    Ok(id)
                })
            })
        })
    }

    async fn put_blocks(&self, upload: &BlockUpload, watch: &dyn Watch) -> Answer<BlockMap> {
        let (map, send) = match &upload.blocks {
            Blocks::These { map, send } => (map.clone(), send.clone()),
            Blocks::WithData => {
                let map = self.blocks(&upload.image).await?;
                let send = map.to_send(None);
                (map, send)
            }
        };
        let send: Vec<u32> = send.iter().collect();
        let mut done = 0;
        for batch in send.chunks(BATCH) {
            let blocks: BlockSet = batch.iter().copied().collect();
            self.put_batch(&upload.snapshot, &blocks)?;
            watch.stored(&blocks);
            done += batch.len();
            watch.progress(&format!("put {done} of {} blocks", send.len()));
            // Whoever ends the process may do so between two batches.
            tokio::task::yield_now().await;
        }
        Ok(map)
    }

    async fn complete_snapshot(&self, completion: &Completion) -> Answer<()> {
        const OPERATION: &str = "ebs CompleteSnapshot";
        let id = &completion.snapshot;
        self.faults.write(OPERATION, || {
            self.world.commit(self.now(), |draft| match home_snapshot(draft.tables(), id).cloned() {
                Some(Record::Snapshot { upload: None, .. }) => Ok(()),
                Some(Record::Snapshot { row, region, upload: Some(sent), .. }) => {
                    let (put, said) = (put_so_far(OPERATION, &sent)?.len(), completion.blocks);
                    if put != said {
                        let message = format!(
                            "ValidationException: ChangedBlocksCount is {said}, {put} blocks were put"
                        );
                        return Err(refuse(OPERATION, message));
                    }
                    // The checksum stands unverified: there are no bytes to compute it from.
                    let ready_at = self.ready_after(SNAPSHOT_READY);
                    draft.put(Record::Snapshot { row, ready_at, region, upload: None, content: None });
                    Ok(())
                }
                _ => {
                    let message = format!("ResourceNotFoundException: the snapshot {id} does not exist");
                    Err(refuse(OPERATION, message))
                }
            })
        })
    }

    async fn keep_manifest(&self, manifest: &Manifest, bucket: Option<&str>) -> Answer<()> {
        let keep = || {
            self.world.commit(self.now(), |draft| {
                draft.put(Record::Manifest {
                    snapshot: manifest.snapshot_id.clone(),
                    sha256: manifest.sha256.clone(),
                    size: manifest.blocks.size,
                });
                Ok(())
            })
        };
        match bucket {
            Some(_) => self.faults.write("s3 PutObject", keep),
            None => keep(),
        }
    }

    async fn put_object(&self, image: &DiskFile, place: &ObjectPlace, watch: &dyn Watch) -> Answer<()> {
        let ObjectPlace { bucket, key } = place;
        self.faults.write("s3 PutObject", || {
            self.world.commit(self.now(), |draft| {
                let there = match draft.tables().get("object", &object_key(bucket, key)) {
                    Some(Record::Object { sha256, .. }) => *sha256 == image.sha256,
                    _ => false,
                };
                if !there {
                    draft.put(Record::Object {
                        bucket: bucket.clone(),
                        key: key.clone(),
                        size: image.size,
                        sha256: image.sha256.clone(),
                    });
                }
                Ok(())
            })
        })?;
        watch.progress(&format!("s3://{bucket}/{key} has {}", image.size));
        Ok(())
    }

    async fn remove_object(&self, place: &ObjectPlace) -> Answer<()> {
        let key = object_key(&place.bucket, &place.key);
        self.faults.write("s3 DeleteObject", || {
            self.world.commit(self.now(), |draft| {
                if draft.tables().get("object", &key).is_some() {
                    draft.put(Record::Gone { of: Removable::Object, key });
                }
                Ok(())
            })
        })
    }

    async fn import_snapshot(&self, token: &str, request: &ImportRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 ImportSnapshot";
        let invalid = |what: String| refuse(OPERATION, format!("InvalidParameter: {what}"));
        let ObjectPlace { bucket, key } = &request.object;
        self.faults.write(OPERATION, || {
            self.world.commit(self.now(), |draft| {
                under_token(draft, OPERATION, token, request, |draft| {
                    let size = match draft.tables().get("object", &object_key(bucket, key)) {
                        Some(Record::Object { size, .. }) => GiB::holding(*size),
                        _ => return Err(invalid(format!("the object s3://{bucket}/{key} does not exist"))),
                    };
                    if request.role == MISSING_ROLE {
                        return Err(invalid(format!(
                            "The service role {MISSING_ROLE} provided does not exist or does not have sufficient \
                             permissions"
                        )));
                    }
                    let (snapshot_id, id) = (draft.fresh_id("snap"), draft.fresh_id("import-snap"));
                    let ready_at = self.ready_after(IMPORT);
                    let row = Snapshot {
                        id: snapshot_id.clone(),
                        state: "pending".to_owned(),
                        state_reason: None,
                        size,
                        volume_id: None,
                        kms_key: request.kms_key.clone(),
                        // The request's tags are the task's.
                        tags: Tags::new(),
                        created: self.now(),
                    };
                    draft.put(Record::Snapshot { row, ready_at, region: String::new(), upload: None, content: None });
                    let row = ImportTask {
                        id: id.clone(),
                        state: "active".to_owned(),
                        message: String::new(),
                        progress: None,
                        snapshot_id: Some(snapshot_id),
                    };
                    draft.put(Record::Task { row, ready_at });
                    Ok(id)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Bytes = Bytes(3 << 30);

    fn share(part: u64, whole: u64) -> u64 {
        part * 100 / whole
    }

    #[test]
    fn images_are_mostly_zeroes_and_mostly_alike() {
        let (one, two) = (blocks_of("one", SIZE), blocks_of("two", SIZE));
        assert_eq!(one, blocks_of("one", SIZE), "a manifest is made again from hash and size");
        let (all, data) = (one.hashes.len() as u64, one.to_send(None));
        assert_eq!(all, BlockMap::count_for(SIZE));
        assert!((35..=45).contains(&share(data.len(), all)), "{} of {all}", data.len());
        let differ = one.to_send(Some(&two));
        assert!((3..=7).contains(&share(differ.len(), data.len())), "{} of {}", differ.len(), data.len());
        assert_eq!(differ.without(&data).len(), 0, "zeroes are where they were");
    }

    #[test]
    fn the_smallest_image_holds_data() {
        assert_eq!(blocks_of("one", Bytes(1)).to_send(None).to_string(), "0");
        assert!(blocks_of("one", Bytes(0)).hashes.is_empty());
    }
}
