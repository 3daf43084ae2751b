//! Everything on this host that somebody should see to, in words, for as long as it is so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sealane_base::task;
use sealane_fabric::health;
use sealane_proto::resource::Workload;
use sealane_proto::types::Subnet6;
use sealane_sys::NetNs;

use super::plumbing::netns_path;
use super::{Disks, Workloads, reserve, sandbox};
use crate::attachment::AttachmentId;
use crate::tap;

/// Sentences about what other parts than workloads see, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<BTreeMap<String, String>>);

impl Complaints {
    /// Says `what` is wrong with `about`, or that nothing is any more. What is new is logged.
    fn set(&self, about: &str, what: Option<String>) {
        match what {
            None => drop(self.lock().remove(about)),
            Some(what) => {
                if self.lock().insert(about.to_owned(), what.clone()).as_ref() != Some(&what) {
                    tracing::error!("{what}");
                }
            }
        }
    }

    /// Of those whose keys begin with `kind`, keeps the ones whose rest is still wrong.
    fn keep(&self, kind: &str, still: impl Fn(&str) -> bool) {
        self.lock().retain(|about, _| about.strip_prefix(kind).is_none_or(&still));
    }

    /// Says that of everything whose key begins with `kind` these are wrong, and nothing else.
    fn set_all(&self, kind: &str, sentences: BTreeMap<String, String>) {
        self.keep(kind, |rest| sentences.contains_key(&format!("{kind}{rest}")));
        sentences.into_iter().for_each(|(about, what)| self.set(&about, Some(what)));
    }

    /// All of them.
    fn sentences(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workloads {
    /// Tells what somebody should see to: workloads in trouble, those of before a reboot, and what other parts complain of.
    #[must_use]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.context.troubles.sentences();
        let Disks { data, run } = &self.context.disks;
        let of_either = |problem| format!("{problem}; until then nothing new starts here, what runs goes on");
        complaints.extend([data, run].into_iter().filter_map(|disk| disk.problem()).map(of_either));
        complaints.extend(self.context.roster.complaints());
        let idle = self.context.host.views.reservations.borrow().clone();
        complaints.extend(reserve::complaints(&idle, SystemTime::now()));
        complaints.extend(self.complaints.sentences());
        let others = self.context.sidecars.registry.others();
        if let Some((first, version)) = others.first() {
            let further = match others.len() - 1 {
                0 => String::new(),
                count => format!(" and of {count} more"),
            };
            complaints.push(format!(
                "the sidecar of workload {first}{further} runs another build than the agent (version {version}); \
                 `sealane sidecar restart --all` replaces such sidecars without breaking a connection"
            ));
        }
        complaints
    }

    /// Says that something is wrong that another part sees, or is not any more.
    pub(crate) fn complain(&self, about: &str, what: Option<String>) {
        self.complaints.set(about, what);
    }

    /// Says all that is wrong of a kind, by keys that begin with it, and takes back what is well again.
    pub(crate) fn complain_all(&self, kind: &str, sentences: BTreeMap<String, String>) {
        self.complaints.set_all(kind, sentences);
    }

    /// Takes back what was said of a kind and is not wrong any more, by the rest of its key.
    pub(crate) fn keep_complaints(&self, kind: &str, still: impl Fn(&str) -> bool) {
        self.complaints.keep(kind, still);
    }

    /// Lists the beginner of each attachment on this host: the verb `run` or `attach`, or a `runtime`, which ends it too.
    #[must_use]
    pub(crate) fn beginnings(&self) -> BTreeMap<AttachmentId, &'static str> {
        self.context.roster.beginnings()
    }

    /// Tells what is wrong with a workload of this host, or what its start waits for.
    #[must_use]
    pub(crate) fn trouble_of(&self, id: &AttachmentId) -> Option<String> {
        let waits = || self.context.roster.waits_of(id).map(|what| format!("it waits for {what}"));
        self.context.troubles.of(id).or_else(waits)
    }

    /// Tells why an instance on this host is not ready, in words; empty when that cannot be told.
    pub(crate) async fn why_idle(&self, workload: &Workload, subnet6: Option<Subnet6>) -> String {
        let id = AttachmentId::of(workload);
        let container = self.context.containers.id_of(&id);
        let about = sandbox::about(self.context.roster.hold_of(&id).as_ref(), container.as_deref());
        if let Some(why) =
            about.and_then(|about| self.context.roster.conditions.of(&about).condition.reason())
        {
            return format!("not ready: {why}");
        }
        let silent = self.why_silent(workload, subnet6).await;
        let found = || self.context.roster.reasons.of(&id).map(|why| format!("not ready: {why}"));
        if silent.is_empty() { found().unwrap_or_default() } else { silent }
    }

    /// Tells which port keeps an instance from being ready, in words; empty when none does.
    async fn why_silent(&self, workload: &Workload, subnet6: Option<Subnet6>) -> String {
        let id = AttachmentId::of(workload);
        let ipv6 = subnet6.map(|subnet6| subnet6.address(workload.address));
        let target = health::ProbeTarget {
            address: workload.address.to_ipv4(),
            ipv6,
            ports: workload.ports.clone(),
            sidecar: None,
            any_port: false,
        };
        if self.context.roster.hold_of(&id).is_some_and(|hold| tap::device_of(&hold).is_some()) {
            return health::silence(&target, self.context.kernel.caller(&id.network)).await;
        }
        let netns = NetNs::open(netns_path(&self.context.kernel.run_dir, &id));
        let (Ok(netns), hopper) = (netns, self.context.kernel.hopper.clone()) else { return String::new() };
        let looked = task::blocking(move || health::reason(&hopper, &netns, &target)).await;
        looked.and_then(|reason| reason).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_kind_as_a_whole_takes_back_what_was_said_of_it_before() {
        let complaints = Complaints::default();
        let check = |expected: &[&str]| assert_eq!(complaints.sentences(), expected);
        let all = |of: &[&str]| of.iter().map(|about| ((*about).to_owned(), format!("{about}!"))).collect();
        complaints.set("other", Some("other!".to_owned()));
        complaints.set_all("outside", all(&["outside", "outside/a", "outside/b"]));
        check(&["other!", "outside!", "outside/a!", "outside/b!"]);
        complaints.set_all("outside", all(&["outside/b"]));
        check(&["other!", "outside/b!"]);
        complaints.set_all("outside/", all(&["outside/a", "outside/b"]));
        complaints.keep("outside/", |rest| rest == "a");
        check(&["other!", "outside/a!"]);
        complaints.set("other", None);
        complaints.set_all("outside", all(&[]));
        check(&[]);
    }
}
