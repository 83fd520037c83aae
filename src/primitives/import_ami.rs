//! `import_ami`: an AMI from a disk image. An AMI is found by the tag that holds the hash of its content
//! (image, architecture, boot mode, devices), so nothing is uploaded or registered twice. How the bytes become a snapshot
//! is in `snapshot`, where the AMI is then copied and who may use it in `placement`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ami_identity::{Identity, ami_name};
use super::build_image::{BootMode, Format, Image};
use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::placement::{self, Place, Wanted, not_visible, wait_available};
use super::primitive::{Port, Primitive, Refusal};
use super::snapshot::{self, Known, Source};
use crate::plan::{Action, Change, Decision};
use crate::providers::ProviderError;
use crate::providers::ports::{self, DiskFile, ImageRequest, TAG_CONTENT, TAG_FLEET, TAG_REVISION, Tags};
use crate::units::{Bytes, GiB};
use crate::value::{Value, to_typed};

/// Imports a disk image as an AMI.
pub(super) struct ImportAmi;

/// How the bytes get to AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Method {
    /// The EBS direct API: blocks are put straight into a snapshot. Raw images only.
    #[default]
    EbsDirect,
    /// Upload to S3, then `ImportSnapshot`.
    Vmimport,
}

/// What an upload through EBS direct builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Parent {
    /// The step's last upload: only blocks that differ are sent.
    #[default]
    Latest,
    /// Nothing: all blocks that hold data are sent.
    None,
}

/// Root volume type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum VolumeType {
    /// General purpose, third generation.
    #[default]
    Gp3,
    /// General purpose, second generation.
    Gp2,
    /// Provisioned operations; needs `iops`.
    Io2,
}

impl VolumeType {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io2 => "io2",
        }
    }
}

pub(super) const DEFAULT_ROOT_DEVICE: &str = "/dev/xvda";

fn default_root_device() -> String {
    DEFAULT_ROOT_DEVICE.to_owned()
}

fn default_prefix() -> String {
    "clawd/images".to_owned()
}

fn default_role() -> String {
    "vmimport".to_owned()
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The image to import.
    image: Image,
    /// The AMI's name is this, a dash and digits of the content hash.
    #[schemars(regex(pattern = r"^[A-Za-z0-9()\[\] ./\-'@_]{3,100}$"))]
    name_prefix: String,
    /// Shown in the console.
    #[serde(default)]
    description: String,
    /// How the bytes get to AWS.
    #[serde(default)]
    method: Method,
    /// What an upload through EBS direct builds on.
    #[serde(default)]
    parent: Parent,
    /// S3 bucket: `vmimport` uploads the image there and removes it afterwards; `ebs_direct` keeps the block hashes of its
    /// uploads there, so that any machine can send only what changed. Without one they are kept on this machine.
    bucket: Option<String>,
    /// What keys in the bucket begin with.
    #[serde(default = "default_prefix")]
    bucket_prefix: String,
    /// The role with which EC2 reads the bucket, for `vmimport`.
    #[serde(default = "default_role")]
    role: String,
    /// Firmware; the image's own when not given.
    boot_mode: Option<BootMode>,
    /// Root device name.
    #[serde(default = "default_root_device")]
    root_device: String,
    /// Root volume type.
    #[serde(default)]
    volume_type: VolumeType,
    /// Root volume size; as large as the image when not given.
    #[schemars(range(min = 1, max = 65536))]
    volume_size_gib: Option<u64>,
    /// Provisioned operations per second of the root volume, for gp3 and io2.
    #[schemars(range(min = 100, max = 256_000))]
    iops: Option<u32>,
    /// Provisioned MiB per second of the root volume, for gp3.
    #[schemars(range(min = 125, max = 2000))]
    throughput: Option<u32>,
    /// KMS key that encrypts the snapshot, by ARN; the account's default when not given.
    kms_key: Option<String>,
    /// Instances must use the second version of the metadata service.
    #[serde(default = "yes")]
    imdsv2: bool,
    /// Enhanced networking: the image has the driver.
    #[serde(default = "yes")]
    ena: bool,
    /// Further regions to copy the AMI to.
    #[serde(default)]
    copies: Vec<String>,
    /// Exactly these accounts may launch it, here and in its copies; `all` makes it public. Left as it is when not given.
    launch_permissions: Option<Vec<String>>,
    /// Days after its creation from which on it counts as outdated.
    #[schemars(range(min = 1, max = 3650))]
    deprecate_after_days: Option<u32>,
    /// Further tags. Tags that begin with `clawd:` are taken.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// An AMI.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Ami", extend("x-clawd-step" = "import_ami"))]
pub(super) struct Ami {
    /// `ami-...`
    pub(super) image_id: String,
    /// The snapshot of its root device, `snap-...`
    pub(super) snapshot_id: String,
    /// Its name.
    pub(super) name: String,
    /// Hash of everything that makes it another AMI when it differs, hex.
    pub(super) content_hash: String,
    /// CPU architecture.
    pub(super) architecture: String,
    /// Firmware.
    pub(super) boot_mode: String,
    /// Root device name.
    pub(super) root_device: String,
    /// Region it is in.
    pub(super) region: String,
    /// Its copies: region to id.
    pub(super) copies: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Nothing while the image's identity is not known.
    content_hash: Option<String>,
    /// The AMI that carries the hash, available or on its way.
    image: Option<ports::Image>,
    /// What there is of its snapshot; nothing while the AMI is there or the image is not built.
    snapshot: Option<Known>,
    /// The AMI region by region; nothing while it is not there.
    places: Vec<Place>,
}

impl Args {
    fn source(&self) -> Source<'_> {
        Source {
            disk: DiskFile {
                path: self.image.path.clone(),
                size: Bytes(self.image.size_bytes),
                sha256: self.image.sha256.clone(),
            },
            format: self.image.format.as_str(),
            method: self.method,
            kms_key: self.kms_key.as_deref(),
            bucket: self.bucket.as_deref(),
            prefix: &self.bucket_prefix,
            role: &self.role,
            incremental: self.parent == Parent::Latest,
        }
    }

    /// The AMI's tags. The fleet's own cannot be overwritten.
    fn tags(&self, own: Tags, hash: &str) -> Tags {
        let given = self.tags.iter().filter(|(key, _)| !key.starts_with("clawd:"));
        let mut tags: Tags = given.map(|(key, value)| (key.clone(), value.clone())).collect();
        tags.extend(own);
        tags.insert(TAG_CONTENT.to_owned(), hash.to_owned());
        if let Some(revision) = &self.image.revision {
            tags.insert(TAG_REVISION.to_owned(), revision.clone());
        }
        tags
    }
}

/// What is wanted of the AMI's places, where it is known.
fn wanted(args: &Partial<'_, Args>) -> Result<Wanted, &'static str> {
    let list = |path: &'static str| match args.get(path) {
        None | Some(Value::Null) => Ok(None),
        Some(value) if value.has_unknown() => Err(path),
        Some(value) => to_typed::<Vec<String>>(value).map(Some).map_err(|_| path),
    };
    Ok(Wanted {
        copies: list("copies")?.unwrap_or_default(),
        launch_permissions: list("launch_permissions")?,
        deprecate_after_days: match args.get("deprecate_after_days") {
            None | Some(Value::Null) => None,
            Some(Value::Int(days)) => u32::try_from(*days).ok(),
            Some(_) => return Err("deprecate_after_days"),
        },
    })
}

/// What the arguments must not ask for together. Checked as far as they are known.
fn refuse(args: &Partial<'_, Args>, region: &str) -> Option<Refusal> {
    let method = args.str("method").unwrap_or("ebs_direct");
    let format = args.str("image.format");
    let given = |path: &str| !matches!(args.get(path), None | Some(Value::Null));
    let no = |message: String, help: &str| Some(Refusal::new(message, help));
    match (method, format) {
        ("ebs_direct", Some(format)) if format != Format::Raw.as_str() => {
            return no(
                format!("ebs_direct takes raw images only, this one is {format}"),
                "build it with `format: \"raw\"`, or import it with `method: \"vmimport\"`",
            );
        }
        ("vmimport", Some("qcow2")) => {
            return no(
                "vmimport takes raw, vhd and vmdk, this image is qcow2".to_owned(),
                "build it with another `format`",
            );
        }
        ("vmimport", _) if !given("bucket") => {
            return no(
                "vmimport uploads through S3 and no `bucket` is given".to_owned(),
                "name a bucket in the profile's region, or leave `method` out: ebs_direct needs none",
            );
        }
        _ => {}
    }
    if args.str("volume_type") == Some("io2") && !given("iops") {
        return no("an io2 root volume needs `iops`".to_owned(), "give `iops`, or use gp3");
    }
    let copies = match args.get("copies") {
        Some(Value::List(regions)) => regions.as_slice(),
        _ => &[],
    };
    if copies.iter().any(|it| it.as_str() == Some(region)) {
        return no(format!("`copies` names {region}, where the AMI itself is"), "name other regions only");
    }
    match (args.int("volume_size_gib"), args.int("image.size_bytes")) {
        (Some(volume), Some(size)) => {
            let needed = GiB::holding(Bytes(u64::try_from(size).unwrap_or(0)));
            if u64::try_from(volume).unwrap_or(0) < needed.0 {
                return no(
                    format!("the image needs {needed}, `volume_size_gib` is {volume}"),
                    "give at least the image's size, or leave it out",
                );
            }
            None
        }
        _ => None,
    }
}

impl Primitive for ImportAmi {
    const NAME: &'static str = "import_ami";
    const SUMMARY: &'static str = "Imports a disk image as an AMI, found again by the hash of its content.";
    const EXAMPLE: &'static str = r##"let image = build_image("base", #{ flake: ".#clawdinator-image" });
let ami = import_ami("base", #{ image: image, name_prefix: "clawdinator" });
output("ami", ami.image_id);"##;
    const IAM: &'static [&'static str] = &[
        "ebs:CompleteSnapshot",
        "ebs:PutSnapshotBlock",
        "ebs:StartSnapshot",
        "ec2:CopyImage",
        "ec2:CreateTags",
        "ec2:DescribeImageAttribute",
        "ec2:DescribeImages",
        "ec2:DescribeImportSnapshotTasks",
        "ec2:DescribeSnapshots",
        "ec2:EnableImageDeprecation",
        "ec2:GetEbsDefaultKmsKeyId",
        "ec2:GetEbsEncryptionByDefault",
        "ec2:ImportSnapshot",
        "ec2:ModifyImageAttribute",
        "ec2:RegisterImage",
        "iam:PassRole",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    ];
    const PORT: Port = Port::Ec2;
    type Args = Args;
    type Outputs = Ami;
    type Seen = Seen;

    fn needs(args: &Partial<'_, Args>, action: &str) -> bool {
        let vmimport = args.str("method") == Some("vmimport");
        let given = |path: &str| match args.get(path) {
            None | Some(Value::Null) => false,
            Some(Value::List(items)) => !items.is_empty(),
            Some(_) => true,
        };
        match action.split_once(':').unwrap_or_default() {
            ("ebs", _) => !vmimport,
            ("kms", _) => given("kms_key"),
            ("iam", _) => vmimport,
            // A manifest is one object.
            ("s3", "PutObject" | "GetObject") => vmimport || given("bucket"),
            ("s3", _) => vmimport,
            (_, "ImportSnapshot" | "DescribeImportSnapshotTasks") => vmimport,
            (_, "CopyImage") => given("copies"),
            (_, "DescribeImageAttribute" | "ModifyImageAttribute") => given("launch_permissions"),
            (_, "EnableImageDeprecation") => given("deprecate_after_days"),
            (_, "GetEbsDefaultKmsKeyId" | "GetEbsEncryptionByDefault") => !given("kms_key"),
            _ => true,
        }
    }

    fn resource(args: &Partial<'_, Args>, action: &str, scope: Scope<'_>) -> String {
        let Scope { target, .. } = scope;
        match action.split_once(':').unwrap_or_default() {
            ("ebs", _) => format!("arn:aws:ec2:{}::snapshot/*", target.region),
            ("kms", _) => args.str("kms_key").filter(|key| key.starts_with("arn:")).unwrap_or("*").to_owned(),
            ("iam", _) => {
                format!("arn:aws:iam::{}:role/{}", target.account, args.str("role").unwrap_or("vmimport"))
            }
            ("s3", call) => {
                let Some(bucket) = args.str("bucket") else { return "arn:aws:s3:::*".to_owned() };
                if matches!(call, "ListBucket" | "ListBucketMultipartUploads") {
                    return format!("arn:aws:s3:::{bucket}");
                }
                let prefix = args.str("bucket_prefix").unwrap_or("clawd/images").trim_matches('/');
                format!("arn:aws:s3:::{bucket}/{prefix}/*")
            }
            _ => "*".to_owned(),
        }
    }

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let target = cx.scope().target;
        let (Ok(identity), Ok(wanted)) = (Identity::of(args, &target.fleet), wanted(args)) else {
            return Ok(Seen { content_hash: None, image: None, snapshot: None, places: Vec::new() });
        };
        let hash = identity.hash();
        let mut images = cx.ec2().images(&[(TAG_FLEET, &target.fleet), (TAG_CONTENT, &hash)]).await?;
        images.retain(|image| matches!(image.state.as_str(), "available" | "pending"));
        if images.len() > 1 {
            let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
            return Err(ProviderError::refused(
                "ec2 DescribeImages",
                format!("{} AMIs carry the content hash {}: {}", ids.len(), &hash[..12], ids.join(", ")),
            )
            .help("deregister all but one of them; which one a plan means must not be a guess"));
        }
        let image = images.pop();
        let places = match &image {
            Some(image) => placement::survey(image, &hash, &wanted, cx).await?,
            None => Vec::new(),
        };
        let snapshot = match (&image, args.known()) {
            (None, Ok(known)) if refuse(args, &target.region).is_none() => {
                Some(snapshot::survey(&known.source(), cx).await?)
            }
            _ => None,
        };
        Ok(Seen { content_hash: Some(hash), image, snapshot, places })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, scope: Scope<'_>) -> Result<Decision, Refusal> {
        let target = scope.target;
        if let Some(refusal) = refuse(args, &target.region) {
            return Err(refusal);
        }
        let known = Identity::of(args, &target.fleet).and_then(|identity| Ok((identity, wanted(args)?)));
        let (identity, wanted, hash) = match (known, &seen.content_hash) {
            (Ok((identity, wanted)), Some(hash)) => (identity, wanted, hash.as_str()),
            (Err(leaf), _) => return Ok(Decision::unknown(format!("{leaf} is not known yet"))),
            (Ok(_), None) => return Ok(Decision::unknown("the image is not known yet")),
        };
        let name: Value = ami_name(identity.name_prefix, hash).into();
        let found = seen.image.as_ref();
        let planned = Value::map([
            ("image_id", found.map_or(Value::Unknown, |image| image.id.as_str().into())),
            ("snapshot_id", found.map_or(Value::Unknown, |image| image.snapshot_id.as_str().into())),
            ("name", found.map_or_else(|| name.clone(), |image| image.name.as_str().into())),
            ("content_hash", hash.into()),
            ("architecture", identity.architecture.into()),
            ("boot_mode", identity.boot_mode.into()),
            ("root_device", identity.root_device.into()),
            ("region", target.region.as_str().into()),
            ("copies", placement::planned_copies(&seen.places, &wanted)),
        ]);
        let short = &hash[..12];
        let Some(image) = found else {
            let method = args.get("method").cloned().unwrap_or_else(|| "ebs_direct".into());
            let mut decision =
                Decision::new(Action::Create, format!("no AMI carries content hash {short}"), planned)
                    .changes([
                        Change::new("name", name),
                        Change::new("boot_mode", identity.boot_mode.into()),
                        Change::new("architecture", identity.architecture.into()),
                        Change::new("method", method),
                    ]);
            for path in ["copies", "launch_permissions", "deprecate_after_days"] {
                let is_nothing = |value: &Value| match value {
                    Value::Null => true,
                    Value::List(items) => items.is_empty(),
                    _ => false,
                };
                if let Some(value) = args.get(path).filter(|value| !is_nothing(value)) {
                    decision = decision.changes([Change::new(path, value.clone())]);
                }
            }
            if let (Some(snapshot), Ok(known)) = (&seen.snapshot, args.known()) {
                decision = decision.note(snapshot.describe(&known.source()));
            }
            return Ok(decision);
        };
        let changes = placement::changes(&seen.places, &wanted);
        Ok(match changes.first() {
            None => Decision::no_op(format!("{} carries content hash {short}", image.id), planned),
            Some(first) => {
                let reason = if image.state == "available" {
                    format!("{} differs in {}", image.id, first.path)
                } else {
                    format!("{} is not available yet", image.id)
                };
                Decision::new(Action::Update, reason, planned).changes(changes)
            }
        })
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Ami, ProviderError> {
        let hash = seen
            .content_hash
            .ok_or_else(|| ProviderError::permanent(Self::NAME, "the image's identity was not known"))?;
        let tags = args.tags(cx.owner_tags(), &hash);
        let image = match (seen.image, seen.snapshot) {
            (Some(image), _) => image,
            (None, Some(known)) => register(&args, known, &hash, &tags, cx).await?,
            (None, None) => return Err(ProviderError::permanent(Self::NAME, "the image was not looked at")),
        };
        let image = wait_available(image, cx.ec2(), cx).await?;
        let wanted = Wanted {
            copies: args.copies.clone(),
            launch_permissions: args.launch_permissions.clone(),
            deprecate_after_days: args.deprecate_after_days,
        };
        let copies = placement::settle(&image, &tags, &wanted, cx).await?;
        Ok(Ami {
            image_id: image.id,
            snapshot_id: image.snapshot_id,
            name: image.name,
            content_hash: hash,
            architecture: args.image.architecture,
            boot_mode: args.boot_mode.map_or(args.image.boot_mode, |mode| mode.as_str().to_owned()),
            root_device: args.root_device,
            region: cx.target().region.clone(),
            copies: copies.into_iter().collect(),
        })
    }
}

/// Uploads the snapshot and registers the AMI, or finds the one an earlier try registered.
async fn register(
    args: &Args,
    known: Known,
    hash: &str,
    tags: &Tags,
    cx: &ApplyContext<'_>,
) -> Result<ports::Image, ProviderError> {
    let name = ami_name(&args.name_prefix, hash);
    // RegisterImage takes no token: the deterministic name is looked up before each try.
    if let Some(image) = cx.ec2().image_named(&name).await? {
        return same_content(image, hash);
    }
    let source = args.source();
    let snapshot_id = snapshot::make(&source, known, cx).await?;
    let request = ImageRequest {
        name: name.clone(),
        description: args.description.clone(),
        snapshot_id,
        architecture: args.image.architecture.clone(),
        boot_mode: args
            .boot_mode
            .map_or_else(|| args.image.boot_mode.clone(), |mode| mode.as_str().to_owned()),
        root_device: args.root_device.clone(),
        volume_type: args.volume_type.as_str().to_owned(),
        size: args.volume_size_gib.map_or(GiB::holding(source.disk.size), GiB),
        iops: args.iops,
        throughput: args.throughput,
        imdsv2: args.imdsv2,
        ena: args.ena,
        tags: tags.clone(),
    };
    cx.progress(&format!("registering {name}"));
    let registered = cx.effect("RegisterImage", &request, |_| cx.ec2().register_image(&request)).await;
    match (cx.ec2().image_named(&name).await?, registered) {
        // Read back: an answer may have been lost, or another try may have been first.
        (Some(image), _) => same_content(image, hash),
        (None, Err(error)) => Err(error),
        (None, Ok(id)) => Err(not_visible(&id)),
    }
}

fn same_content(image: ports::Image, hash: &str) -> Result<ports::Image, ProviderError> {
    if image.tags.get(TAG_CONTENT).is_some_and(|tag| tag == hash) {
        return Ok(image);
    }
    Err(ProviderError::refused(
        "ec2 RegisterImage",
        format!("the name {} is taken by {}, which has other content", image.name, image.id),
    )
    .help("choose another `name_prefix`, or deregister that AMI if nothing uses it"))
}
