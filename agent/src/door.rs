//! The doors: each translates what somebody asks for into the agent's own words, and the answer back. None decides.

pub(crate) mod docker;
pub(crate) mod grpc;
