//! The kernel's knowledge of its clock.
#![allow(unsafe_code, reason = "adjtimex(2) has no safe wrapper; it is given a structure to fill")]

use std::io;

/// Returns true if some time service (NTP, PTP, the hypervisor) disciplines the clock; false when none has done so for
/// long (STA_UNSYNC, adjtimex(2)).
///
/// # Errors
/// When the kernel refuses to tell.
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: all fields of the structure are integers, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of the right type that lives as long as the call; `modes` is 0, so that
    // nothing is changed.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(timex.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_tells() {
        assert!(super::is_synchronised().is_ok());
    }
}
