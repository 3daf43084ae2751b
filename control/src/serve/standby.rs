//! Service of a control plane that does not lead: every call is refused with the address of the one that does.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::LEADER;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;

/// Address of the control plane that leads, as far as is known.
pub(crate) type Leader = Arc<ArcSwapOption<ControlAddr>>;

/// Header of a refusal by a control plane that knows of none that leads.
const STANDBY: &str = "sealane-standby";

/// Refuses every call of a service.
#[derive(Debug)]
pub(crate) struct Refusing<S> {
    leader: Leader,
    service: PhantomData<fn() -> S>,
}

impl<S> Refusing<S> {
    pub(crate) fn new(leader: Leader) -> Self {
        Self { leader, service: PhantomData }
    }
}

impl<S> Clone for Refusing<S> {
    fn clone(&self) -> Self {
        Self::new(self.leader.clone())
    }
}

/// The refusal of a call, which names who leads.
pub(crate) fn refusal(leader: Option<&ControlAddr>) -> Status {
    let Some(leader) = leader else {
        let mut status =
            Status::unavailable("this control plane is a standby, and none leads yet; try again in a moment");
        status.metadata_mut().insert(STANDBY, MetadataValue::from_static("1"));
        return status;
    };
    let mut status = Status::failed_precondition(format!(
        "this control plane is a standby; the one that leads is at {leader}"
    ));
    if let Ok(address) = MetadataValue::try_from(leader.to_string()) {
        status.metadata_mut().insert(LEADER, address);
    }
    status
}

/// Returns true for the refusal of a control plane that does not lead: nothing was done.
pub(crate) fn is_refusal(answer: &http::Response<Body>) -> bool {
    [STANDBY, LEADER].iter().any(|header| answer.headers().contains_key(*header))
}

impl<S> Service<http::Request<Body>> for Refusing<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
        ready(Ok(refusal(self.leader.load().as_deref()).into_http()))
    }
}

impl<S: NamedService> NamedService for Refusing<S> {
    const NAME: &'static str = S::NAME;
}
