//! Verbs that ask control or an agent and print the answer.

pub(crate) mod backup;
pub(crate) mod dns;
pub(crate) mod listing;
pub(crate) mod network;
pub(crate) mod status;
pub(crate) mod token;
