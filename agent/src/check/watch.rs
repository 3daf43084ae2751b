//! The health of one workload, followed by its check.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sealane_base::task::{self, Task};
use sealane_fabric::health::Families;
use sealane_proto::types::{Check, Port, Probe, Threshold};
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::ask::{Way, ask};
use super::exec::Shell;
use super::judge::{Health, Judge};
use super::limits::CheckLimits;

/// Time over which the first questions to workloads of before are spread.
const SPREAD: Duration = Duration::from_secs(1);

/// Workload that is asked.
pub(crate) struct Subject {
    /// Check by which it is.
    pub(crate) check: Check,
    /// Port that is asked; `None` for a command alone.
    pub(crate) port: Option<Port>,
    /// Addresses of the workload: the IPv4 one, and the one that is made from it.
    pub(crate) addresses: (IpAddr, Option<IpAddr>),
    /// Makes the sockets.
    pub(crate) open: Box<dyn Fn(IpAddr) -> io::Result<TcpSocket> + Send + Sync>,
    /// Place in which its commands run.
    pub(crate) shell: Shell,
    /// Families at which it listens, which are waited for; `None` when it offers no port.
    pub(crate) listening: Option<watch::Receiver<Families>>,
    /// True if it ran before this check did: it is as it was until the first verdict.
    pub(crate) known: bool,
}

/// Watches the health of a workload; `None` until something is known of one that ran before. It is asked as long as somebody listens,
/// while the workload does.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn watch(subject: Subject, limits: CheckLimits) -> (watch::Receiver<Option<Health>>, Task) {
    let (tell, seen) = watch::channel(if subject.known { None } else { Some(Health::Starting(None)) });
    (seen, task::spawn("check", follow(subject, limits, tell)))
}

async fn follow(mut subject: Subject, limits: CheckLimits, tell: watch::Sender<Option<Health>>) {
    let mut known = subject.known;
    loop {
        let listening = subject.listening.clone();
        if !listens(&mut subject.listening, true).await {
            return;
        }
        if known {
            tokio::time::sleep(SPREAD.mul_f64(rand::random())).await;
        }
        let mut judge = Judge::new(&subject.check, Threshold::THREE, Instant::now());
        let asked = async {
            loop {
                let answer = question(&subject, &limits, listening.as_ref()).await;
                judge.handle_answer(answer, Instant::now());
                let decided = !matches!(judge.health(), Health::Starting(_));
                if decided || !known {
                    show(&tell, judge.health());
                }
                // Neither in step with others nor more often than it says.
                let pause = subject.check.interval.get();
                tokio::time::sleep(pause.mul_f64(1.0 + 0.1 * rand::random::<f64>())).await;
            }
        };
        let mut gone = listening.clone();
        tokio::select! {
            () = asked => {}
            () = tell.closed() => return,
            still = listens(&mut gone, false) => if !still { return },
        }
        // What listens again has begun anew.
        known = false;
        show(&tell, &Health::Starting(None));
    }
}

/// Returns once it listens or does not, as is `wanted`: true. False when nobody sees that any more; never for what is not seen and not
/// wanted. Cancel safe.
async fn listens(listening: &mut Option<watch::Receiver<Families>>, wanted: bool) -> bool {
    match listening {
        Some(listening) => listening.wait_for(|seen| seen.any() == wanted).await.is_ok(),
        None if wanted => true,
        None => std::future::pending().await,
    }
}

fn show(tell: &watch::Sender<Option<Health>>, health: &Health) {
    tell.send_if_modified(|said| {
        let news = said.as_ref() != Some(health);
        if news {
            *said = Some(health.clone());
        }
        news
    });
}

async fn question(
    subject: &Subject,
    limits: &CheckLimits,
    listening: Option<&watch::Receiver<Families>>,
) -> Result<(), String> {
    let (v4, v6) = subject.addresses;
    // Where it listens for IPv6 alone, it is asked there.
    let only6 = listening.is_some_and(|listening| !listening.borrow().v4);
    let address = v6.filter(|_| only6).unwrap_or(v4);
    let place = SocketAddr::new(address, subject.port.map_or(0, Port::get));
    if subject.port.is_none() && !matches!(subject.check.probe, Probe::Exec(_)) {
        return Err(format!(
            "its check {} has no port to ask: the workload offers none over TCP",
            subject.check.probe
        ));
    }
    let _place = limits.place(&subject.check).await;
    let way = Way { place, open: &*subject.open, shell: Some(&subject.shell) };
    let answer = ask(&subject.check, &way).await;
    limits.count(&subject.check, answer.is_ok());
    answer
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use sealane_sys::run_dir::RunDir;

    use super::*;

    fn subject(port: u16, listening: watch::Receiver<Families>, known: bool) -> Subject {
        let check = Check {
            interval: "100ms".parse().unwrap(),
            unhealthy: Threshold::try_from(2_u32).ok(),
            ..Check::of(Probe::Tcp)
        };
        Subject {
            check,
            port: Port::try_from(port).ok(),
            addresses: (Ipv4Addr::LOCALHOST.into(), None),
            open: Box::new(|_| TcpSocket::new_v4()),
            shell: Shell {
                binary: "/bin/false".into(),
                run_dir: RunDir::from("/nonexistent"),
                workload: String::new(),
            },
            listening: Some(listening),
            known,
        }
    }

    #[tokio::test]
    async fn a_workload_is_asked_while_it_listens_and_begins_anew_when_it_listens_again() {
        let limits = CheckLimits::register(&prometheus::Registry::new()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (listen, listening) = watch::channel(Families::default());
        let (mut seen, _task) = watch(subject(port, listening.clone(), false), limits.clone());
        assert_eq!(*seen.borrow_and_update(), Some(Health::Starting(None)));
        listen.send_replace(Families::both(true));
        seen.wait_for(|health| *health == Some(Health::Healthy)).await.unwrap();
        drop(listener);
        let unhealthy = |health: &Option<Health>| matches!(health, Some(Health::Unhealthy(why)) if why.contains("refused"));
        seen.wait_for(unhealthy).await.unwrap();
        listen.send_replace(Families::default());
        seen.wait_for(|health| *health == Some(Health::Starting(None))).await.unwrap();

        listen.send_replace(Families::both(true));
        let (mut seen, _task) = watch(subject(port, listening, true), limits);
        assert_eq!(*seen.borrow_and_update(), None, "as it was");
        seen.changed().await.unwrap();
        assert!(unhealthy(&seen.borrow().clone()), "nothing is said before a verdict: {seen:?}");
    }
}
