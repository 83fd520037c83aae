//! What asks clawd to end: Ctrl-C, and SIGTERM from whoever runs it.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// By a person, who can ask again.
    Interrupt,
    /// By a program, which will kill what does not end soon.
    Terminate,
}

/// The handlers. Until they are there, a signal ends the process.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals from here on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}
