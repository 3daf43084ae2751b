//! The mesh from outside: the real binary on hosts of a lab, real programs as workloads. Needs root.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod address_reuse;
mod agent_gone;
mod attach;
mod bad_input;
mod calls;
mod certificates;
mod chaos;
mod clocks;
mod command;
mod control_gone;
mod direct;
mod documents;
mod egress;
mod freshness;
mod identity;
mod install;
mod ipv6;
mod joining;
mod limits;
mod names;
mod networks;
mod one_host;
mod partition;
mod prometheus;
mod protocols;
mod removal;
mod resolvers;
mod restore;
mod services;
mod several_networks;
mod sidecars;
mod status;
mod strict;
mod tcp;
mod tokens;
