//! `import_ami`: an AMI from a disk image. An AMI is found by the tag that holds the hash of its content
//! (image, architecture, boot mode, devices), so nothing is uploaded or registered twice.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::build_image::{Format, Image};
use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::digest::sha256_hex;
use crate::plan::{Action, Change, Decision};
use crate::providers::ports::{self, ImageRequest, SnapshotRequest, TAG_CONTENT, TAG_FLEET};
use crate::providers::{ErrorKind, ProviderError};
use crate::units::{Bytes, GiB};
use crate::value::Value;

/// How often a pending snapshot or image is looked at.
const POLL: Duration = Duration::from_secs(15);

/// Hex digits of the content hash in an AMI's name: 64 bits, and the tag holds the rest.
const NAME_DIGITS: usize = 16;

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

/// Firmware of an AMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BootMode {
    /// UEFI only.
    Uefi,
    /// UEFI where the instance type has it.
    UefiPreferred,
    /// BIOS.
    LegacyBios,
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
    /// Provisioned operations.
    Io2,
}

impl BootMode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
            Self::LegacyBios => "legacy-bios",
        }
    }
}

impl VolumeType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io2 => "io2",
        }
    }
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::EbsDirect => "ebs_direct",
            Self::Vmimport => "vmimport",
        }
    }
}

const DEFAULT_ROOT_DEVICE: &str = "/dev/xvda";

fn default_root_device() -> String {
    DEFAULT_ROOT_DEVICE.to_owned()
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
    /// KMS key that encrypts the snapshot; the account's default when not given.
    kms_key: Option<String>,
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
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Nothing while the image's identity is not known.
    content_hash: Option<String>,
    /// The AMI that carries the hash, available or on its way.
    image: Option<ports::Image>,
}

/// What an AMI's identity is made of, where it is known: the parts that do not need the image's bytes.
struct Identity<'a> {
    fleet: &'a str,
    name_prefix: &'a str,
    store_path: &'a str,
    architecture: &'a str,
    boot_mode: &'a str,
    root_device: &'a str,
    volume_type: &'static str,
    volume_size: Option<i64>,
    kms_key: Option<&'a str>,
}

impl<'a> Identity<'a> {
    /// The identity, or the first leaf that is not known.
    fn of(args: &Partial<'a, Args>, fleet: &'a str) -> Result<Self, &'static str> {
        let text = |path: &'static str| args.str(path).ok_or(path);
        let optional = |path: &'static str| match args.get(path) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(path),
        };
        let volume_type = match optional("volume_type")? {
            None | Some("gp3") => VolumeType::Gp3.as_str(),
            Some("gp2") => VolumeType::Gp2.as_str(),
            _ => VolumeType::Io2.as_str(),
        };
        Ok(Self {
            fleet,
            name_prefix: text("name_prefix")?,
            store_path: text("image.store_path")?,
            architecture: text("image.architecture")?,
            boot_mode: match optional("boot_mode")? {
                Some(mode) => mode,
                None => text("image.boot_mode")?,
            },
            root_device: optional("root_device")?.unwrap_or(DEFAULT_ROOT_DEVICE),
            volume_type,
            volume_size: match args.get("volume_size_gib") {
                None | Some(Value::Null) => None,
                Some(Value::Int(size)) => Some(*size),
                Some(_) => return Err("volume_size_gib"),
            },
            kms_key: optional("kms_key")?,
        })
    }

    fn hash(&self) -> String {
        let Self {
            fleet,
            name_prefix,
            store_path,
            architecture,
            boot_mode,
            root_device,
            volume_type,
            volume_size,
            kms_key,
        } = self;
        let parts = (
            "clawd-ami-1",
            fleet,
            name_prefix,
            store_path,
            architecture,
            boot_mode,
            root_device,
            volume_type,
            volume_size,
            kms_key,
        );
        sha256_hex(&serde_json::to_vec(&parts).expect("text and numbers have a JSON form"))
    }
}

fn ami_name(prefix: &str, hash: &str) -> String {
    format!("{prefix}-{}", &hash[..NAME_DIGITS.min(hash.len())])
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
        "ec2:CreateTags",
        "ec2:DescribeImages",
        "ec2:DescribeImportSnapshotTasks",
        "ec2:DescribeSnapshots",
        "ec2:ImportSnapshot",
        "ec2:RegisterImage",
    ];
    const PORT: Port = Port::Ec2;
    type Args = Args;
    type Outputs = Ami;
    type Seen = Seen;

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let fleet = &cx.scope().target.fleet;
        let Ok(identity) = Identity::of(args, fleet) else {
            return Ok(Seen { content_hash: None, image: None });
        };
        let hash = identity.hash();
        let mut images = cx.ec2().images(&[(TAG_FLEET, fleet), (TAG_CONTENT, &hash)]).await?;
        images.retain(|image| matches!(image.state.as_str(), "available" | "pending"));
        if images.len() > 1 {
            let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
            return Err(ProviderError::refused(
                "ec2 DescribeImages",
                format!("{} AMIs carry the content hash {}: {}", ids.len(), &hash[..12], ids.join(", ")),
            )
            .help("deregister all but one of them; which one a plan means must not be a guess"));
        }
        Ok(Seen { content_hash: Some(hash), image: images.pop() })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, scope: Scope<'_>) -> Result<Decision, Refusal> {
        if args.str("image.format").is_some_and(|format| format != Format::Raw.as_str())
            && args.str("method").unwrap_or(Method::EbsDirect.as_str()) == Method::EbsDirect.as_str()
        {
            return Err(Refusal::new(
                format!(
                    "ebs_direct takes raw images only, this one is {}",
                    args.planned("image.format").as_str().unwrap_or("another")
                ),
                "build it with `format: \"raw\"`, or import it with `method: \"vmimport\"`",
            ));
        }
        let (identity, hash) = match (Identity::of(args, &scope.target.fleet), &seen.content_hash) {
            (Ok(identity), Some(hash)) => (identity, hash.as_str()),
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
            ("region", scope.target.region.as_str().into()),
        ]);
        let short = &hash[..12];
        Ok(match found {
            Some(image) if image.state == "available" => {
                Decision::no_op(format!("{} carries content hash {short}", image.id), planned)
            }
            Some(image) => {
                Decision::new(Action::Update, format!("{} is not available yet", image.id), planned)
            }
            None => Decision::new(Action::Create, format!("no AMI carries content hash {short}"), planned)
                .changes([
                    Change::new("name", name),
                    Change::new("boot_mode", identity.boot_mode.into()),
                    Change::new("architecture", identity.architecture.into()),
                    Change::new(
                        "method",
                        args.get("method").cloned().unwrap_or_else(|| Method::default().as_str().into()),
                    ),
                ]),
        })
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Ami, ProviderError> {
        let hash = seen
            .content_hash
            .ok_or_else(|| ProviderError::permanent(Self::NAME, "the image's identity was not known"))?;
        let image = match seen.image {
            Some(image) => image,
            None => register(&args, &hash, cx).await?,
        };
        let image = wait_available(image, cx).await?;
        Ok(Ami {
            image_id: image.id,
            snapshot_id: image.snapshot_id,
            name: image.name,
            content_hash: hash,
            architecture: args.image.architecture,
            boot_mode: args.boot_mode.map_or(args.image.boot_mode, |mode| mode.as_str().to_owned()),
            root_device: args.root_device,
            region: cx.target().region.clone(),
        })
    }
}

/// Uploads the snapshot and registers the AMI, or finds the one an earlier try registered.
async fn register(args: &Args, hash: &str, cx: &ApplyContext<'_>) -> Result<ports::Image, ProviderError> {
    let name = ami_name(&args.name_prefix, hash);
    // RegisterImage takes no token: the deterministic name is looked up before each try.
    if let Some(image) = cx.ec2().image_named(&name).await? {
        return same_content(image, hash);
    }
    let mut tags = cx.owner_tags();
    tags.extend(
        args.tags
            .iter()
            .filter(|(key, _)| !key.starts_with("clawd:"))
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    tags.insert(TAG_CONTENT.to_owned(), hash.to_owned());
    // The snapshot holds the image's bytes and nothing of the AMI, so its request depends on the image alone:
    // another device name or tag must not upload the image again.
    let mut snapshot_tags = cx.owner_tags();
    snapshot_tags.insert(TAG_CONTENT.to_owned(), args.image.sha256.clone());
    let snapshot = SnapshotRequest {
        path: args.image.path.clone(),
        sha256: args.image.sha256.clone(),
        size: Bytes(args.image.size_bytes),
        method: args.method.as_str().to_owned(),
        kms_key: args.kms_key.clone(),
        tags: snapshot_tags,
    };
    cx.progress(&format!("uploading {} of {}", snapshot.size, snapshot.path));
    let fixed = (&snapshot.sha256, &snapshot.method, &snapshot.kms_key);
    let snapshot_id = cx
        .create(
            "ImportSnapshot",
            &fixed,
            |token| {
                let snapshot = &snapshot;
                async move { cx.ec2().import_snapshot(&token, snapshot).await }
            },
            |id| async move {
                let snapshot =
                    cx.ec2().snapshot(&id).await?.ok_or_else(|| not_visible("DescribeSnapshots", &id))?;
                Ok(snapshot.state != "error")
            },
        )
        .await?;
    wait_completed(&snapshot_id, cx).await?;
    let size = args.volume_size_gib.map_or(GiB::holding(snapshot.size), GiB);
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
        size,
        tags,
    };
    cx.progress(&format!("registering {name}"));
    let registered = cx.effect("RegisterImage", &request, |_| cx.ec2().register_image(&request)).await;
    match (cx.ec2().image_named(&name).await?, registered) {
        // Read back: an answer may have been lost, or another try may have been first.
        (Some(image), _) => same_content(image, hash),
        (None, Err(error)) => Err(error),
        (None, Ok(id)) => Err(not_visible("DescribeImages", &id)),
    }
}

/// What was just made and does not show yet is not gone: a look later tells.
fn not_visible(call: &str, id: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, format!("ec2 {call}"), format!("{id} is not visible yet"))
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

async fn wait_completed(id: &str, cx: &ApplyContext<'_>) -> Result<(), ProviderError> {
    loop {
        let state = cx.ec2().snapshot(id).await?.map(|snapshot| snapshot.state);
        match state.as_deref() {
            Some("completed") => return Ok(()),
            Some("pending") => cx.sleep(POLL).await?,
            other => {
                return Err(ProviderError::new(
                    ErrorKind::Transient,
                    "ec2 DescribeSnapshots",
                    format!("the snapshot {id} is {}", other.unwrap_or("gone")),
                ));
            }
        }
    }
}

async fn wait_available(image: ports::Image, cx: &ApplyContext<'_>) -> Result<ports::Image, ProviderError> {
    let mut image = image;
    while image.state == "pending" {
        cx.progress(&format!("waiting for {}", image.id));
        cx.sleep(POLL).await?;
        image = cx.ec2().image_named(&image.name).await?.ok_or_else(|| {
            ProviderError::permanent(
                "ec2 DescribeImages",
                format!("{} is gone while it was registered", image.id),
            )
        })?;
    }
    if image.state == "available" {
        return Ok(image);
    }
    Err(ProviderError::permanent("ec2 DescribeImages", format!("{} is {}", image.id, image.state))
        .help("deregister it and run again"))
}
