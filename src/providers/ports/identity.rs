//! Who clawd is there.

use async_trait::async_trait;

use super::Answer;

/// Whether the credentials are those of the account that the profile pins.
#[async_trait]
pub trait Identity: Send + Sync {
    /// Asks once; refuses another account.
    async fn check(&self) -> Answer<()>;
}
