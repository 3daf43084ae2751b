//! The gRPC services: they translate between messages and commands, and decide nothing.

mod admin;
mod control;
mod controls;
mod documents;
mod history;
mod lookout;
mod members;
mod read;

pub(crate) use admin::{AdminApi, TokenSpec, create_token, pieces};
pub(crate) use control::ControlApi;
pub(crate) use controls::ControlsApi;
pub(crate) use lookout::LookoutApi;
pub(crate) use read::{ReadApi, Standing};
