//! One moto for all tests of the process, on a free port. It ends when this process does: its standard input closes.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;

use crate::support::repository;

/// The version that `tests/moto/requirements.txt` pins.
const VERSION: &str = "5.2.5";

/// A running moto.
pub(crate) struct Moto {
    port: u16,
    /// Held open for as long as moto is to run.
    _stdin: ChildStdin,
    _child: Child,
}

static MOTO: LazyLock<Moto> = LazyLock::new(start);

/// The python of the environment that `scripts/setup` makes.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"))
    });
    let python = cache.unwrap_or_default().join(format!("clawd/moto-{VERSION}/bin/python"));
    assert!(python.exists(), "moto is missing: there is no {}; run scripts/setup", python.display());
    python
}

fn start() -> Moto {
    let mut child = Command::new(python())
        .arg(repository().join("tests/moto/launcher.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("moto cannot be started: {error}"));
    let stdin = child.stdin.take().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(|| panic!("moto did not start, it said {line:?}; run tests/moto/check.py"));
    Moto { port, _stdin: stdin, _child: child }
}

impl Moto {
    /// Where it listens.
    pub(crate) fn port() -> u16 {
        MOTO.port
    }
}
