//! The `clawd` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    clawd::cli::run(std::env::args_os())
}
