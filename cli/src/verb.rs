//! Verbs that ask control or an agent and print the answer.

pub(crate) mod about;
pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod complete;
pub(crate) mod control;
pub(crate) mod dns;
pub(crate) mod docker;
pub(crate) mod get;
pub(crate) mod history;
mod hosts;
pub(crate) mod identity;
mod known;
pub(crate) mod members;
pub(crate) mod network;
mod register;
pub(crate) mod sidecar;
pub(crate) mod status;
pub(crate) mod token;
mod weigh;
