//! One seed's history, shortened where it fails.

use std::cell::Cell;
use std::fmt;

use proptest::strategy::{Just, Strategy};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::mesh::{MANY, MOST, Mesh, Scene, Tally, scenes};
use crate::step::steps;
use crate::world::World;

/// History of a seed in which an invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The invariant, with what contradicts it.
    pub reason: String,
    /// The history, as short as it could be made.
    pub steps: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, reason, steps } = self;
        writeln!(f, "seed {seed}: {reason}")?;
        steps.iter().try_for_each(|step| writeln!(f, "    {step}"))?;
        write!(f, "run it again with `make sim SEED={seed}`")
    }
}

/// Lives through the history of a seed, and comes to rest at its end.
///
/// # Errors
/// When an invariant did not hold.
pub fn run_seed(seed: u64) -> Result<(), Box<Failure>> {
    let show = |steps: &Vec<_>| steps.iter().map(|step| format!("{step:?}")).collect();
    run(seed, 2_000, &steps(), show, |steps| World::live(steps))
}

/// Lives through the scene of a seed among a few hosts.
///
/// # Errors
/// When an invariant did not hold.
pub fn run_scene(seed: u64) -> Result<Tally, Box<Failure>> {
    run_scene_of(seed, 100, &scenes(2_u8..10, 30))
}

/// Lives through the scene of a seed among eighty hosts.
///
/// # Errors
/// When an invariant did not hold.
pub fn run_large_scene(seed: u64) -> Result<Tally, Box<Failure>> {
    run_scene_of(seed, 0, &scenes(Just(MANY), 4))
}

/// Lives through the scene of a seed among two hundred hosts.
///
/// # Errors
/// When an invariant did not hold.
pub fn run_largest_scene(seed: u64) -> Result<Tally, Box<Failure>> {
    run_scene_of(seed, 0, &scenes(Just(MOST), 4))
}

fn run_scene_of(
    seed: u64,
    shortenings: u32,
    scenes: &impl Strategy<Value = Scene>,
) -> Result<Tally, Box<Failure>> {
    let tally = Cell::new(Tally::default());
    let show = |scene: &Scene| {
        let changes = scene.changes.iter().map(|(tenths, change)| format!("{tenths} tenths, {change:?}"));
        [format!("{} hosts", scene.hosts)].into_iter().chain(changes).collect()
    };
    run(seed, shortenings, scenes, show, |scene| Mesh::live(scene, seed).map(|lived| tally.set(lived)))?;
    Ok(tally.get())
}

/// Makes what happens of a seed, and shortens it as often as that where it fails.
fn run<S: Strategy>(
    seed: u64,
    shortenings: u32,
    strategy: &S,
    show: impl Fn(&S::Value) -> Vec<String>,
    live: impl Fn(&S::Value) -> Result<(), String>,
) -> Result<(), Box<Failure>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: shortenings,
        max_shrink_time: 5_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let lived = runner.run(strategy, |value| live(&value).map_err(TestCaseError::fail));
    lived.map_err(|error| {
        Box::new(match error {
            TestError::Fail(reason, value) => {
                Failure { seed, reason: reason.to_string(), steps: show(&value) }
            }
            TestError::Abort(reason) => Failure { seed, reason: reason.to_string(), steps: vec![] },
        })
    })
}
