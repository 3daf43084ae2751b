//! The fuzzer's program; the environment's `FUZZ` names the target.
#![no_main]

use std::sync::LazyLock;

/// The target that was named.
static TARGET: LazyLock<sealane_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ").unwrap_or_default();
    sealane_fuzz::target(&name).expect("FUZZ names one of sealane_fuzz::TARGETS")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (*TARGET)(data));
