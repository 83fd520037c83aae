//! Secrets of this machine: variables of clawd's environment, and files. Read when they are used, kept nowhere.

use std::fs;

use async_trait::async_trait;

use super::Workplace;
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, SecretText, Secrets};

/// The most bytes of a secret: what is larger is no secret but a wrong path.
const LARGEST: u64 = 64 << 10;

/// Secrets of this machine.
pub(crate) struct LocalSecrets {
    place: Workplace,
}

impl LocalSecrets {
    pub(crate) const fn new(place: Workplace) -> Self {
        Self { place }
    }

    fn environment(&self, name: &str) -> Answer<SecretText> {
        let found = self.place.environment.iter().find(|(known, _)| known == name);
        let failed = |message: String| ProviderError::permanent("secret", message);
        match found.map(|(_, value)| value.to_str()) {
            Some(Some("")) | None => Err(failed(format!("the environment has no variable `{name}`"))
                .help(format!("set {name} where clawd runs"))),
            Some(None) => Err(failed(format!("the variable `{name}` is not UTF-8 text"))),
            Some(Some(value)) => Ok(SecretText::new(value.to_owned())),
        }
    }

    /// A file's text without the line end that editors put there.
    fn file(&self, path: &str) -> Answer<SecretText> {
        let file = self.place.root.join(path);
        let failed = |what: &str| {
            ProviderError::permanent("secret", format!("the file `{path}` {what}"))
                .help("paths of secrets are absolute, or relative to the project")
        };
        let size = fs::metadata(&file).map_err(|error| failed(&format!("cannot be read: {error}")))?.len();
        if size > LARGEST {
            return Err(failed(&format!("has {size} bytes, a secret has at most {LARGEST}")));
        }
        let bytes = fs::read(&file).map_err(|error| failed(&format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| failed("is not UTF-8 text"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(failed("is empty"));
        }
        Ok(SecretText::new(text.to_owned()))
    }
}

#[async_trait]
impl Secrets for LocalSecrets {
    async fn read(&self, source: &str) -> Answer<SecretText> {
        match source.split_once(':') {
            Some(("env", name)) => self.environment(name),
            Some(("file", path)) => self.file(path),
            _ => Err(ProviderError::permanent(
                "secret",
                format!("`{source}` cannot be read with this profile"),
            )
            .help("`env:NAME` and `file:PATH` can be read; reading `ssm:/...` is still to come")),
        }
    }
}
