//! Steps that run at once, and that are given up at once: a program that a step runs is told to end when the step is dropped, and
//! may take a minute to do so in good order. One after another, the last would go on acting for as many minutes.

use std::thread;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::runtime::Handle;

/// Futures that are polled together and dropped together.
pub(super) struct Together<'a, T>(FuturesUnordered<BoxFuture<'a, T>>);

impl<'a, T> Together<'a, T> {
    pub(super) fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    pub(super) fn push(&self, future: impl Future<Output = T> + Send + 'a) {
        self.0.push(Box::pin(future));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next one that ends; `None` when there is none.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.0.next().await
    }
}

impl<T> Drop for Together<'_, T> {
    fn drop(&mut self) {
        let runtime = Handle::try_current().ok();
        thread::scope(|scope| {
            for future in std::mem::take(&mut self.0) {
                let runtime = &runtime;
                scope.spawn(move || {
                    // Timers and processes are given back to it.
                    let _within = runtime.as_ref().map(Handle::enter);
                    drop(future);
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    /// Ends only when others end with it.
    struct Waits(Arc<Barrier>);

    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.wait();
        }
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods)] // tokio::test makes a runtime of its own
    async fn what_is_given_up_ends_at_once() {
        let barrier = Arc::new(Barrier::new(3));
        let mut together = Together::new();
        for _ in 0..3 {
            let waits = Waits(Arc::clone(&barrier));
            together.push(async move {
                std::future::pending::<()>().await;
                drop(waits);
            });
        }
        together.push(async {});
        assert_eq!(together.next().await, Some(()));
        // One after another they would wait for ever.
        drop(together);
    }
}
