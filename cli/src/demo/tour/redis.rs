//! Chapter: what is not HTTP.

use super::{NETWORK, workloads};
use crate::demo::flaw::{Flaw, ensure};
use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    narrator.chapter("Any TCP", "Redis on host-2, called by web on host-1: the same names, the same mTLS.");
    narrator.claim("cache-1 runs redis-server on host-2", || {
        let run =
            ["run", "--network", NETWORK.0, "--service", "cache", "--port", "6379/tcp", "--name", "cache-1"];
        let redis = ["redis-server", "--save", "", "--appendonly", "no", "--dir", "/run"];
        let open = ["--bind", "0.0.0.0", "--protected-mode", "no"];
        stage.start(1, "cache-1", &[&run, ["--"].as_slice(), &redis, &open].concat())?;
        workloads::ready(stage, "cache-1")?;
        workloads::known(stage, "cache")?;
        Ok(String::new())
    })?;
    narrator.claim("`redis-cli -h cache` sets a value and reads it back", || {
        let set = stage.web(&["redis-cli", "-h", "cache", "SET", "greeting", "ahoy"])?;
        ensure(set == "OK", || format!("SET says {set}"))?;
        let got = stage.web(&["redis-cli", "-h", "cache", "GET", "greeting"])?;
        ensure(got == "ahoy", || format!("GET says {got}"))?;
        Ok(got)
    })
}
