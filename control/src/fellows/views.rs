//! Views of control planes, made from the roll, from their own answers and from silence. Pure.

use std::collections::BTreeMap;

use sealane_proto::wire::v1;

use crate::roster::{Life, Roster};

/// Answers of other control planes, by their addresses, or why there is none.
pub(super) type Answers = BTreeMap<String, Result<v1::ControlView, String>>;

/// Views of all control planes: of this one, and of those on the roll.
pub(super) fn all(roster: &Roster, own: v1::ControlView, answers: &Answers) -> Vec<v1::ControlView> {
    let own_address = own.address.clone();
    let mut views = BTreeMap::from([(own.address.clone(), with_problem(own))]);
    for (address, member) in roster.members.iter().filter(|(address, _)| **address != own_address) {
        let answer = answers.get(address);
        let named = v1::ControlView {
            address: address.clone(),
            version: member.version.clone(),
            ..v1::ControlView::default()
        };
        let view = match (member.life, answer) {
            (_, Some(Ok(view))) => {
                with_problem(v1::ControlView { address: address.clone(), asked: false, ..view.clone() })
            }
            (Life::Stopped, _) => v1::ControlView { role: "stopped".to_owned(), ..named },
            (Life::Lost, _) => v1::ControlView { role: "lost".to_owned(), problem: lost(address), ..named },
            (Life::Running, answer) => {
                let role = if roster.has_leader_at(address) { "leader" } else { "standby" };
                let reason =
                    answer.and_then(|answer| answer.as_ref().err()).filter(|reason| !reason.is_empty());
                let problem = reason.map(|reason| unreached(address, reason)).unwrap_or_default();
                v1::ControlView { role: role.to_owned(), problem, ..named }
            }
        };
        views.insert(address.clone(), view);
    }
    views.into_values().collect()
}

fn with_problem(view: v1::ControlView) -> v1::ControlView {
    let v1::ControlView { address, store_problem, .. } = &view;
    let problem = if store_problem.is_empty() {
        String::new()
    } else if store_problem.starts_with("the ") {
        // A sentence about more than the way to etcd.
        format!("control plane {address}: {store_problem}")
    } else {
        format!(
            "control plane {address} does not reach the store ({store_problem}): it cannot lead; see that its host reaches the members \
             of etcd"
        )
    };
    v1::ControlView { problem, ..view }
}

fn lost(address: &str) -> String {
    format!(
        "control plane {address} gives no sign of life; see that it runs, and that it reaches etcd; if it is gone for good, `sealane \
         control rm {address}` takes it from the roll"
    )
}

fn unreached(address: &str, reason: &str) -> String {
    format!(
        "control plane {address} runs, and this one does not reach it ({reason}); see that hosts and control planes reach each \
         --advertise address"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::RosterMember;

    fn view(role: &str, store_problem: &str) -> v1::ControlView {
        v1::ControlView {
            role: role.to_owned(),
            store_problem: store_problem.to_owned(),
            ..v1::ControlView::default()
        }
    }

    #[test]
    fn each_control_plane_is_described_by_its_own_answer_else_by_the_roll() {
        let member = |life| RosterMember { version: "1".to_owned(), life };
        let lives = [
            ("a:1", Life::Running),
            ("b:1", Life::Running),
            ("c:1", Life::Running),
            ("d:1", Life::Lost),
            ("e:1", Life::Lost),
            ("f:1", Life::Stopped),
            ("g:1", Life::Running),
        ];
        let members = lives.map(|(address, life)| (address.to_owned(), member(life))).into();
        let mut roster = Roster { members, ..Roster::default() };
        roster.is_led_by(Some("b:1".parse().unwrap()), 7);
        let own = v1::ControlView { address: "a:1".to_owned(), asked: true, ..view("standby", "") };
        let answers = Answers::from([
            ("b:1".to_owned(), Ok(view("leader", ""))),
            ("c:1".to_owned(), Err("timed out".to_owned())),
            ("d:1".to_owned(), Err("refused".to_owned())),
            ("e:1".to_owned(), Ok(view("standby", "etcd is silent"))),
        ]);
        let views = all(&roster, own, &answers);
        let said: Vec<(&str, &str)> = views
            .iter()
            .map(|view| (&*view.role, view.problem.split([';', ':']).nth(1).unwrap_or("")))
            .collect();
        let expected = [
            ("standby", ""),
            ("leader", ""),
            ("standby", "1 runs, and this one does not reach it (timed out)"),
            ("lost", "1 gives no sign of life"),
            ("standby", "1 does not reach the store (etcd is silent)"),
            ("stopped", ""),
            ("standby", ""),
        ];
        assert_eq!(said, expected);
    }
}
