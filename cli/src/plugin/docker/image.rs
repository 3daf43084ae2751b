//! The input of `docker plugin create`: a `config.json`, and in `rootfs` this program with the libraries that it has loaded.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::below::below;
use crate::failure::Failure;

/// The program in the plugin.
const PROGRAM: &str = "/sealane";
/// The place there at which the folder of the agent's socket is mounted.
const AGENT: &str = "/agent";
/// The socket's name; dockerd mounts the folder of its own one over what the plugin has there.
const SOCKET: &str = "sealane.sock";
const PLUGINS: &str = "/run/docker/plugins";

/// Writes `config.json` and `rootfs` into `dir`, for a plugin that finds the agent's socket in the folder `agent`.
pub(super) fn build(dir: &Path, agent: &Path) -> Result<(), Failure> {
    let fail = |what: &Path| Failure::of(format!("cannot write {}", what.display()));
    if dir.exists() {
        return Err(Failure::new(format!("{} is there already", dir.display()))
            .hint("name a new folder, or remove it"));
    }
    let root = dir.join("rootfs");
    for folder in [PLUGINS, AGENT] {
        fs::create_dir_all(below(&root, Path::new(folder))).map_err(fail(&root))?;
    }
    let own = std::env::current_exe().map_err(Failure::of("cannot find this program"))?;
    copy(&own, &root, Path::new(PROGRAM))?;
    let maps = fs::read_to_string("/proc/self/maps").map_err(Failure::of("cannot read /proc/self/maps"))?;
    for library in libraries(&maps, &own) {
        copy(&library, &root, &library)?;
    }
    for folder in ["lib", "lib64"] {
        link(&root, folder).map_err(fail(&root.join(folder)))?;
    }
    let program = fs::read(&own).map_err(Failure::of(own.display()))?;
    if let Some(loader) = interpreter(&program).filter(|loader| !below(&root, loader).exists()) {
        copy(&loader, &root, &loader)?;
    }
    let config = dir.join("config.json");
    let text = format!("{:#}\n", describe(agent));
    fs::write(&config, text).map_err(fail(&config))
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<(), Failure> {
    let target = below(root, to);
    let folder = target.parent().unwrap_or(root);
    let copied = fs::create_dir_all(folder).and_then(|()| fs::copy(from, &target));
    copied.map(drop).map_err(Failure::of(format!("cannot copy {} to {}", from.display(), target.display())))
}

/// The folders of libraries are links in the plugin where they are here.
fn link(root: &Path, folder: &str) -> io::Result<()> {
    let Ok(target) = fs::read_link(Path::new("/").join(folder)) else { return Ok(()) };
    let own = root.join(folder);
    if own.exists() {
        return Ok(());
    }
    fs::create_dir_all(below(root, &target))?;
    symlink(target, own)
}

/// The shared libraries among what a process has mapped (proc(5), /proc/pid/maps).
fn libraries(maps: &str, own: &Path) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5));
    let paths = paths.map(|path| Path::new(path.trim_start()));
    paths.filter(|path| path.is_absolute() && *path != own && is_library(path)).map(Path::to_owned).collect()
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A file that was removed has a word behind its name.
    (name.ends_with(".so") || name.contains(".so.")) && !name.contains(' ')
}

/// The loader that an ELF program of 64 bits asks for (its PT_INTERP); none when it is linked statically.
fn interpreter(program: &[u8]) -> Option<PathBuf> {
    const INTERP: u32 = 3;
    let number = |at: usize| Some(u64::from_le_bytes(program.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_le_bytes(program.get(at..at.checked_add(2)?)?.try_into().ok()?));
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) =
        (usize::try_from(number(32)?).ok()?, usize::from(short(54)?), usize::from(short(56)?));
    (0..count).find_map(|index| {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        let kind = u32::from_le_bytes(program.get(entry..entry.checked_add(4)?)?.try_into().ok()?);
        let (start, length) = (number(entry.checked_add(8)?)?, number(entry.checked_add(32)?)?);
        let end = start.checked_add(length)?;
        let text = program.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
        let text = std::str::from_utf8(text.strip_suffix(b"\0")?).ok()?;
        (kind == INTERP).then(|| PathBuf::from(text))
    })
}

/// The plugin as Docker is told of it.
fn describe(agent: &Path) -> Value {
    let (listen, socket) = (format!("{PLUGINS}/{SOCKET}"), format!("{AGENT}/{SOCKET}"));
    json!({
        "description": "Sealane's networks for Docker's swarms; the host's agent is behind it",
        "documentation": "",
        "entrypoint": [PROGRAM, "docker", "plugin", "serve", "--listen", listen, "--agent", socket],
        "workdir": "/",
        "interface": {"types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"], "socket": SOCKET},
        "network": {"type": "none"},
        "linux": {"capabilities": [], "allowAllDevices": false, "devices": []},
        "mounts": [{
            "name": "agent",
            "description": "the folder of the agent's socket for Docker",
            "source": agent,
            "settable": ["source"],
            "destination": AGENT,
            "type": "bind",
            "options": ["rbind"],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_and_named_like_one() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 1 /usr/bin/sealane\n\
                    7f00-7f01 r-xp 00000000 fe:00 2                  /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 r-xp 00001000 fe:00 2                  /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f04-7f05 rw-p 00000000 00:00 0 \n\
                    7f06-7f07 rw-s 00000000 00:01 9                  /memfd:x.so.1 (deleted)\n\
                    7ffc-7ffd rw-p 00000000 00:00 0                  [stack]\n";
        let found: Vec<PathBuf> = libraries(maps, Path::new("/usr/bin/sealane")).into_iter().collect();
        assert_eq!(found, [PathBuf::from("/usr/lib/x86_64-linux-gnu/libc.so.6")]);
    }

    #[test]
    fn the_loader_is_read_from_the_program_and_cut_ones_have_none() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let loader = interpreter(&own).unwrap();
        assert!(loader.is_absolute() && loader.exists(), "{}", loader.display());
        for cut in [0, 5, 6, 40, 63, 64, 100, 200] {
            let _ = interpreter(&own[..cut]);
        }
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn the_program_runs_in_the_root_that_is_made_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("plugin");
        build(&dir, Path::new("/run/docker/plugins")).unwrap();
        let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["mounts"][0]["source"], "/run/docker/plugins");
        // This test's program, with a word that every one of these knows.
        let ran = std::process::Command::new("chroot")
            .arg(dir.join("rootfs"))
            .args([PROGRAM, "--help"])
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let again = build(&dir, Path::new("/run/docker/plugins")).unwrap_err();
        assert!(again.message.contains("is there already"), "{again:?}");
    }
}
