//! Secrets: read where they are used, never kept.

use std::fmt;

use async_trait::async_trait;

use super::Answer;

/// The value of a secret. It prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// A secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Reading secrets.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret at a source, `env:NAME`, `file:PATH` or `ssm:/PATH`.
    async fn read(&self, source: &str) -> Answer<SecretText>;
}
