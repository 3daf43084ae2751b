//! One seed's history, shortened where it fails.

use std::fmt;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::step::{Step, steps};
use crate::world::World;

/// History of a seed in which an invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The invariant, with what contradicts it.
    pub reason: String,
    /// The history, as short as it could be made.
    pub steps: Vec<Step>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, reason, steps } = self;
        writeln!(f, "seed {seed}: {reason}")?;
        steps.iter().try_for_each(|step| writeln!(f, "    {step:?}"))?;
        write!(f, "run it again with `make sim SEED={seed}`")
    }
}

/// Lives through the history of a seed, and comes to rest at its end.
///
/// # Errors
/// When an invariant did not hold.
pub fn run_seed(seed: u64) -> Result<(), Box<Failure>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let lived = runner.run(&steps(), |steps| World::live(&steps).map_err(TestCaseError::fail));
    lived.map_err(|error| {
        Box::new(match error {
            TestError::Fail(reason, steps) => Failure { seed, reason: reason.to_string(), steps },
            TestError::Abort(reason) => Failure { seed, reason: reason.to_string(), steps: vec![] },
        })
    })
}
