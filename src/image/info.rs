//! What a NixOS image says of itself: `nix-support/image-info.json`, written by NixOS's image builders.

use serde::Deserialize;

/// The parts of `image-info.json` that matter for an AMI. All are optional: other builders write no such file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ImageInfo {
    /// The nix system, `x86_64-linux`.
    #[serde(default)]
    pub system: Option<String>,
    /// Firmware, `uefi` or `legacy-bios`.
    #[serde(default)]
    pub boot_mode: Option<String>,
    /// The image file, absolute or relative to the output.
    #[serde(default)]
    pub file: Option<String>,
}

impl ImageInfo {
    /// Reads the file's text.
    ///
    /// # Errors
    /// When it is not a JSON object, or one of these keys is not text.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        // A list would be read as the fields in order.
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        serde_json::from_value(object.into())
    }

    /// EC2's word for the image's CPU.
    #[must_use]
    pub fn architecture(&self) -> Option<&str> {
        architecture(self.system.as_deref()?)
    }
}

/// EC2's word for the CPU of a nix system; `None` when EC2 has no such machines.
#[must_use]
pub fn architecture(system: &str) -> Option<&'static str> {
    match system {
        "x86_64-linux" => Some("x86_64"),
        "aarch64-linux" => Some("arm64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nixos_writes_is_read() {
        let text = r#"{ "label": "24.11", "boot_mode": "uefi", "system": "aarch64-linux", "logical_bytes": "3221225472",
            "file": "/nix/store/x/nixos.img" }"#;
        let info = ImageInfo::parse(text).unwrap();
        assert_eq!((info.architecture(), info.boot_mode.as_deref()), (Some("arm64"), Some("uefi")));
        assert_eq!(ImageInfo::parse("{}").unwrap(), ImageInfo::default());
        assert!(ImageInfo::parse("[]").is_err());
    }
}
