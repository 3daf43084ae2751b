//! Chapter: what crosses the network beneath.

use std::fs::File;
use std::io::Read;

use sealane_proto::types::Vni;

use crate::demo::flaw::{Flaw, ensure};
use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    narrator.chapter(
        "The wire",
        "All frames between the hosts are recorded while web sends a secret word in a request header.",
    );
    let secret = secret()?;
    let capture = stage.lab().capture().map_err(Flaw::of("capture"))?;
    let header = format!("Authorization: Bearer {secret}");
    let sent = stage.calls(30, &["-H", &header]);
    let frames = capture.stop().map_err(Flaw::of("capture"))?;
    let remote = sent?.lines().filter(|line| !line.ends_with("on host-1")).count();
    narrator.claim("requests went to other hosts", || {
        ensure(remote > 0, || "all were answered by host-1".to_owned())?;
        Ok(format!("{remote} of 30"))
    })?;
    narrator.claim("they crossed as VXLAN, UDP port 4789", || {
        // Hosts' echoes cross by the same port.
        let numbers = frames.vxlan().map(|packet| packet.vni);
        let vxlan: Vec<u32> = numbers.filter(|vni| *vni != Vni::ECHO.get()).collect();
        let vni = vxlan
            .first()
            .ok_or_else(|| Flaw::new(format!("no VXLAN packet among {} frames", frames.len())))?;
        Ok(format!("{} packets of network {vni}", vxlan.len()))
    })?;
    narrator.claim("nothing of the requests can be read in them", || {
        for text in [secret.as_str(), "Authorization", "GET /", "api on "] {
            ensure(!frames.contain(text.as_bytes()), || format!("{text:?} crosses in plain text"))?;
        }
        Ok(format!("{} frames searched", frames.len()))
    })
}

/// A word that is nowhere else.
fn secret() -> Result<String, Flaw> {
    let mut bytes = [0; 12];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(Flaw::of("/dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
