//! The `trimtab` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    trimtab::cli::main()
}
