//! Choice of a call's backend.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use sealane_proto::types::ServiceName;

use super::Backend;
use crate::request::RequestView;
use crate::route::Destination;
use crate::snapshot::{Current, Snapshot};
use crate::telemetry::Telemetry;

/// Number of backends that a worker remembers; calls to further ones are served without memory.
const MAX_BACKENDS: usize = 4096;

/// The backends of one worker, by the destinations that lead to them.
#[derive(Debug)]
pub(crate) struct Backends {
    current: Rc<Current>,
    telemetry: Arc<Telemetry>,
    known: RefCell<HashMap<SocketAddr, Rc<Backend>>>,
}

/// Backend that was chosen for a call, if there is one.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Something that can be called.
    Backend(Rc<Backend>),
    /// A service that has no such port.
    Unmapped(ServiceName),
    /// There is no configuration yet, or the destination cannot be called.
    Nowhere,
    /// The sidecar was not told of the destination so far.
    Untold,
}

impl Choice {
    /// The backend of a request on a connection that led to one when it began.
    ///
    /// # Errors
    /// Where there is none any more: words for the client.
    pub(crate) fn backend(self, destination: SocketAddr) -> Result<Rc<Backend>, String> {
        match self {
            Self::Backend(backend) => Ok(backend),
            Self::Unmapped(service) => Err(format!("{service} has no port {} any more", destination.port())),
            Self::Nowhere => Err(format!("nothing is known of {destination}")),
            Self::Untold => Err(format!("the agent of this host does not say what is at {destination}")),
        }
    }
}

impl Backends {
    /// None so far; they come from the snapshot that is current when they are called.
    pub(crate) fn new(current: Rc<Current>, telemetry: Arc<Telemetry>) -> Self {
        Self { current, telemetry, known: RefCell::default() }
    }

    /// Chooses the backend of a connection to this destination, or of one of its requests: the destination alone decides. Where that is a
    /// service with routes of HTTP, these choose another for each request.
    pub(crate) fn choose(&self, destination: SocketAddr, request: Option<RequestView<'_>>) -> Choice {
        if let Some(backend) = self.known.borrow().get(&destination) {
            backend.note_use();
            return Choice::Backend(backend.clone());
        }
        let Some(snapshot) = self.current.get() else { return Choice::Nowhere };
        if snapshot.lacks(destination.ip()) {
            return Choice::Untold;
        }
        self.current.note_use(destination.ip());
        let meaning = snapshot.routes.destination(destination);
        if let Destination::Unmapped(service) = meaning {
            if let Some(request) = request {
                let (method, authority) = (request.method(), request.authority());
                tracing::debug!(method, authority, path = request.path(), "the request leads to no port");
            }
            return Choice::Unmapped(service);
        }
        let own = &snapshot.own.label;
        let Some(backend) = Backend::new(&meaning, destination, own, &self.telemetry) else {
            return Choice::Nowhere;
        };
        let mut known = self.known.borrow_mut();
        if !matches!(meaning, Destination::Passthrough) && known.len() < MAX_BACKENDS {
            known.insert(destination, backend.clone());
        }
        Choice::Backend(backend)
    }

    /// The virtual address of a service.
    pub(crate) fn address_of(&self, service: &ServiceName) -> Option<Ipv4Addr> {
        self.current.with(|snapshot| snapshot.routes.address_of(service)).flatten()
    }

    /// The addresses that were called since the last call of this, or are now.
    pub(crate) fn take_used(&self) -> impl Iterator<Item = IpAddr> {
        let known = self.known.borrow();
        let used = known.iter().filter(|(_, backend)| backend.take_used() || Rc::strong_count(backend) > 1);
        used.map(|(destination, _)| destination.ip()).collect::<Vec<_>>().into_iter()
    }

    /// Takes a newer snapshot over; backends that it does not have are forgotten.
    pub(crate) fn update(&self, snapshot: &Snapshot) {
        let meaning = |destination| snapshot.routes.destination(destination);
        self.known.borrow_mut().retain(|&destination, backend| backend.update(&meaning(destination)));
    }
}
