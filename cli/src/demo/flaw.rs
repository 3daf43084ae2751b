//! A claim that does not hold.

use std::fmt::{self, Display};
use std::thread;
use std::time::{Duration, Instant};

/// Reason for which a claim does not hold, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    text: String,
    /// Looking again will not help.
    hopeless: bool,
}

impl Flaw {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hopeless: false }
    }

    /// Makes a flaw that time does not mend.
    pub(crate) fn hopeless(text: impl Into<String>) -> Self {
        Self { text: text.into(), hopeless: true }
    }

    /// Words for [`Result::map_err`]: `what: error`.
    pub(crate) fn of<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{what}: {error}"))
    }
}

impl Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Fails in these words unless `holds`.
pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Flaw> {
    if holds { Ok(()) } else { Err(Flaw::new(otherwise())) }
}

/// Time that anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see, and returns it; the last flaw says what is missing.
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Result<T, Flaw>) -> Result<T, Flaw> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Err(flaw) if flaw.hopeless => return Err(flaw),
            Err(flaw) if Instant::now() >= deadline => {
                return Err(Flaw::new(format!("not within {} s: {flaw}", PATIENCE.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(30)),
            seen => return seen,
        }
    }
}
