//! The host's net.ipv4.ip_forward: on while there are links, and off again afterwards if it was off before.

use std::fs;
use std::io;

use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir, boot_id};

const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
/// The kernel switches this one, too, whenever forwarding is switched.
const REDIRECTS: &str = "/proc/sys/net/ipv4/conf/all/accept_redirects";

/// Switches forwarding on; answers whether it was off. What is written down of before is `known` from then on: the boot's name, as
/// a reboot sets it anew, and the former value of accept_redirects.
pub(super) fn ensure(
    hopper: &Hopper,
    host: &NetNs,
    run_dir: &RunDir,
    known: &mut Option<String>,
) -> io::Result<bool> {
    if read(hopper, host, SETTING)? == "1" {
        *known = known.take().or_else(|| fs::read_to_string(run_dir.forwarding()).ok());
        remember(run_dir, known.as_deref())?;
        return Ok(false);
    }
    let redirects = read(hopper, host, REDIRECTS)?;
    // Written down first: after kill -9 between the two, switching it off again changes nothing.
    let text = known.insert(format!("{}\n{redirects}\n", boot_id()?));
    fs::create_dir_all(run_dir.path())?;
    fs::write(run_dir.forwarding(), text)?;
    set(hopper, host, SETTING, "1".to_owned())?;
    Ok(true)
}

/// Writes down again what is `known`, if somebody has removed it.
pub(super) fn remember(run_dir: &RunDir, known: Option<&str>) -> io::Result<()> {
    let memory = run_dir.forwarding();
    match known {
        Some(text) if !memory.exists() => fs::write(memory, text),
        Some(_) | None => Ok(()),
    }
}

/// Switches forwarding off if it was [`ensure`] that switched it on since this boot; answers whether it was.
pub(super) fn restore(hopper: &Hopper, host: &NetNs, run_dir: &RunDir) -> io::Result<bool> {
    let memory = run_dir.forwarding();
    let text = match fs::read_to_string(&memory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let mut lines = text.lines();
    let ours = lines.next() == Some(boot_id()?.as_str()) && read(hopper, host, SETTING)? == "1";
    if ours {
        set(hopper, host, SETTING, "0".to_owned())?;
        if let Some(redirects) = lines.next() {
            set(hopper, host, REDIRECTS, redirects.to_owned())?;
        }
    }
    fs::remove_file(memory)?;
    Ok(ours)
}

fn read(hopper: &Hopper, host: &NetNs, setting: &'static str) -> io::Result<String> {
    Ok(hopper.run(host, move || fs::read_to_string(setting))??.trim_end().to_owned())
}

fn set(hopper: &Hopper, host: &NetNs, setting: &'static str, value: String) -> io::Result<()> {
    hopper.run(host, move || fs::write(setting, value))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forwarding_was_before_is_written_down_again_when_somebody_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::from(folder.path());
        let written = || fs::read_to_string(run_dir.forwarding()).ok();
        remember(&run_dir, None).unwrap();
        assert_eq!(written(), None, "it was on");
        remember(&run_dir, Some("boot\n1\n")).unwrap();
        assert_eq!(written().as_deref(), Some("boot\n1\n"));
    }
}
