//! Time.

use std::time::Duration;

use async_trait::async_trait;

use super::Answer;

/// Time as the executor sees it; the simulator's clock is virtual.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Seconds since the Unix epoch.
    fn now(&self) -> i64;
    /// Waits.
    async fn sleep(&self, duration: Duration);
    /// Ends a run: an adapter that keeps its own time writes it down.
    ///
    /// # Errors
    /// When what the adapter keeps on disk cannot be written.
    fn settle(&self) -> Answer<()> {
        Ok(())
    }
    /// Begins again to see what other processes changed. Called before planning and after taking the lock.
    ///
    /// # Errors
    /// When what the adapter keeps on disk cannot be read.
    fn refresh(&self) -> Answer<()> {
        Ok(())
    }
}
