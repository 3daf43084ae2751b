//! The measurement from beginning to end. Each step is a line of JSON on standard output.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use sealane_base::task;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::crowd::{Common, Crowd, join_all};
use crate::figures::{Counters, Counts, Quantiles, Round, Times};
use crate::host::Order;
use crate::plan::Plan;
use crate::plane::{Plane, PlaneError};
use crate::process;

/// Pause between two looks at what has come.
const LOOK: Duration = Duration::from_millis(2);
/// Time without news of networks after which the mesh is at rest.
const REST: Duration = Duration::from_secs(1);
/// Time for which hosts do nothing, so that it is known what that costs.
const IDLE: Duration = Duration::from_secs(5);

/// Reasons for which a measurement ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CourseError {
    /// There is no control plane.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// No host is left to go on with.
    #[error("no host {0}")]
    Deserted(&'static str),
    /// Nobody reads the figures.
    #[error("the figures cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// A moment from which a step is measured.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    control_cpu: f64,
    load_cpu: f64,
    counts: Counts,
}

/// Costs of a step.
#[derive(Debug, Serialize)]
struct Span {
    seconds: f64,
    control_cpu_seconds: f64,
    load_cpu_seconds: f64,
    #[serde(flatten)]
    counts: Counts,
    resident_mib: f64,
    peak_mib: f64,
    complaints: BTreeMap<String, u64>,
}

/// Outcome of changes at one rate.
#[derive(Debug, Serialize)]
struct RateFigures {
    rate: f64,
    changes: usize,
    unsettled: usize,
    settled: Option<Quantiles>,
    answered: Option<Quantiles>,
    commits: f64,
    commit_seconds: f64,
}

/// Measures a control plane by a plan.
///
/// # Errors
/// When it cannot go on; the steps so far have been written.
pub(crate) async fn run(plan: Plan) -> Result<(), CourseError> {
    let plan = Arc::new(plan);
    let begun = Instant::now();
    let mut plane = Plane::start(plan.clone())?;
    plane.listening().await?;
    let listens = begun.elapsed().as_secs_f64();
    let token = plane.prepare().await?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut course = Course::new(plan, plane, provider);
    course.tell("start", course.mark(), &json!({ "listens_after": listens }))?;
    let mut crowd = course.gather(&token).await?;
    course.fill(&mut crowd).await?;
    course.idle().await?;
    if course.common.plan.serves {
        return course.serve(&crowd).await;
    }
    course.rates(&crowd).await?;
    course.reconnect(&crowd).await?;
    course.restart(&crowd).await?;
    let end = course.mark();
    course.tell("end", end, &json!({}))
}

struct Course {
    common: Common,
    plane: Plane,
}

impl Course {
    fn new(plan: Arc<Plan>, plane: Plane, provider: Arc<CryptoProvider>) -> Self {
        Self { common: Common { plan, provider, counters: Arc::new(Counters::default()) }, plane }
    }

    fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            control_cpu: process::cpu_seconds(self.plane.pid()),
            load_cpu: process::cpu_seconds(std::process::id()),
            counts: self.common.counters.counts(),
        }
    }

    fn span(&self, since: Mark) -> Span {
        let now = self.mark();
        let (resident_mib, peak_mib) = process::resident_mib(self.plane.pid());
        Span {
            seconds: (now.at - since.at).as_secs_f64(),
            control_cpu_seconds: now.control_cpu - since.control_cpu,
            load_cpu_seconds: now.load_cpu - since.load_cpu,
            counts: now.counts - since.counts,
            resident_mib,
            peak_mib,
            complaints: self.common.counters.complaints(),
        }
    }

    /// Writes the figures of a step.
    fn tell(&self, step: &str, since: Mark, more: &impl Serialize) -> Result<(), CourseError> {
        write_line(step, &self.span(since), more)
    }

    /// Waits until a round is as it should be; false if it is not within the plan's patience.
    async fn until(&self, round: &Round, done: impl Fn(&Times) -> bool) -> bool {
        let deadline = Instant::now() + self.common.plan.patience();
        while !round.look(&done) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Waits until no news of networks come any more; false if they do for longer than the plan's patience.
    async fn rest(&self) -> bool {
        let deadline = Instant::now() + self.common.plan.patience();
        let news = || {
            let counts = self.common.counters.counts();
            counts.states + counts.deltas
        };
        let mut last = (news(), Instant::now());
        while last.1.elapsed() < REST {
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
            if news() != last.0 {
                last = (news(), Instant::now());
            }
        }
        true
    }

    /// Lets all hosts join and open their streams.
    async fn gather(&self, token: &sealane_proto::token::JoinToken) -> Result<Crowd, CourseError> {
        let mark = self.mark();
        let members = join_all(&self.common, token).await;
        if members.is_empty() {
            self.tell("join", mark, &json!({ "hosts": 0 }))?;
            return Err(CourseError::Deserted("could join"));
        }
        self.tell("join", mark, &json!({ "hosts": members.len() }))?;
        let mark = self.mark();
        let (crowd, round) = Crowd::open(self.common.clone(), members);
        let all = self.until(&round, |times| times.welcomed.len() >= crowd.len()).await;
        let welcomed = Quantiles::of(round.times().welcomed);
        self.tell("streams", mark, &json!({ "all": all, "welcomed": welcomed }))?;
        Ok(crowd)
    }

    /// Lets all hosts get addresses and start their endpoints.
    async fn fill(&self, crowd: &mut Crowd) -> Result<(), CourseError> {
        let mark = self.mark();
        let without = crowd.carry().await;
        let carried = mark.at.elapsed().as_secs_f64();
        let rested = self.rest().await;
        self.tell("carry", mark, &json!({ "carried_after": carried, "without": without, "rested": rested }))?;
        if crowd.len() == 0 {
            return Err(CourseError::Deserted("got addresses"));
        }
        process::forget_peak(self.plane.pid());
        let mark = self.mark();
        let round = crowd.order_all(Order::Fill);
        self.until(&round, |times| times.settled.len() >= crowd.len()).await;
        let span = self.span(mark);
        self.rest().await;
        write_line("fill", &span, &outcome(&round, crowd.len()))
    }

    /// Measures hosts that do nothing.
    async fn idle(&self) -> Result<(), CourseError> {
        let mark = self.mark();
        sleep(IDLE).await;
        self.tell("idle", mark, &json!({}))
    }

    /// Measures all rates of the plan, up to the first one of which something did not settle.
    async fn rates(&self, crowd: &Crowd) -> Result<(), CourseError> {
        let rates = &self.common.plan.rates;
        for (at, &rate) in rates.iter().enumerate() {
            if self.rate(crowd, rate).await? > 0 {
                let untried = rates.get(at + 1..).unwrap_or_default();
                return self.tell("untried", self.mark(), &json!({ "rates": untried }));
            }
        }
        Ok(())
    }

    /// Measures changes at one rate; returns the number of those that did not settle.
    async fn rate(&self, crowd: &Crowd, rate: f64) -> Result<usize, CourseError> {
        process::forget_peak(self.plane.pid());
        let before = self.plane.commits().await;
        let (mark, round) = (self.mark(), Arc::new(Round::default()));
        let changes = ((rate * self.common.plan.seconds).round() as usize).max(1);
        for number in 0..changes {
            let due = mark.at + Duration::from_secs_f64(number as f64 / rate);
            sleep_until(due).await;
            crowd.change(number, round.ticket(due));
        }
        self.until(&round, |times| times.settled.len() >= changes).await;
        let (span, after) = (self.span(mark), self.plane.commits().await);
        let Times { settled, answered, .. } = round.times();
        let unsettled = changes.saturating_sub(settled.len());
        let figures = RateFigures {
            rate,
            changes,
            unsettled,
            settled: Quantiles::of(settled),
            answered: Quantiles::of(answered),
            commits: after.commits - before.commits,
            commit_seconds: after.commit_seconds - before.commit_seconds,
        };
        write_line("rate", &span, &figures)?;
        self.rest().await;
        Ok(unsettled)
    }

    /// Cuts all streams at once and waits until all hosts are back.
    async fn reconnect(&self, crowd: &Crowd) -> Result<(), CourseError> {
        process::forget_peak(self.plane.pid());
        let mark = self.mark();
        let round = crowd.order_all(Order::Cut);
        self.until(&round, |times| times.settled.len() >= crowd.len()).await;
        let span = self.span(mark);
        self.rest().await;
        write_line("reconnect", &span, &outcome(&round, crowd.len()))
    }

    /// Kills control, starts it again and waits until all hosts are back.
    async fn restart(&mut self, crowd: &Crowd) -> Result<(), CourseError> {
        let round = crowd.order_all(Order::Return);
        self.until(&round, |times| times.taken >= crowd.len()).await;
        let mark = self.mark();
        self.plane.restart()?;
        let (started, mark) = (mark.at.elapsed().as_secs_f64(), Mark { control_cpu: 0.0, ..mark });
        self.plane.listening().await?;
        let listens = mark.at.elapsed().as_secs_f64();
        // Before, nobody could connect.
        let failed = self.common.counters.counts().failed_connects;
        self.until(&round, |times| times.settled.len() >= crowd.len()).await;
        let span = self.span(mark);
        let late = self.common.counters.counts().failed_connects - failed;
        self.rest().await;
        let more =
            json!({ "started_after": started, "listens_after": listens, "failed_after_listening": late });
        write_line("restart", &span, &merged(more, outcome(&round, crowd.len())))
    }

    /// Runs rates that come on standard input, a number a line, until that ends. Other lines measure hosts that do nothing.
    async fn serve(&self, crowd: &Crowd) -> Result<(), CourseError> {
        self.tell("serving", self.mark(), &json!({ "pid": self.plane.pid() }))?;
        loop {
            let line = task::blocking(|| io::stdin().lock().lines().next()).await?;
            let Some(line) = line.transpose()? else { return Ok(()) };
            match line.trim().parse() {
                Ok(rate) if rate > 0.0 => drop(self.rate(crowd, rate).await?),
                Ok(_) | Err(_) => self.idle().await?,
            }
        }
    }
}

/// Outcome of a round in which each host was to settle once.
fn outcome(round: &Round, hosts: usize) -> serde_json::Value {
    let Times { welcomed, answered, settled, .. } = round.times();
    let unsettled = hosts.saturating_sub(settled.len());
    json!({
        "hosts": hosts, "unsettled": unsettled, "welcomed": Quantiles::of(welcomed), "answered": Quantiles::of(answered),
        "settled": Quantiles::of(settled),
    })
}

fn merged(mut one: serde_json::Value, mut other: serde_json::Value) -> serde_json::Value {
    if let (Some(into), Some(from)) = (one.as_object_mut(), other.as_object_mut()) {
        into.append(from);
    }
    one
}

fn write_line(step: &str, span: &Span, more: &impl Serialize) -> Result<(), CourseError> {
    #[derive(Serialize)]
    struct Line<'a, M> {
        step: &'a str,
        #[serde(flatten)]
        span: &'a Span,
        #[serde(flatten)]
        more: &'a M,
    }
    let line = serde_json::to_string(&Line { step, span, more }).map_err(io::Error::from)?;
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
