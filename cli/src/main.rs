//! `sealane`: the binary around [`sealane_cli`].

use std::process::ExitCode;

/// Counts what sidecars hold, by thread.
#[global_allocator]
static ALLOCATOR: sealane_sys::heap::Counted = sealane_sys::heap::Counted;

fn main() -> ExitCode {
    sealane_cli::main()
}
