//! Health of instances outside every network, seen from this host: one that does not work is out of the names and the balancing
//! of its own workloads, and of nobody else's. Who has not been looked at yet counts as working: so it did before this agent
//! began.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::task::{self, Task};
use sealane_fabric::overlay::Overlay;
use sealane_proto::types::{Check, Threshold};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};

use crate::check::{Health, Judge, Way, ask};
use crate::host::{Outside, OutsideCheck};
use crate::workload::Workloads;

/// Largest number of instances that are looked at; further ones count as working.
const MOST: usize = 1_024;
/// Interval at which an address without a check is compared with this host's own.
const SELDOM: Duration = Duration::from_secs(10);

/// Result of looking at one: the reason for which it does not work, or nothing.
type Verdict = (Outside, Option<String>);

/// Looks at all of them, for ever.
pub(crate) async fn run(workloads: Arc<Workloads>) {
    let host = workloads.host().clone();
    let mut wanted = host.views.outside.clone();
    let (tell, mut told) = mpsc::channel(64);
    let mut looking: BTreeMap<Outside, (OutsideCheck, Task)> = BTreeMap::new();
    let mut down: BTreeMap<Outside, String> = BTreeMap::new();
    loop {
        let overlay = &workloads.kernel().overlay;
        follow(&mut wanted, &mut looking, |looked| look(overlay.clone(), looked, tell.clone()));
        down.retain(|outside, _| looking.contains_key(outside));
        host.set_down(down.keys().cloned().collect()).await;
        complain(&workloads, &wanted.borrow(), &down);
        let mut news = false;
        while !news {
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => news = true,
                    Err(_) => return,
                },
                Some(verdict) = told.recv() => {
                    news = take(&mut down, verdict, &looking);
                    while let Ok(verdict) = told.try_recv() {
                        news |= take(&mut down, verdict, &looking);
                    }
                }
            }
        }
    }
}

/// Looks at what is wanted and nothing else.
fn follow(
    wanted: &mut watch::Receiver<Vec<OutsideCheck>>,
    looking: &mut BTreeMap<Outside, (OutsideCheck, Task)>,
    look: impl Fn(OutsideCheck) -> Task,
) {
    let wanted = wanted.borrow_and_update();
    let first = &wanted[..wanted.len().min(MOST)];
    looking.retain(|outside, (looked, _)| {
        first.binary_search_by(|known| known.outside.cmp(outside)).is_ok_and(|at| first[at] == *looked)
    });
    for looked in first {
        looking.entry(looked.outside.clone()).or_insert_with(|| (looked.clone(), look(looked.clone())));
    }
}

/// Takes what came of a look; answers whether that is news.
fn take<T>(
    down: &mut BTreeMap<Outside, String>,
    (outside, why): Verdict,
    looking: &BTreeMap<Outside, T>,
) -> bool {
    match why {
        Some(why) if looking.contains_key(&outside) => {
            down.insert(outside, why.clone()).as_ref() != Some(&why)
        }
        Some(_) | None => down.remove(&outside).is_some(),
    }
}

fn look(overlay: Arc<Overlay>, looked: OutsideCheck, tell: mpsc::Sender<Verdict>) -> Task {
    task::spawn("outside", async move {
        let interval = looked.check.as_ref().map_or(SELDOM, |check| check.interval.get());
        let mut judge = looked.check.as_ref().map(judge);
        loop {
            let why = why_not(&overlay, &looked, judge.as_mut()).await;
            if tell.send((looked.outside.clone(), why)).await.is_err() {
                return;
            }
            tokio::time::sleep(interval).await;
        }
    })
}

fn judge(check: &Check) -> Judge {
    let check = Check { start_period: None, ..check.clone() };
    Judge::new(&check, Threshold::ONE, Instant::now())
}

/// Returns the reason for which it does not work, if it does not.
async fn why_not(overlay: &Overlay, looked: &OutsideCheck, judge: Option<&mut Judge>) -> Option<String> {
    let address = looked.outside.instance.address();
    if is_own(overlay, address).await {
        return Some(
            "it is an address of this host, whose services its workloads do not reach; attach what listens there, or run it as a \
             workload"
                .to_owned(),
        );
    }
    let (check, judge) = (looked.check.as_ref()?, judge?);
    let way = Way { place: looked.place?.into(), open: &|_| TcpSocket::new_v4(), shell: None };
    judge.handle_answer(ask(check, &way).await, Instant::now());
    match judge.health() {
        Health::Unhealthy(why) => Some(why.clone()),
        Health::Starting(_) | Health::Healthy => None,
    }
}

/// Returns true if this host has the address. Where that cannot be seen, calls find out.
async fn is_own(overlay: &Overlay, address: Ipv4Addr) -> bool {
    overlay.has_address(address.into()).await.unwrap_or(false)
}

/// Says for each service what does not work, and takes back what is well again.
fn complain(workloads: &Workloads, wanted: &[OutsideCheck], down: &BTreeMap<Outside, String>) {
    let mut sentences: BTreeMap<String, String> = BTreeMap::new();
    for (outside, why) in down {
        let Outside { network, service, instance } = outside;
        let of =
            |known: &&OutsideCheck| known.outside.network == *network && known.outside.service == *service;
        let others = wanted.iter().filter(of).any(|known| !down.contains_key(&known.outside));
        let rest =
            if others { "calls of this host's workloads go to the others" } else { "calls are refused" };
        let sentence = format!(
            "service {network}/{service}: its external instance {instance} is out of names and balancing here: {why}; {rest}"
        );
        sentences.insert(format!("outside/{network}/{service}/{instance}"), sentence);
    }
    if wanted.len() > MOST {
        let sentence = format!(
            "{} external instances are more than the {MOST} that a host looks at: the others count as working",
            wanted.len()
        );
        sentences.insert("outside".to_owned(), sentence);
    }
    workloads.complain_all("outside", sentences);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_is_as_it_was_is_no_news() {
        let outside = |instance: &str| Outside {
            network: "shop".parse().unwrap(),
            service: "db".parse().unwrap(),
            instance: instance.parse().unwrap(),
        };
        let (known, unknown) = (outside("192.0.2.50"), outside("192.0.2.51"));
        let (mut down, looking) = (BTreeMap::new(), BTreeMap::from([(known.clone(), ())]));
        let steps = [
            (&known, None, false),
            (&known, Some("refused"), true),
            (&known, Some("refused"), false),
            (&known, Some("no answer"), true),
            // Nobody asks about it any more.
            (&unknown, Some("refused"), false),
            (&known, None, true),
            (&known, None, false),
        ];
        for (outside, why, expected) in steps {
            let verdict = (outside.clone(), why.map(str::to_owned));
            assert_eq!(take(&mut down, verdict, &looking), expected, "{outside:?} {why:?}");
        }
        assert!(down.is_empty());
    }
}
