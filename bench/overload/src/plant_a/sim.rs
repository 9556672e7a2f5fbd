//! The events of Plant A.

#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of pods and calls of a simulation"
)]

mod control;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use trimtab_law::{Config, Outputs};

use super::pod::Pod;
use super::{Driver, Outcome, Scenario, Second};
use crate::law::Outcome as CallOutcome;
use crate::plant_b::meter::End;
use crate::random::Random;

/// Attempts of a call at most.
const ATTEMPTS: u8 = 4;
/// Time until a failed call is tried again, in seconds.
const RETRY_S: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Arrival,
    Attempt(u8),
    Leaves(u32),
    Served(u16, u32),
    SecondTier(u16, u32),
    Scrape(u16),
    Tick,
    Deliver,
    Second,
}

struct At(f64, u64, Event);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1))
    }
}

/// A call at a pod.
#[derive(Clone, Copy, Debug)]
struct Call {
    began: f64,
    queued_s: f64,
    pod: u16,
    attempt: u8,
    /// The client left, or the call was answered.
    ended: bool,
    /// Events that still refer to it.
    uses: u8,
}

struct Sim<'a> {
    scenario: &'a Scenario,
    config: &'a Config,
    driver: Driver,
    random: Random,
    now: f64,
    number: u64,
    events: BinaryHeap<At>,
    pods: Vec<Pod>,
    /// Pods that take requests.
    ready: Vec<usize>,
    /// When a pod was replaced last.
    replaced: f64,
    calls: Vec<Call>,
    free: Vec<u32>,
    second_tier: (VecDeque<(u16, u32)>, usize),
    in_force: Outputs,
    sent: VecDeque<(f64, Outputs)>,
    budget: f64,
    second: Second,
    outcome: Outcome,
    reset_done: bool,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, config: &Config, seed: u64, driver: Driver) -> Outcome {
    let mut sim = Sim {
        scenario,
        config,
        driver,
        random: Random::new(seed),
        now: 0.0,
        number: 0,
        events: BinaryHeap::new(),
        pods: Vec::new(),
        ready: Vec::new(),
        replaced: scenario.overload.unwrap_or(0.0),
        calls: Vec::new(),
        free: Vec::new(),
        second_tier: (VecDeque::new(), 0),
        in_force: Outputs::default(),
        sent: VecDeque::new(),
        budget: 20.0,
        second: Second::default(),
        outcome: Outcome::default(),
        reset_done: false,
    };
    for _ in 0..scenario.base_pods {
        sim.add_pod();
        if let Some(pod) = sim.pods.last_mut() {
            pod.born = -1e9;
        }
    }
    sim.at(0.001, Event::Arrival);
    sim.at(config.interval_s, Event::Tick);
    sim.at(1.0, Event::Second);
    while let Some(At(t, _, event)) = sim.events.pop() {
        if t > scenario.seconds {
            break;
        }
        sim.now = t;
        sim.step(event);
    }
    sim.outcome
}

impl Sim<'_> {
    fn at(&mut self, t: f64, event: Event) {
        self.number += 1;
        self.events.push(At(t, self.number, event));
    }

    fn add_pod(&mut self) {
        let gate = match &self.driver {
            Driver::Law(law) => law.gate(&format!("pod-{}", self.pods.len())),
            Driver::Bound(_) => None,
        };
        self.pods.push(Pod::new(self.now, gate));
        let phase = self.random.range(0.0, self.config.interval_s);
        let index = (self.pods.len() - 1) as u16;
        self.ready.push(usize::from(index));
        self.at(self.now + phase, Event::Scrape(index));
        self.share_limits();
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrival => {
                let load = (self.scenario.load)(self.now) * self.nominal();
                let next = self.random.exponential(1.0 / load.max(0.01));
                self.at(self.now + next, Event::Arrival);
                self.second.demand += 1.0;
                self.attempt(0);
            }
            Event::Attempt(attempt) => self.attempt(attempt),
            Event::Leaves(call) => self.leaves(call),
            Event::Served(pod, call) => self.served(usize::from(pod), call),
            Event::SecondTier(pod, call) => {
                self.second_tier.1 -= 1;
                self.answer(usize::from(pod), call);
                self.start_second_tier();
            }
            Event::Scrape(pod) => {
                let now = self.now;
                let keep = self.scenario.telemetry.window_s + self.scenario.telemetry.late_s + 30.0;
                let pod_state = &mut self.pods[usize::from(pod)];
                pod_state.account(now);
                pod_state.meter.scrape(now, keep);
                self.at(now + self.config.interval_s, Event::Scrape(pod));
            }
            Event::Tick => self.tick(),
            Event::Deliver => {
                while self
                    .sent
                    .front()
                    .is_some_and(|(at, _)| *at <= self.now + 1e-9)
                {
                    if let Some((_, outputs)) = self.sent.pop_front() {
                        self.in_force = outputs;
                    }
                }
                self.share_limits();
            }
            Event::Second => self.close_second(),
        }
    }

    /// Requests per second that the pods at the begin can answer.
    fn nominal(&self) -> f64 {
        self.scenario.base_pods as f64 * self.pod_rate()
    }

    fn pod_rate(&self) -> f64 {
        self.scenario.service.workers as f64 / self.scenario.service.service_s
    }

    fn speed(&self, pod: usize) -> f64 {
        let cold = self.now - self.pods[pod].born < self.scenario.service.cold_s;
        (self.scenario.speed)(self.now, pod) * if cold { 0.5 } else { 1.0 }
    }

    /// Factor on the time of service that the queue of a pod costs.
    fn slowed(&self, pod: usize) -> f64 {
        let queued = self.pods[pod].queue.len() as f64 / self.scenario.service.workers as f64;
        1.0 + self.scenario.service.contention * queued.min(40.0)
    }

    fn capacity(&self, pod: usize) -> f64 {
        let own = self.pod_rate() * self.speed(pod);
        let behind = self
            .scenario
            .service
            .second_tier
            .map_or(f64::INFINITY, |(workers, service_s)| {
                workers as f64 / service_s / self.ready.len() as f64
            });
        own.min(behind)
    }

    fn attempt(&mut self, attempt: u8) {
        let index = self.ready[self.random.below(self.ready.len())];
        let now = self.now;
        let admitted = self.pods[index].admits(now);
        self.pods[index].meter.arrived(0, admitted);
        if !admitted {
            self.second.refused += 1.0;
            self.retry(attempt, self.scenario.clients.retry_refused);
            return;
        }
        let service = &self.scenario.service;
        if service.broken == Some(index) || self.pods[index].queue.len() >= service.queue {
            self.pods[index]
                .meter
                .ended(0, End::Failed, 0.001, self.config.slo_s);
            if let Some(gate) = &mut self.pods[index].gate {
                gate.done(now, 0.001, 0.0, CallOutcome::Failed);
            }
            self.retry(attempt, self.scenario.clients.retry);
            return;
        }
        let call = Call {
            began: now,
            queued_s: 0.0,
            pod: index as u16,
            attempt,
            ended: false,
            uses: 2,
        };
        let number = if let Some(number) = self.free.pop() {
            self.calls[number as usize] = call;
            number
        } else {
            self.calls.push(call);
            (self.calls.len() - 1) as u32
        };
        self.pods[index].queue.push_back(number);
        self.at(now + self.config.slo_s, Event::Leaves(number));
        self.start(index);
    }

    fn retry(&mut self, attempt: u8, share: f64) {
        if attempt + 1 >= ATTEMPTS || share <= 0.0 || self.random.unit() > share {
            return;
        }
        if self.scenario.clients.budget.is_some() {
            if self.budget < 1.0 {
                return;
            }
            self.budget -= 1.0;
        }
        let delay = RETRY_S * self.random.range(0.5, 1.5);
        self.at(self.now + delay, Event::Attempt(attempt + 1));
    }

    fn start(&mut self, index: usize) {
        let now = self.now;
        while self.pods[index].busy < self.scenario.service.workers {
            let next = if self.scenario.service.lifo {
                self.pods[index].queue.pop_back()
            } else {
                self.pods[index].queue.pop_front()
            };
            let Some(number) = next else { return };
            if self.scenario.service.drops_left && self.calls[number as usize].ended {
                self.release(number);
                continue;
            }
            self.calls[number as usize].queued_s = now - self.calls[number as usize].began;
            let time = self.service_time(index);
            self.pods[index].account(now);
            self.pods[index].busy += 1;
            self.at(now + time, Event::Served(index as u16, number));
        }
    }

    fn service_time(&mut self, index: usize) -> f64 {
        let service = &self.scenario.service;
        let factor = if service.bimodal {
            if self.random.unit() < 0.1 {
                10.0 / 1.9
            } else {
                1.0 / 1.9
            }
        } else {
            self.random.log_normal(service.sigma)
        };
        let mut time = service.service_s * factor / self.speed(index) * self.slowed(index);
        if let Some((every, length)) = service.pause {
            let offset = every * index as f64 / self.pods.len() as f64;
            let since = (self.now + offset) % every;
            if since < length && self.now > every {
                time += length - since;
            }
        }
        time
    }

    fn served(&mut self, index: usize, number: u32) {
        let now = self.now;
        self.pods[index].account(now);
        self.pods[index].busy -= 1;
        if self.scenario.service.second_tier.is_some() {
            self.second_tier.0.push_back((index as u16, number));
            self.start_second_tier();
        } else {
            self.answer(index, number);
        }
        self.start(index);
    }

    fn start_second_tier(&mut self) {
        let Some((workers, service_s)) = self.scenario.service.second_tier else {
            return;
        };
        while self.second_tier.1 < workers {
            let Some((pod, number)) = self.second_tier.0.pop_front() else {
                return;
            };
            self.second_tier.1 += 1;
            let time = service_s * self.random.log_normal(self.scenario.service.sigma);
            self.at(self.now + time, Event::SecondTier(pod, number));
        }
    }

    fn answer(&mut self, index: usize, number: u32) {
        let call = self.calls[number as usize];
        if !call.ended {
            self.calls[number as usize].ended = true;
            let time = self.now - call.began;
            self.pods[index]
                .meter
                .ended(0, End::Answered, time, self.config.slo_s);
            self.second.good += 1.0;
            self.budget = (self.budget + self.scenario.clients.budget.unwrap_or(0.0)).min(100.0);
            if let Some(gate) = &mut self.pods[index].gate {
                gate.done(self.now, time, call.queued_s, CallOutcome::Answered);
            }
        }
        self.release(number);
    }

    fn leaves(&mut self, number: u32) {
        let call = self.calls[number as usize];
        if !call.ended {
            self.calls[number as usize].ended = true;
            self.second.late += 1.0;
            let pod = &mut self.pods[usize::from(call.pod)];
            pod.meter
                .ended(0, End::Left, self.config.slo_s, self.config.slo_s);
            if let Some(gate) = &mut pod.gate {
                gate.done(
                    self.now,
                    self.config.slo_s,
                    call.queued_s,
                    CallOutcome::Left,
                );
            }
            self.retry(call.attempt, self.scenario.clients.retry);
        }
        self.release(number);
    }

    fn release(&mut self, number: u32) {
        let call = &mut self.calls[number as usize];
        call.uses -= 1;
        if call.uses == 0 {
            self.free.push(number);
        }
    }

    /// The oldest pod takes no more requests, and a new one takes its place.
    fn replace_pod(&mut self) {
        self.replaced = self.now;
        let oldest = self.ready.remove(0);
        self.pods[oldest].ready = false;
        self.add_pod();
    }

    fn close_second(&mut self) {
        let wanted = (self.scenario.pods)(self.now);
        while self.ready.len() < wanted {
            self.add_pod();
        }
        if self
            .scenario
            .replace_s
            .is_some_and(|every| self.now >= self.replaced + every)
        {
            self.replace_pod();
        }
        self.second.meant = (self.scenario.load)(self.now - 0.5) * self.nominal();
        let share = self.second.meant / self.ready.len() as f64;
        let broken = self.scenario.service.broken;
        let fine = || {
            self.ready
                .iter()
                .filter(|index| broken != Some(**index))
                .map(|index| self.capacity(*index))
        };
        let (ideal, capacity) = (
            fine().map(|capacity| share.min(capacity)).sum(),
            fine().sum(),
        );
        self.second.ideal = ideal;
        self.second.capacity = capacity;
        self.second.limit = self.total_limit();
        self.second.queue = self
            .pods
            .iter()
            .map(|pod| pod.queue.len() as f64)
            .sum::<f64>()
            + self.second_tier.0.len() as f64;
        self.outcome.seconds.push(self.second);
        self.second = Second::default();
        self.at(self.now + 1.0, Event::Second);
    }
}
