//! A mesh in one thread: control's core and many hosts' cores under one seed and one clock, with nothing between them but queues.
//!
//! A seed makes a list of [`Step`]s: what people ask, what workloads do, which message passes when, what breaks. The [`World`] takes
//! them one after another; ARCHITECTURE's invariants are its assertions, some after every step and some whenever it has come to rest.
//! A list that fails is shortened. What decides is the code of control and agent; kernel, disk, store and network are tables.

mod agent;
mod calm;
mod channels;
mod check;
mod mesh;
mod run;
mod step;
mod talk;
mod world;

pub use mesh::{Change, Mesh, Scene, Tally};
pub use run::{Failure, run_large_scene, run_largest_scene, run_scene, run_seed};
pub use step::{Step, steps};
pub use world::World;
