//! Echoes: asked by a host's watch, answered by the other one's kernel.

use std::collections::BTreeSet;

use super::{Event, Mesh};

impl Mesh {
    /// Runs the watch of a host as its agent does: answers first, then time, then what is to be sent and said.
    pub(super) fn wake(&mut self, host: u8) -> Result<(), String> {
        let now = self.now;
        let known = &mut self.hosts[usize::from(host)];
        if known.watch.is_none() || known.wake > now {
            return Ok(());
        }
        let (come, under_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut known.answers).into_iter().partition(|(at, ..)| *at <= now);
        known.answers = under_way;
        let names: Vec<_> =
            come.iter().map(|(_, from, _)| self.hosts[usize::from(*from)].name.clone()).collect();
        let Some(watch) = self.hosts[usize::from(host)].watch.as_mut() else { return Ok(()) };
        for ((at, _, token), from) in come.into_iter().zip(names) {
            watch.handle_answer(&from, token, at);
        }
        watch.handle_time(now);
        self.send_echoes(host);
        self.send_hints(host);
        self.take_verdict(host)?;
        let known = self.host_mut(host);
        if let Some(next) = known.watch.as_mut().and_then(|watch| watch.poll_timeout()) {
            known.wake = next.max(now);
            self.push(next.max(now), Event::Wake(host));
        }
        Ok(())
    }

    fn send_echoes(&mut self, host: u8) {
        let now = self.now;
        while let Some((to, token)) =
            self.host_mut(host).watch.as_mut().and_then(|watch| watch.poll_echo(now))
        {
            self.tally.echoes += 1;
            let Some(to) = self.number(&to) else { continue };
            let there = self.ways.carry(host, to);
            let back = self.ways.carry(to, host);
            if let Some((there, back)) = there.zip(back) {
                self.host_mut(host).answers.push((now + there + back, to, token));
            }
        }
    }

    fn send_hints(&mut self, host: u8) {
        while let Some((to, about)) = self.host_mut(host).watch.as_mut().and_then(|watch| watch.poll_hint()) {
            let Some(to) = self.number(&to) else { continue };
            if let Some((_, talk)) = &mut self.end_mut(host, to).talk {
                talk.give_hint(about);
                self.serve(host, to);
            }
        }
    }

    /// A verdict goes where the real one goes: to the host, which chooses endpoints by it.
    fn take_verdict(&mut self, host: u8) -> Result<(), String> {
        let verdict = self.host_mut(host).watch.as_mut().and_then(|watch| watch.poll_verdict());
        let Some(names) = verdict else { return Ok(()) };
        let lost: BTreeSet<u8> = names.iter().filter_map(|name| self.number(name)).collect();
        let before = std::mem::replace(&mut self.host_mut(host).lost, lost.clone());
        if before == lost {
            return Ok(());
        }
        for new in lost.difference(&before) {
            self.tally.lost += 1;
            self.check_lost(host, *new)?;
        }
        if let Some(agent) = self.world.agents.get_mut(&host) {
            agent.host.handle_unreachable(names);
        }
        self.show(host);
        Ok(())
    }
}
