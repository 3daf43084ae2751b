//! Costs of processes, as the kernel counts them.

use std::fs;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time that a process has used so far, in seconds; 0 of one that is gone.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let Ok(pid) = i32::try_from(pid) else { return 0.0 };
    let used = clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime);
    used.map_or(0.0, |used| used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
}

/// Resident memory of a process in MiB: now, and the most since the last [`forget_peak`].
pub(crate) fn resident_mib(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Begins anew to keep the most resident memory.
pub(crate) fn forget_peak(pid: u32) {
    // Without it, the peak is that since the start.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_time_and_memory_and_one_that_is_none_has_not() {
        let own = std::process::id();
        assert!(cpu_seconds(own) > 0.0);
        let (now, peak) = resident_mib(own);
        assert!(now > 0.1 && peak >= now * 0.9, "{now} {peak}");
        assert_eq!((cpu_seconds(u32::MAX), resident_mib(u32::MAX)), (0.0, (0.0, 0.0)));
    }
}
