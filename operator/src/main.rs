//! The `trimtab` binary.

use std::process::ExitCode;

// Many small objects of many sizes: it is faster than the system's allocator, and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trimtab::cli::main()
}
