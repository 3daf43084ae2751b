//! Trouble, as a scene has it.

use std::time::Duration;

use super::{Change, Cut, Event, Mesh};

/// An hour.
const HOUR: Duration = Duration::from_secs(3_600);

impl Mesh {
    /// Lets a change happen.
    pub(super) fn change(&mut self, change: &Change) -> Result<(), String> {
        let now = self.now;
        match *change {
            Change::OneWay(from, to) => self.ways.cut(Cut::OneWay(from, to), now),
            Change::Island(first, count, without_control) => self.part(first, count, without_control),
            Change::Flap(host, tenths, times) => self.flap(host, Self::tenths(tenths), times),
            Change::Loss(percent) => self.ways.lose(percent.into(), now),
            Change::Heal => {
                self.ways.heal(now);
                self.ways.lose(0, now);
                self.without_control.clear();
            }
            Change::Blackout(gone) => self.is_control_gone = gone,
            Change::Hours(hours) => self.skip(HOUR * u32::from(hours)),
            Change::Off(host) => self.switch_off(host),
            Change::On => self.switch_on(),
            Change::Kill(host) => self.kill(host),
            Change::Freeze(host, tenths) => self.stand_still(host, tenths),
            Change::Pause(host, tenths) => {
                if self.ways.is_on(host) && self.host(host).still.is_none() {
                    self.ways.switch(host, false, now);
                    self.stand_still(host, tenths);
                }
            }
            Change::Jump(host, minutes) => self.world.jump(host, minutes),
            Change::Start(host, service) => self.want(host, self.service(service)),
            Change::End(host, place) => drop(self.end(host, place)),
            Change::Move(host, place, to) => {
                if let Some(wish) = self.end(host, place) {
                    let id = (wish.network.clone(), wish.name.clone());
                    self.host_mut(to).wanted.insert(id, wish);
                }
            }
        }
        Ok(())
    }

    fn part(&mut self, first: u8, count: u8, without_control: bool) {
        let hosts = self.hosts.len();
        let nth = |place: u8| u8::try_from((usize::from(first) + usize::from(place)) % hosts).unwrap_or(0);
        let inside: std::collections::BTreeSet<u8> = (0..count).map(nth).collect();
        if without_control {
            self.without_control.extend(&inside);
        }
        self.ways.cut(Cut::Island(inside), self.now);
    }

    /// A host is cut off for a while, and again after as long.
    pub(super) fn flap(&mut self, host: u8, time: Duration, times: u8) {
        let cut = Cut::Island([host].into());
        self.ways.cut(cut.clone(), self.now);
        self.push(self.now + time, Event::Mend(cut));
        if times > 1 {
            self.push(self.now + 2 * time, Event::Flap(host, time, times - 1));
        }
    }

    /// Hours pass at once: nobody is asked anything meanwhile, and everybody's clocks go on.
    fn skip(&mut self, time: Duration) {
        self.skipped += time;
        self.world.pass_time(time);
    }

    fn switch_off(&mut self, host: u8) {
        if self.host(host).watch.is_none() || self.host(host).still.is_some() {
            return;
        }
        self.ways.switch(host, false, self.now);
        self.forget_talks(host);
        self.world.cut(host, host.is_multiple_of(2));
        let known = self.host_mut(host);
        known.watch = None;
        known.run += 1;
    }

    fn switch_on(&mut self) {
        for host in self.all() {
            if self.host(host).watch.is_none() {
                self.world.reboot(host);
                self.ways.switch(host, true, self.now);
                self.begin(host);
            }
        }
    }

    fn kill(&mut self, host: u8) {
        if self.host(host).watch.is_some() && self.host(host).still.is_none() {
            self.forget_talks(host);
            self.world.kill(host, 0);
            self.begin(host);
        }
    }

    fn stand_still(&mut self, host: u8, tenths: u8) {
        if self.host(host).watch.is_some() && self.host(host).still.is_none() {
            let until = self.now + Self::tenths(tenths);
            self.host_mut(host).still = Some(until);
            self.push(until, Event::Thaw(host));
        }
    }

    pub(super) fn thaw(&mut self, host: u8) {
        let now = self.now;
        let known = self.host_mut(host);
        (known.still, known.awake) = (None, now);
        self.ways.switch(host, true, now);
    }
}
