//! Routes that documents declare. One whose references lead nowhere is kept: its status says so.

mod status;

use sealane_proto::resource::{Route, RouteDocument, RouteId};
use sealane_proto::types::NetworkName;

use super::declare::{DocumentRefusal, Effect};
use super::withdraw::Withdrawn;
use super::{Change, Decision, State, Timestamp};
pub use status::{Services, observed};

/// Number of routes that a network may have.
const ROUTES: usize = 1_000;
/// The longest document of a route, bytes.
const LONGEST: usize = 64 * 1024;
/// The most bytes that the documents of a network's routes may have together: each of its hosts has all of them.
const TOGETHER: usize = 4 * 1024 * 1024;

/// Reasons for which a route is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    /// No network for it.
    #[error(
        "metadata.namespace: there is no network {0}; add a document for it, or create it with \
         `sealane network create {0} --subnet CIDR`"
    )]
    NoNetwork(NetworkName),
    /// The document is too long.
    #[error("spec: the document has {0} bytes, and at most {LONGEST} are allowed; make several routes")]
    Long(usize),
    /// The network has too many.
    #[error(
        "network {0} has {ROUTES} routes, which is as many as a network may have; delete one, or join some"
    )]
    Many(NetworkName),
    /// All of a network's routes together are too long.
    #[error(
        "spec: the documents of the routes of network {0} would have {1} bytes together, and at most {TOGETHER} are allowed; make \
         them shorter"
    )]
    Together(NetworkName, usize),
}

/// Decides a route's document.
pub(in crate::core) fn decide(
    document: RouteDocument,
    draft: &State,
    now: Timestamp,
) -> Result<Decision<Effect>, DocumentRefusal> {
    let network = document.network().clone();
    let Some(state) = draft.networks.get(&network) else {
        return Err(RouteRefusal::NoNetwork(network).into());
    };
    let known = state.routes.get(&document.id());
    if known.is_some_and(|known| known.document.as_ref() == Some(&document)) {
        return Ok(Decision { changes: vec![], outcome: Effect::Unchanged });
    }
    let mut route = Route::new(document, now.unix());
    check_size(&route, known, &network, draft)?;
    let outcome = match known {
        None => Effect::Created,
        Some(known) => {
            let same = |old: &RouteDocument| route.document.as_ref().is_some_and(|new| new.same_spec(old));
            // As in a cluster, labels and annotations are not counted.
            let spec_changed = !known.document.as_ref().is_some_and(same);
            (route.created, route.generation) = (known.created, known.generation + u64::from(spec_changed));
            if !spec_changed {
                route.changed = known.changed;
            }
            Effect::Configured
        }
    };
    Ok(Decision { changes: vec![Change::put_in(&network, route)], outcome })
}

fn check_size(
    route: &Route,
    known: Option<&Route>,
    network: &NetworkName,
    draft: &State,
) -> Result<(), RouteRefusal> {
    let length = route.json.len();
    if length > LONGEST {
        return Err(RouteRefusal::Long(length));
    }
    let all = draft.networks.get(network).into_iter().flat_map(|state| state.routes.values());
    let (number, together) =
        all.fold((0, length), |(number, sum), other| (number + 1, sum + other.json.len()));
    let together = together - known.map_or(0, |known| known.json.len());
    if known.is_none() && number >= ROUTES {
        return Err(RouteRefusal::Many(network.clone()));
    }
    if together > TOGETHER {
        return Err(RouteRefusal::Together(network.clone(), together));
    }
    Ok(())
}

/// Decides the end of a route.
pub(super) fn withdraw(network: &NetworkName, id: RouteId, draft: &State) -> Decision<Withdrawn> {
    let known = draft.networks.get(network).and_then(|state| state.routes.get(&id));
    match known {
        None => Decision { changes: vec![], outcome: Withdrawn::NotFound },
        Some(_) => {
            let changes = vec![Change::remove_in::<Route>(network, id)];
            Decision { changes, outcome: Withdrawn::Deleted }
        }
    }
}

#[cfg(test)]
mod tests;
