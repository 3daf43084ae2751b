//! Docker's words from anywhere.

use sealane_proto::types::Aliases;

use super::wire::Call;
use super::{core, instance, names};
use crate::engine::Container;

/// The longest sentence that Docker is told.
const LONGEST: usize = 4096;

/// Reads a call, its path in the first line, and decides what it means to an agent that knows nothing yet.
pub(crate) fn call(data: &[u8]) {
    let (path, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let path = String::from_utf8_lossy(path);
    assert!(matches!(Call::error_name(&path), "Err" | "Error"));
    let refused = match Call::parse(&path, body) {
        Ok(Call::RequestPool(request)) if request.v6 => core::ipv6::pool(&request, 7).err(),
        Ok(Call::RequestPool(request)) => {
            core::pool(&request, None, &[], 7).map(|pool| assert!(pool.id().len() <= 80, "{pool:?}")).err()
        }
        Ok(Call::CreateNetwork(request) | Call::GatewayCheck(request)) => core::named(&request).err(),
        Ok(_) => None,
        Err(failure) => Some(failure),
    };
    if let Some(failure) = refused {
        let told = failure.to_string();
        assert!(told.len() <= LONGEST + 10 * data.len(), "{told}");
    }
}

/// Names a container and decides of which service it is an instance.
pub(crate) fn instance(container: &Container) {
    for end in &container.ends {
        let names = names::names(container, end, "web");
        assert!(names.iter().count() <= Aliases::MOST);
    }
    if let Ok((asked, any)) = instance::asked(container) {
        assert!(!any || (asked.service.is_some() && !asked.ports.is_empty()));
    }
}
