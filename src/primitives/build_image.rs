//! `build_image`: a disk image from a nix flake. Its identity is its store path, known before it is built.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::{Action, Change, Decision};
use crate::providers::ProviderError;
use crate::providers::ports::{BuiltImage, Derivation, ImageSource};
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

fn default_system() -> String {
    "x86_64-linux".to_owned()
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Flake reference with attribute, like `.#clawdinator-image`. Paths are relative to the project.
    flake: String,
    /// The format the attribute must yield.
    #[serde(default)]
    format: Format,
    /// The NixOS image variant, when the attribute is a host configuration: `system.build.images.<variant>`.
    variant: Option<String>,
    /// The nix system to build for.
    #[serde(default = "default_system")]
    system: String,
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
    /// CPU architecture, `x86_64` or `arm64`.
    pub(super) architecture: String,
    /// Firmware it boots with, `uefi` or `legacy-bios`.
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
}

fn outputs(derivation: &Derivation, built: BuiltImage, format: Format) -> Image {
    let Derivation { drv_path, store_path, architecture, boot_mode } = derivation.clone();
    let BuiltImage { path, size, sha256 } = built;
    Image { store_path, drv_path, architecture, boot_mode, format, path, size_bytes: size.0, sha256 }
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
            return Ok(Seen { derivation: None, built: None });
        };
        let source = ImageSource {
            flake: &known.flake,
            format: known.format.as_str(),
            variant: known.variant.as_deref(),
            system: &known.system,
        };
        let derivation = cx.nix().derivation(&source).await?;
        let built = cx.nix().built(&derivation).await?;
        Ok(Seen { derivation: Some(derivation), built })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        let (Some(derivation), Ok(known)) = (&seen.derivation, args.known()) else {
            return Ok(Decision::unknown(format!("{} is not known yet", args.unknown_leaves().join(", "))));
        };
        if let Some(built) = &seen.built {
            let image = outputs(derivation, built.clone(), known.format);
            let planned = from_typed(&image).unwrap_or_default();
            return Ok(Decision::no_op("the store holds it", planned));
        }
        let planned = Value::map([
            ("store_path", derivation.store_path.as_str().into()),
            ("drv_path", derivation.drv_path.as_str().into()),
            ("architecture", derivation.architecture.as_str().into()),
            ("boot_mode", derivation.boot_mode.as_str().into()),
            ("format", known.format.as_str().into()),
            ("path", Value::Unknown),
            ("size_bytes", Value::Unknown),
            ("sha256", Value::Unknown),
        ]);
        let mut decision = Decision::new(Action::Create, "the store does not hold it", planned).changes([
            Change::new("flake", known.flake.into()),
            Change::new("store_path", derivation.store_path.as_str().into()),
        ]);
        decision.on_demand = !known.realise;
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
                cx.effect("nix build", &derivation.drv_path, |_| cx.nix().realise(&derivation)).await?
            }
        };
        Ok(outputs(&derivation, built, args.format))
    }
}
