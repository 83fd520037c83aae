//! What makes an AMI another AMI: the parts of `import_ami`'s arguments that its content hash is made of, as far as they are
//! known. None of them needs the image's bytes. Pure.

use super::import_ami::{Args, DEFAULT_ROOT_DEVICE, VolumeType};
use super::partial::Partial;
use crate::digest::sha256_hex;
use crate::value::Value;

/// Hex digits of the content hash in an AMI's name: 64 bits, and the tag holds the rest.
const NAME_DIGITS: usize = 16;

/// A text argument, its default where it is not given, or the argument's name when it is not known yet.
fn text<'a>(args: &Partial<'a, Args>, path: &'static str, default: &'a str) -> Result<&'a str, &'static str> {
    optional(args, path).map(|found| found.unwrap_or(default))
}

fn optional<'a>(args: &Partial<'a, Args>, path: &'static str) -> Result<Option<&'a str>, &'static str> {
    match args.get(path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(path),
    }
}

/// What an AMI's identity is made of, where it is known: the parts that do not need the image's bytes.
pub(super) struct Identity<'a> {
    fleet: &'a str,
    pub(super) name_prefix: &'a str,
    store_path: &'a str,
    pub(super) architecture: &'a str,
    pub(super) boot_mode: &'a str,
    pub(super) root_device: &'a str,
    volume_type: &'a str,
    kms_key: Option<&'a str>,
    /// `volume_size_gib`, `iops`, `throughput`, `imdsv2`, `ena` as they are given.
    details: [Option<&'a Value>; 5],
}

impl<'a> Identity<'a> {
    /// The identity, or the first leaf that is not known.
    pub(super) fn of(args: &Partial<'a, Args>, fleet: &'a str) -> Result<Self, &'static str> {
        let needed = |path: &'static str| args.str(path).ok_or(path);
        let detail = |path: &'static str, default: &Value| match args.get(path) {
            Some(value) if value.has_unknown() => Err(path),
            Some(value) if *value != Value::Null && value != default => Ok(Some(value)),
            _ => Ok(None),
        };
        Ok(Self {
            fleet,
            name_prefix: needed("name_prefix")?,
            store_path: needed("image.store_path")?,
            architecture: needed("image.architecture")?,
            boot_mode: match optional(args, "boot_mode")? {
                Some(mode) => mode,
                None => needed("image.boot_mode")?,
            },
            root_device: text(args, "root_device", DEFAULT_ROOT_DEVICE)?,
            volume_type: text(args, "volume_type", VolumeType::default().as_str())?,
            kms_key: optional(args, "kms_key")?,
            details: [
                detail("volume_size_gib", &Value::Null)?,
                detail("iops", &Value::Null)?,
                detail("throughput", &Value::Null)?,
                detail("imdsv2", &Value::Bool(true))?,
                detail("ena", &Value::Bool(true))?,
            ],
        })
    }

    pub(super) fn hash(&self) -> String {
        let Self {
            fleet,
            name_prefix,
            store_path,
            architecture,
            boot_mode,
            root_device,
            volume_type,
            kms_key,
            details,
        } = self;
        let details =
            details.map(|detail| detail.map(|value| serde_json::to_value(value).unwrap_or_default()));
        let parts = (
            "clawd-ami-1",
            fleet,
            name_prefix,
            store_path,
            architecture,
            boot_mode,
            root_device,
            volume_type,
            kms_key,
            details,
        );
        sha256_hex(&serde_json::to_vec(&parts).expect("text and numbers have a JSON form"))
    }
}

pub(super) fn ami_name(prefix: &str, hash: &str) -> String {
    format!("{prefix}-{}", &hash[..NAME_DIGITS.min(hash.len())])
}
