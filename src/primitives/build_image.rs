//! `build_image`: a disk image from a nix flake. Its identity is its store path, known before it is built.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::image::info::architecture;
use crate::plan::{Action, Change, Decision, Hindrance};
use crate::providers::ProviderError;
use crate::providers::ports::{BuiltImage, Derivation, ImageSource, Work};
use crate::value::{Value, from_typed};

/// Builds a disk image from a nix flake.
pub(super) struct BuildImage;

/// A disk image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// A raw disk; the only one that EBS direct takes.
    #[default]
    Raw,
    /// Microsoft's virtual disk.
    Vhd,
    /// `VMware`'s virtual disk.
    Vmdk,
    /// QEMU's copy-on-write disk.
    Qcow2,
}

impl Format {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BootMode {
    /// UEFI only.
    #[default]
    Uefi,
    /// UEFI where the instance type has it.
    UefiPreferred,
    /// BIOS.
    LegacyBios,
}

impl BootMode {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
            Self::LegacyBios => "legacy-bios",
        }
    }
}

fn default_system() -> String {
    "x86_64-linux".to_owned()
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Flake reference with attribute, like `.#clawdinator-image`. Paths are relative to the project. The attribute is a
    /// derivation that yields an image file, or a directory with one; with `variant` it is a NixOS configuration, like
    /// `.#nixosConfigurations.host`.
    flake: String,
    /// The format the attribute must yield; the file's own bytes are checked against it.
    #[serde(default)]
    format: Format,
    /// The NixOS image variant, when the attribute is a host configuration: `config.system.build.images.<variant>`.
    variant: Option<String>,
    /// The nix system to build for, `x86_64-linux` or `aarch64-linux`.
    #[serde(default = "default_system")]
    system: String,
    /// Firmware the image boots with. An image that says otherwise of itself is an error.
    #[serde(default)]
    boot_mode: BootMode,
    /// Build even when no step needs the bytes.
    #[serde(default)]
    realise: bool,
}

/// A disk image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Image", extend("x-clawd-step" = "build_image"))]
pub(super) struct Image {
    /// The output's store path: the image's identity, known before it is built.
    pub(super) store_path: String,
    /// The derivation's store path; apply builds this one.
    pub(super) drv_path: String,
    /// The flake's revision; nothing for a tree with uncommitted changes or outside git.
    pub(super) revision: Option<String>,
    /// CPU architecture, `x86_64` or `arm64`.
    pub(super) architecture: String,
    /// Firmware it boots with.
    pub(super) boot_mode: String,
    /// The format.
    pub(super) format: Format,
    /// The image file; known once built.
    pub(super) path: String,
    /// Logical size in bytes; known once built.
    pub(super) size_bytes: u64,
    /// sha256 of the image file, hex; known once built.
    pub sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Nothing while the flake is not known.
    derivation: Option<Derivation>,
    built: Option<BuiltImage>,
    /// What building takes; nothing when it is built.
    work: Option<Work>,
}

fn outputs(derivation: &Derivation, built: BuiltImage, args: &Args) -> Image {
    let Derivation { drv_path, store_path, architecture, revision, .. } = derivation.clone();
    Image {
        store_path,
        drv_path,
        revision,
        architecture,
        boot_mode: args.boot_mode.as_str().to_owned(),
        format: args.format,
        path: built.path,
        size_bytes: built.size.0,
        sha256: built.sha256,
    }
}

/// Holds what the image says of itself against what the plan says of it.
fn contradiction(args: &Args, derivation: &Derivation, built: &BuiltImage) -> Option<Refusal> {
    let path = &built.path;
    if built.format != args.format.as_str() {
        return Some(Refusal::new(
            format!("{path} is {} by its first bytes, `format` says {}", built.format, args.format.as_str()),
            "set `format` to what the attribute yields, or let the flake yield the other format",
        ));
    }
    if let Some(said) = built.architecture.as_deref().filter(|said| *said != derivation.architecture) {
        return Some(Refusal::new(
            format!(
                "{path} says it is for {said}, `system` is {}, which is {}",
                args.system, derivation.architecture
            ),
            "set `system` to the one the image is for",
        ));
    }
    let wanted = args.boot_mode;
    // An image that boots both ways may be registered either way.
    let said =
        built.boot_mode.as_deref().filter(|said| *said != wanted.as_str() && *said != "uefi-preferred")?;
    if wanted == BootMode::UefiPreferred {
        return None;
    }
    Some(Refusal::new(
        format!("{path} says it boots with {said}, `boot_mode` is {}", wanted.as_str()),
        format!("set `boot_mode: \"{said}\"` on this build_image, or change the image"),
    ))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

impl Primitive for BuildImage {
    const NAME: &'static str = "build_image";
    const SUMMARY: &'static str =
        "Builds a disk image from a nix flake; nothing is built twice, and nothing that no step needs.";
    const EXAMPLE: &'static str = r##"let image = build_image("base", #{ flake: ".#clawdinator-image", format: "raw", realise: true });
output("store_path", image.store_path);"##;
    const IAM: &'static [&'static str] = &[];
    const PORT: Port = Port::Nix;
    type Args = Args;
    type Outputs = Image;
    type Seen = Seen;

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let Ok(known) = args.known() else {
            return Ok(Seen { derivation: None, built: None, work: None });
        };
        if architecture(&known.system).is_none() {
            let message = format!("`{}` is not a system that EC2 has machines for", known.system);
            return Err(
                ProviderError::refused(Self::NAME, message).help("x86_64-linux and aarch64-linux are")
            );
        }
        let source =
            ImageSource { flake: &known.flake, variant: known.variant.as_deref(), system: &known.system };
        let derivation = cx.nix().derivation(&source).await?;
        let built = cx.nix().built(&derivation).await?;
        let work = match built {
            Some(_) => None,
            None => Some(cx.nix().work(&derivation).await?),
        };
        Ok(Seen { derivation: Some(derivation), built, work })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        let (Some(derivation), Ok(known)) = (&seen.derivation, args.known()) else {
            return Ok(Decision::unknown(format!("{} is not known yet", args.unknown_leaves().join(", "))));
        };
        let mut decision = if let Some(built) = &seen.built {
            if let Some(refusal) = contradiction(&known, derivation, built) {
                return Err(refusal);
            }
            let image = outputs(derivation, built.clone(), &known);
            Decision::no_op("the store holds it", from_typed(&image).unwrap_or_default())
        } else {
            let planned = Value::map([
                ("store_path", derivation.store_path.as_str().into()),
                ("drv_path", derivation.drv_path.as_str().into()),
                ("revision", derivation.revision.as_deref().map_or(Value::Null, Value::from)),
                ("architecture", derivation.architecture.as_str().into()),
                ("boot_mode", known.boot_mode.as_str().into()),
                ("format", known.format.as_str().into()),
                ("path", Value::Unknown),
                ("size_bytes", Value::Unknown),
                ("sha256", Value::Unknown),
            ]);
            let mut decision =
                Decision::new(Action::Create, "the store does not hold it", planned).changes([
                    Change::new("flake", known.flake.as_str().into()),
                    Change::new("store_path", derivation.store_path.as_str().into()),
                ]);
            decision.on_demand = !known.realise;
            decision
        };
        if let Some(work) = &seen.work {
            decision = decision.note(format!(
                "{} to build, {} to fetch",
                count(work.build, "derivation", "derivations"),
                count(work.fetch, "store path", "store paths")
            ));
            decision.hindrance = work.hindrance.as_ref().map(|hindrance| Hindrance {
                message: format!("{} cannot be built: {hindrance}", known.flake),
                help: "add a builder that offers it to nix's `builders`, or build a variant that needs less"
                    .to_owned(),
            });
        }
        if derivation.dirty {
            decision = decision.note(format!(
                "the tree of {} has changes that are not committed: the image has no revision",
                known.flake
            ));
        }
        Ok(decision)
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Image, ProviderError> {
        let derivation = seen
            .derivation
            .ok_or_else(|| ProviderError::permanent(Self::NAME, "the derivation was not evaluated"))?;
        let built = match seen.built {
            Some(built) => built,
            None => {
                cx.progress(&format!("building {}", derivation.drv_path));
                let watch = cx.watch(None);
                cx.effect("nix build", &derivation.drv_path, |_| cx.nix().realise(&derivation, &watch))
                    .await?
            }
        };
        match contradiction(&args, &derivation, &built) {
            Some(Refusal { message, help }) => {
                let error = ProviderError::refused("image file", message);
                Err(match help {
                    Some(help) => error.help(help),
                    None => error,
                })
            }
            None => Ok(outputs(&derivation, built, &args)),
        }
    }
}
