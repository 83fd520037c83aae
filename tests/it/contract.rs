//! What the ports promise, asked of the simulator and of moto alike, so that the one cannot drift from the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawd::digest::sha256_hex;
use clawd::image::{BlockMap, Manifest};
use clawd::providers::ports::{
    BlockUpload, Blocks, Clock, Completion, DiskFile, Ec2, ImageCopy, ImageRequest, ImportRequest,
    Modification, ObjectPlace, SnapshotRequest, SnapshotStart, TAG_CONTENT, TAG_FLEET, Tags, Upload,
    VolumeRequest, VolumeShape, Watch,
};
use clawd::units::{Bytes, GiB, Seconds};

/// Adapters to ask.
pub(crate) struct World {
    pub(crate) ec2: Arc<dyn Ec2>,
    pub(crate) upload: Arc<dyn Upload>,
    /// The simulator's virtual clock; moto moves on with each look.
    pub(crate) clock: Option<Arc<dyn Clock>>,
    /// A name that no other test has.
    pub(crate) fleet: String,
    /// A bucket that exists.
    pub(crate) bucket: String,
}

/// Nobody is told.
pub(crate) struct Quiet;

impl Watch for Quiet {
    fn progress(&self, _: &str) {}

    fn stored(&self, _: &clawd::image::BlockSet) {}
}

impl World {
    fn tags(&self) -> Tags {
        Tags::from([
            (TAG_FLEET.into(), self.fleet.clone()),
            (TAG_CONTENT.into(), format!("{}-content", self.fleet)),
        ])
    }

    fn start(&self, parent: Option<&str>) -> SnapshotStart {
        SnapshotStart {
            description: "a test".into(),
            size: GiB(1),
            parent: parent.map(str::to_owned),
            kms_key: None,
            timeout: Seconds(3600),
            tags: self.tags(),
        }
    }

    fn image(&self, name: &str, snapshot: &str) -> ImageRequest {
        ImageRequest {
            name: format!("{}-{name}", self.fleet),
            description: "a test".into(),
            snapshot_id: snapshot.into(),
            architecture: "arm64".into(),
            boot_mode: "uefi".into(),
            root_device: "/dev/xvda".into(),
            volume_type: "gp3".into(),
            size: GiB(1),
            iops: None,
            throughput: None,
            imdsv2: true,
            ena: true,
            tags: self.tags(),
        }
    }

    fn token(&self, what: &str) -> String {
        sha256_hex(format!("{} {what}", self.fleet).as_bytes())
    }

    /// Looks until something is as it should be; fails when it never is.
    async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        for _ in 0..20 {
            if is_so().await {
                return;
            }
            if let Some(clock) = &self.clock {
                clock.sleep(Duration::from_secs(30)).await;
            }
        }
        panic!("never: {what}");
    }

    /// A completed snapshot of an image file.
    async fn snapshot(&self, disk: &DiskFile, what: &str) -> String {
        let id = self.upload.start_snapshot(&self.token(what), &self.start(None)).await.unwrap();
        let map = self.upload.blocks(disk).await.unwrap();
        let completion = completion(&id, &map, None);
        let job = BlockUpload { snapshot: id.clone(), image: disk.clone(), blocks: Blocks::WithData };
        assert_eq!(self.upload.put_blocks(&job, &Quiet).await.unwrap(), map, "hashed on the way, or before");
        self.upload.complete_snapshot(&completion).await.unwrap();
        self.until("the snapshot is completed", async || {
            self.ec2.snapshot(&id).await.unwrap().unwrap().state == "completed"
        })
        .await;
        id
    }

    /// An available AMI.
    async fn ami(&self, name: &str, snapshot: &str) -> String {
        let id = self.ec2.register_image(&self.image(name, snapshot)).await.unwrap();
        self.until("the AMI is available", async || {
            self.ec2.image(&id).await.unwrap().is_some_and(|image| image.state == "available")
        })
        .await;
        id
    }
}

fn completion(id: &str, map: &BlockMap, parent: Option<&BlockMap>) -> Completion {
    let send = map.to_send(parent);
    Completion { snapshot: id.into(), blocks: send.len(), checksum: map.linear_checksum(&send) }
}

/// A sparse image file of some blocks, other for another mark.
pub(crate) fn disk(dir: &Path, mark: u8) -> DiskFile {
    const BLOCK: usize = 512 * 1024;
    let mut bytes = vec![0; BLOCK * 6 + 100];
    bytes[7] = 1;
    bytes[BLOCK * 3] = mark;
    bytes[BLOCK * 6] = 3;
    let path = dir.join(format!("disk-{mark}.img"));
    std::fs::write(&path, &bytes).unwrap();
    let size = Bytes(bytes.len() as u64);
    DiskFile { path: path.to_string_lossy().into_owned(), size, sha256: sha256_hex(&bytes) }
}

/// Runs all of it.
pub(crate) async fn holds(world: &World, dir: &Path) {
    what_is_not_there_is_none(world).await;
    a_snapshot_is_begun_once_and_sealed_once(world, &disk(dir, 9)).await;
    a_child_holds_what_differs(world, &disk(dir, 9), &disk(dir, 11)).await;
    an_ami_has_a_name_of_its_own_and_goes_before_its_snapshot(world, &disk(dir, 9)).await;
    an_object_is_imported_once(world, &disk(dir, 9)).await;
}

/// The same of volumes; `hosts` are two instances that run in one zone.
pub(crate) async fn volumes_hold(world: &World, zone: &str, hosts: [&str; 2]) {
    let ec2 = &world.ec2;
    let request = VolumeRequest {
        zone: zone.into(),
        size: GiB(1),
        kind: "gp3".into(),
        iops: None,
        throughput: None,
        kms_key: None,
        snapshot: None,
        tags: world.tags(),
    };
    assert_eq!(ec2.volume("vol-0123456789abcdef0").await.unwrap(), None);
    let token = world.token("volume");
    let id = ec2.create_volume(&token, &request).await.unwrap();
    assert_eq!(ec2.create_volume(&token, &request).await.unwrap(), id, "one token, one volume");
    let larger = VolumeRequest { size: GiB(2), ..request.clone() };
    assert!(ec2.create_volume(&token, &larger).await.is_err(), "a token is for one request");
    let volume = async || ec2.volume(&id).await.unwrap().unwrap();
    world.until("the volume is available", async || volume().await.state == "available").await;
    assert_eq!(ec2.volumes(&[(TAG_FLEET, &world.fleet)]).await.unwrap(), [volume().await]);
    assert_eq!(
        (volume().await.size, volume().await.snapshot, volume().await.tags),
        (GiB(1), None, world.tags())
    );

    ec2.attach_volume(&id, hosts[0]).await.unwrap();
    ec2.attach_volume(&id, hosts[0]).await.unwrap();
    assert_eq!(volume().await.attached_to.as_deref(), Some(hosts[0]));
    let taken = ec2.attach_volume(&id, hosts[1]).await.unwrap_err();
    assert!(taken.message.contains("VolumeInUse"), "{taken}");
    let used = ec2.delete_volume(&id).await.unwrap_err();
    assert!(used.message.contains("VolumeInUse"), "{used}");
    // Whoever does not hold it has nothing to give up.
    ec2.detach_volume(&id, hosts[1]).await.unwrap();
    assert_eq!(volume().await.attached_to.as_deref(), Some(hosts[0]));

    assert_eq!(ec2.modification(&id).await.unwrap(), Modification::Done, "it was never changed");
    let shape = VolumeShape { size: GiB(2), kind: "gp3".into(), iops: None, throughput: None };
    ec2.modify_volume(&id, &shape).await.unwrap();
    ec2.modify_volume(&id, &shape).await.unwrap();
    let grown = async || ec2.modification(&id).await.unwrap() == Modification::Done;
    world.until("the volume has grown", grown).await;
    assert_eq!(volume().await.size, GiB(2));

    let description = "a test".to_owned();
    let snapshot = SnapshotRequest { volume_id: id.clone(), description, tags: world.tags() };
    let snapshot = ec2.create_snapshot(&snapshot).await.unwrap();
    let look = async || ec2.snapshot(&snapshot).await.unwrap().unwrap();
    world.until("the snapshot is completed", async || look().await.state == "completed").await;
    assert_eq!(
        (look().await.volume_id, look().await.size, look().await.tags),
        (Some(id.clone()), GiB(2), world.tags())
    );

    ec2.detach_volume(&id, hosts[0]).await.unwrap();
    ec2.detach_volume(&id, hosts[0]).await.unwrap();
    world.until("the volume is free", async || volume().await.attached_to.is_none()).await;
    let restored = VolumeRequest { size: GiB(2), snapshot: Some(snapshot.clone()), ..request };
    let second = ec2.create_volume(&world.token("restored"), &restored).await.unwrap();
    assert_eq!(ec2.volume(&second).await.unwrap().unwrap().snapshot, Some(snapshot));
    world
        .until("the second is available", async || {
            ec2.volume(&second).await.unwrap().unwrap().state == "available"
        })
        .await;
    for id in [&id, &second] {
        ec2.delete_volume(id).await.unwrap();
        ec2.delete_volume(id).await.unwrap();
        assert!(ec2.volume(id).await.unwrap().is_none_or(|it| it.state == "deleted"));
    }
}

async fn what_is_not_there_is_none(world: &World) {
    assert_eq!(world.ec2.snapshot("snap-0123456789abcdef0").await.unwrap(), None);
    assert_eq!(world.ec2.image("ami-0aaaaaaaaaaaaaaa0").await.unwrap(), None);
    assert_eq!(world.ec2.image_named(&format!("{}-none", world.fleet)).await.unwrap(), None);
    assert_eq!(world.upload.import_task("import-snap-0123456789abcdef0").await.unwrap(), None);
    assert_eq!(world.upload.manifest("snap-0123456789abcdef0", None).await.unwrap(), None);
    assert!(world.ec2.images(&[(TAG_FLEET, &world.fleet)]).await.unwrap().is_empty());
}

async fn a_snapshot_is_begun_once_and_sealed_once(world: &World, disk: &DiskFile) {
    let token = world.token("once");
    let id = world.upload.start_snapshot(&token, &world.start(None)).await.unwrap();
    assert_eq!(
        world.upload.start_snapshot(&token, &world.start(None)).await.unwrap(),
        id,
        "one token, one snapshot"
    );
    let larger = SnapshotStart { size: GiB(2), ..world.start(None) };
    assert!(world.upload.start_snapshot(&token, &larger).await.is_err(), "a token is for one request");
    let found = world.ec2.snapshots(&[(TAG_FLEET, &world.fleet)]).await.unwrap();
    assert_eq!(
        found.iter().map(|it| (it.id.as_str(), it.state.as_str())).collect::<Vec<_>>(),
        [(id.as_str(), "pending")]
    );
    assert_eq!((found[0].size, &found[0].tags, &found[0].kms_key), (GiB(1), &world.tags(), &None));
    let map = world.upload.blocks(disk).await.unwrap();
    let send = map.to_send(None);
    let whole = completion(&id, &map, None);
    let early = world.upload.complete_snapshot(&whole).await.unwrap_err();
    assert!(!early.kind.is_retryable(), "blocks are missing: {early}");
    let job = BlockUpload { snapshot: id.clone(), image: disk.clone(), blocks: Blocks::These { map, send } };
    world.upload.put_blocks(&job, &Quiet).await.unwrap();
    world.upload.put_blocks(&job, &Quiet).await.unwrap();
    let fewer = Completion { blocks: whole.blocks - 1, ..whole.clone() };
    assert!(world.upload.complete_snapshot(&fewer).await.is_err(), "the count is checked");
    world.upload.complete_snapshot(&whole).await.unwrap();
    world
        .until("the snapshot is completed", async || {
            world.ec2.snapshot(&id).await.unwrap().unwrap().state == "completed"
        })
        .await;
    assert!(world.upload.put_blocks(&job, &Quiet).await.is_err(), "a sealed snapshot takes no more blocks");
    world.ec2.delete_snapshot(&id).await.unwrap();
    world.ec2.delete_snapshot(&id).await.unwrap();
    assert_eq!(world.ec2.snapshot(&id).await.unwrap(), None);
}

async fn a_child_holds_what_differs(world: &World, first: &DiskFile, second: &DiskFile) {
    let unfinished =
        world.upload.start_snapshot(&world.token("unfinished"), &world.start(None)).await.unwrap();
    let child = world.start(Some(&unfinished));
    assert!(
        world.upload.start_snapshot(&world.token("too early"), &child).await.is_err(),
        "the parent is pending"
    );
    let parent = world.snapshot(first, "parent").await;
    let with_key =
        SnapshotStart { kms_key: Some("arn:aws:kms:x:1:key/k".into()), ..world.start(Some(&parent)) };
    assert!(
        world.upload.start_snapshot(&world.token("key"), &with_key).await.is_err(),
        "no key beside a parent"
    );
    let (before, after) =
        (world.upload.blocks(first).await.unwrap(), world.upload.blocks(second).await.unwrap());
    let manifest =
        Manifest { snapshot_id: parent.clone(), sha256: first.sha256.clone(), blocks: before.clone() };
    world.upload.keep_manifest(&manifest, None).await.unwrap();
    assert_eq!(world.upload.manifest(&parent, None).await.unwrap(), Some(manifest));
    let id = world.upload.start_snapshot(&world.token("child"), &world.start(Some(&parent))).await.unwrap();
    let send = after.to_send(Some(&before));
    assert!(send.len() < after.to_send(None).len(), "fewer blocks than a full upload");
    let whole = completion(&id, &after, Some(&before));
    let job = BlockUpload { snapshot: id, image: second.clone(), blocks: Blocks::These { map: after, send } };
    world.upload.put_blocks(&job, &Quiet).await.unwrap();
    world.upload.complete_snapshot(&whole).await.unwrap();
}

async fn an_ami_has_a_name_of_its_own_and_goes_before_its_snapshot(world: &World, disk: &DiskFile) {
    let ec2 = &world.ec2;
    let pending = world.upload.start_snapshot(&world.token("pending"), &world.start(None)).await.unwrap();
    assert!(
        ec2.register_image(&world.image("early", &pending)).await.is_err(),
        "the snapshot is not completed"
    );
    let missing = ec2.register_image(&world.image("none", "snap-0123456789abcdef0")).await.unwrap_err();
    assert!(missing.message.contains("InvalidSnapshot.NotFound"), "{missing}");
    let snapshot = world.snapshot(disk, "ami").await;
    let id = world.ami("one", &snapshot).await;
    let again = ec2.register_image(&world.image("one", &snapshot)).await.unwrap_err();
    assert!(again.message.contains("InvalidAMIName.Duplicate"), "{again}");
    let image = ec2.image(&id).await.unwrap().unwrap();
    assert_eq!(ec2.image_named(&image.name).await.unwrap().as_ref(), Some(&image));
    assert_eq!(ec2.images(&[(TAG_FLEET, &world.fleet)]).await.unwrap(), std::slice::from_ref(&image));
    assert!(ec2.images(&[(TAG_FLEET, &world.fleet), (TAG_CONTENT, "other")]).await.unwrap().is_empty());
    assert_eq!(
        (image.snapshot_id.as_str(), image.architecture.as_str(), image.boot_mode.as_str(), &image.tags),
        (snapshot.as_str(), "arm64", "uefi", &world.tags())
    );
    let (one, two) = ("111111111111".to_owned(), "222222222222".to_owned());
    ec2.set_launch_permissions(&id, &[two.clone(), one.clone()], &[]).await.unwrap();
    assert_eq!(ec2.launch_permissions(&id).await.unwrap(), [one.clone(), two.clone()]);
    ec2.set_launch_permissions(&id, &["all".into()], &[two]).await.unwrap();
    assert_eq!(ec2.launch_permissions(&id).await.unwrap(), [one, "all".into()]);
    // EC2 keeps whole minutes.
    let at = (image.created + 86_400).div_euclid(60) * 60;
    ec2.deprecate_image(&id, at).await.unwrap();
    assert_eq!(ec2.image(&id).await.unwrap().unwrap().deprecated, Some(at));
    a_copy_is_made_once(world, &id, &image.name).await;
    let used = ec2.delete_snapshot(&snapshot).await.unwrap_err();
    assert!(used.message.contains("InvalidSnapshot.InUse"), "{used}");
    ec2.deregister_image(&id).await.unwrap();
    ec2.deregister_image(&id).await.unwrap();
    assert_eq!(ec2.image_named(&image.name).await.unwrap(), None);
    ec2.delete_snapshot(&snapshot).await.unwrap();
}

async fn a_copy_is_made_once(world: &World, source: &str, name: &str) {
    let there = world.ec2.in_region("us-east-1");
    let request = ImageCopy {
        source: source.into(),
        source_region: "eu-central-1".into(),
        name: name.into(),
        description: String::new(),
        tags: world.tags(),
    };
    let token = world.token("copy");
    let id = there.copy_image(&token, &request).await.unwrap();
    assert_eq!(there.copy_image(&token, &request).await.unwrap(), id, "one token, one copy");
    assert!(there.copy_image(&world.token("copy again"), &request).await.is_err(), "the name is taken");
    let copies = there.images(&[(TAG_FLEET, &world.fleet)]).await.unwrap();
    assert_eq!(copies.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    assert_ne!(id, source);
    assert_eq!(world.ec2.image(&id).await.unwrap(), None, "a copy is in its region only");
    there.deregister_image(&id).await.unwrap();
}

async fn an_object_is_imported_once(world: &World, disk: &DiskFile) {
    let place = ObjectPlace { bucket: world.bucket.clone(), key: format!("{}/disk.raw", world.fleet) };
    let request = ImportRequest {
        description: "a test".into(),
        object: place.clone(),
        format: "raw".into(),
        role: "vmimport".into(),
        kms_key: None,
        tags: world.tags(),
    };
    let token = world.token("import");
    let absent = world.upload.import_snapshot(&world.token("absent"), &request).await.unwrap_err();
    assert!(absent.message.contains("InvalidParameter"), "{absent}");
    world.upload.put_object(disk, &place, &Quiet).await.unwrap();
    world.upload.put_object(disk, &place, &Quiet).await.unwrap();
    let no_role = ImportRequest { role: "missing-vmimport".into(), ..request.clone() };
    let refused = world.upload.import_snapshot(&world.token("role"), &no_role).await.unwrap_err();
    assert!(refused.message.contains("service role"), "{refused}");
    let task = world.upload.import_snapshot(&token, &request).await.unwrap();
    assert_eq!(world.upload.import_snapshot(&token, &request).await.unwrap(), task, "one token, one import");
    assert_eq!(world.upload.import_task(&task).await.unwrap().unwrap().state, "active");
    world
        .until("the import is completed", async || {
            world.upload.import_task(&task).await.unwrap().unwrap().state == "completed"
        })
        .await;
    let snapshot = world.upload.import_task(&task).await.unwrap().unwrap().snapshot_id.unwrap();
    world.ec2.tag(&snapshot, &world.tags()).await.unwrap();
    let found = world.ec2.snapshots(&[(TAG_FLEET, &world.fleet)]).await.unwrap();
    assert!(found.iter().any(|it| it.id == snapshot && it.tags == world.tags()));
    world.upload.remove_object(&place).await.unwrap();
    world.upload.remove_object(&place).await.unwrap();
}
