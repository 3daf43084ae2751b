//! podman's calls from anywhere.

use std::path::Path;

use super::input::{Container, Network, refuse_subnets};
use super::json;
use crate::failure::Failure;
use crate::plugin::holding::LONGEST;

/// Reads what podman gives at `create` and at `setup`; the holder that `teardown` finds is the one that `setup` made.
pub(crate) fn called(data: &[u8]) {
    let _ = created(data).and_then(|()| set_up(data));
    let _ = set_up(data);
}

fn created(data: &[u8]) -> Result<(), Failure> {
    let asked = json::object("podman's request", data)?;
    refuse_subnets(&asked, &Network::of(&asked)?)
}

fn set_up(data: &[u8]) -> Result<(), Failure> {
    let asked = json::object("podman's request", data)?;
    let request = Container::of(&asked)?.request(Path::new("/run/netns/a"));
    assert_eq!(Some(&request.holder), Container::holder(&asked).ok().as_ref());
    assert!(request.holder.len() <= LONGEST && request.holder.is_ascii(), "{}", request.holder);
    Ok(())
}
