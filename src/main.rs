//! The `clawd` command.

#![allow(clippy::disallowed_methods)] // this is where it is done

use std::process::ExitCode;

fn main() -> ExitCode {
    clawd::cli::run(std::env::args_os())
}
