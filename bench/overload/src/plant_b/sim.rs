//! The events of Plant B.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use trimtab_law::Config;

use super::actuator::Actuator;
use super::meter::{End, Meter};
use super::pods::{Buckets, Pods, QUEUE, SIGMA};
use super::topology::{APIS, N_APIS, SERVICES};
use super::{Factory, Outcome, Setup};
use crate::law;
use crate::random::Random;

/// A client leaves so long after the SLO, in nanoseconds.
const GRACE: u64 = 1_000_000;
/// Wait before a retry, in nanoseconds.
const RETRY: u64 = 500_000_000;
/// Share of the failed calls that are tried again.
const RETRIED: f64 = 0.8;
/// Attempts of a call at most.
const ATTEMPTS: u8 = 3;
/// User priorities, as DAGOR has them: one for each call, the same at each service.
const USERS: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival { api: usize },
    Done { pod: usize, call: u32 },
    Scrape { pod: usize },
    Tick,
    Deliver,
}

/// One attempt of a call.
#[derive(Clone, Copy, Debug, Default)]
struct Call {
    api: usize,
    hop: usize,
    attempt: u8,
    tier: usize,
    /// Whether somebody waits for it.
    alive: bool,
    /// Whether a worker has it.
    working: bool,
    /// The pod it is at, and the pod of its first service.
    pod: usize,
    front: usize,
    start: u64,
    hop_start: u64,
    /// How long it waited at this service and at the first one.
    wait: u64,
    front_wait: u64,
    /// Tells the users of a slot apart.
    life: u32,
}

/// State of a run.
pub struct Sim<'a> {
    setup: &'a Setup,
    slo: u64,
    now: u64,
    order: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    random: Random,
    calls: Vec<Call>,
    free: Vec<u32>,
    /// Clients that leave, in order of time.
    timeouts: VecDeque<(u64, u32, u32)>,
    /// Retries, in order of time.
    retries: VecDeque<(u64, usize, u8)>,
    pods: Pods,
    entry: Meter,
    entry_buckets: Buckets,
    actuator: Actuator,
    slo_s: f64,
    out: Outcome,
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn nanos(s: f64) -> u64 {
    (s * 1e9) as u64
}

impl<'a> Sim<'a> {
    /// An empty mesh.
    pub fn new(setup: &'a Setup, config: &Config, factory: &Factory) -> Self {
        let mut pods = Pods::new();
        let actuator = Actuator::new(setup, config, factory, &mut pods);
        let length = setup.scenario.end_s as usize;
        let mut sim = Self {
            setup,
            slo: nanos(config.slo_s),
            now: 0,
            order: 0,
            heap: BinaryHeap::new(),
            random: Random::new(setup.seed),
            calls: Vec::new(),
            free: Vec::new(),
            timeouts: VecDeque::new(),
            retries: VecDeque::new(),
            pods,
            entry: Meter::default(),
            entry_buckets: Buckets::default(),
            actuator,
            slo_s: config.slo_s,
            out: Outcome {
                good: vec![[0; N_APIS]; length],
                demand: vec![[0; N_APIS]; length],
                ..Outcome::default()
            },
        };
        for api in 0..N_APIS {
            sim.at(0, Event::Arrival { api });
        }
        for pod in 0..=sim.pods.all.len() {
            let phase = sim.random.unit() * setup.telemetry.scrape_s;
            sim.at(nanos(phase), Event::Scrape { pod });
        }
        sim.at(nanos(setup.telemetry.interval_s), Event::Tick);
        sim
    }

    fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.heap.push(Reverse((time, self.order, event)));
    }

    /// Runs to the end of the scenario.
    pub fn run(mut self) -> Outcome {
        let end = nanos(self.setup.scenario.end_s);
        loop {
            let event = self.heap.peek().map_or(u64::MAX, |Reverse((t, ..))| *t);
            let timeout = self.timeouts.front().map_or(u64::MAX, |(t, ..)| *t);
            let retry = self.retries.front().map_or(u64::MAX, |(t, ..)| *t);
            self.now = event.min(timeout).min(retry);
            if self.now >= end {
                self.out.writes = self.actuator.writes;
                self.out.trace = self.actuator.trace.take().unwrap_or_default();
                return self.out;
            }
            if timeout == self.now {
                if let Some((_, call, life)) = self.timeouts.pop_front() {
                    self.leave(call, life);
                }
            } else if retry == self.now {
                if let Some((_, api, attempt)) = self.retries.pop_front() {
                    self.attempt(api, attempt);
                }
            } else if let Some(Reverse((_, _, event))) = self.heap.pop() {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { api } => self.arrival(api),
            Event::Done { pod, call } => self.done(pod, call),
            Event::Scrape { pod } => {
                let telemetry = self.setup.telemetry;
                let keep = telemetry.window_s + 2.0 * telemetry.scrape_s;
                let t = seconds(self.now);
                match self.pods.all.get_mut(pod) {
                    Some(pod) => pod.meter.scrape(t, keep),
                    None => self.entry.scrape(t, keep),
                }
                self.at(self.now + nanos(telemetry.scrape_s), event);
            }
            Event::Tick => {
                if self.actuator.tick(self.now, &self.pods, &self.entry) {
                    let arrives = self.now + nanos(self.setup.telemetry.delivery_s);
                    self.at(arrives, Event::Deliver);
                }
                self.at(self.now + nanos(self.setup.telemetry.interval_s), event);
            }
            Event::Deliver => {
                self.actuator
                    .deliver(self.now, &mut self.pods, &mut self.entry_buckets);
            }
        }
    }

    fn arrival(&mut self, api: usize) {
        let scenario = &self.setup.scenario;
        let load = if seconds(self.now) < scenario.step_s {
            &scenario.before
        } else {
            &scenario.during
        };
        let gap = self.random.exponential(1.0 / load[api]);
        self.at(self.now + nanos(gap).max(1), Event::Arrival { api });
        self.out.demand[(self.now / 1_000_000_000) as usize][api] += 1;
        self.attempt(api, 1);
    }

    fn attempt(&mut self, api: usize, attempt: u8) {
        let admitted = self.entry_buckets.take(api, self.now);
        self.entry.arrived(api, admitted);
        if !admitted {
            self.out.refused += 1;
            self.again(api, attempt);
            return;
        }
        let tier = self.random.below(USERS);
        let index = self.free.pop().unwrap_or_else(|| {
            self.calls.push(Call::default());
            (self.calls.len() - 1) as u32
        });
        let call = &mut self.calls[index as usize];
        *call = Call {
            api,
            attempt,
            tier,
            alive: true,
            start: self.now,
            life: call.life,
            ..Call::default()
        };
        self.timeouts
            .push_back((self.now + self.slo + GRACE, index, call.life));
        self.enter(index);
    }

    /// The call arrives at the service of its hop.
    fn enter(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        let chosen = self
            .pods
            .choose(APIS[call.api].path[call.hop], &mut self.random);
        let pod = &mut self.pods.all[chosen];
        let now = seconds(self.now);
        let inflight = pod.meter.inflight;
        let admitted = pod.buckets.take(call.api, self.now)
            && pod
                .gate
                .as_mut()
                .is_none_or(|g| g.admit(now, inflight, call.tier));
        pod.meter.arrived(call.api, admitted);
        if !admitted {
            self.out.refused += 1;
            return self.fail(index, false);
        }
        call.pod = chosen;
        call.hop_start = self.now;
        if call.hop == 0 {
            call.front = chosen;
        }
        if pod.idle > 0 {
            pod.idle -= 1;
            self.work(index);
        } else if pod.queue.len() < QUEUE {
            pod.queue.push_back(index);
        } else {
            self.fail(index, true);
        }
    }

    /// A worker takes the call.
    fn work(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        call.working = true;
        call.wait = self.now - call.hop_start;
        if call.hop == 0 {
            call.front_wait = call.wait;
        }
        let service = APIS[call.api].path[call.hop];
        let time = SERVICES[service].work_s * self.random.log_normal(SIGMA);
        let pod = call.pod;
        self.pods.all[pod].meter.busy_s += time;
        self.at(
            self.now + nanos(time).max(1),
            Event::Done { pod, call: index },
        );
    }

    /// A worker is done with a call, and takes the next one.
    fn done(&mut self, pod: usize, index: u32) {
        match self.pods.all[pod].queue.pop_front() {
            Some(next) => self.work(next),
            None => self.pods.all[pod].idle += 1,
        }
        let call = &mut self.calls[index as usize];
        call.working = false;
        if !call.alive {
            return self.release(index);
        }
        if call.hop > 0 {
            self.end(index, false, End::Answered);
        }
        let call = &mut self.calls[index as usize];
        call.hop += 1;
        if call.hop < APIS[call.api].path.len() {
            return self.enter(index);
        }
        let (api, start) = (call.api, call.start);
        self.end(index, true, End::Answered);
        let time = self.now - start;
        self.entry
            .ended(api, End::Answered, seconds(time), self.slo_s);
        if time <= self.slo {
            self.out.good[(self.now / 1_000_000_000) as usize][api] += 1;
        }
        self.release(index);
    }

    /// A proxy sees the end of a request: the one of the service the call is at, or the first one.
    fn end(&mut self, index: u32, front: bool, end: End) {
        let call = &self.calls[index as usize];
        let (pod, start, wait) = if front {
            (call.front, call.start, call.front_wait)
        } else {
            (call.pod, call.hop_start, call.wait)
        };
        let time = seconds(self.now - start);
        let pod = &mut self.pods.all[pod];
        pod.meter.ended(call.api, end, time, self.slo_s);
        if let Some(gate) = &mut pod.gate {
            let outcome = match end {
                End::Answered => law::Outcome::Answered,
                End::Failed => law::Outcome::Failed,
                End::Left => law::Outcome::Left,
            };
            gate.done(seconds(self.now), time, seconds(wait), outcome);
        }
    }

    /// The call was refused at its hop, or, when it was `accepted`, the queue there is full.
    fn fail(&mut self, index: u32, accepted: bool) {
        let call = self.calls[index as usize];
        if accepted {
            self.end(index, false, End::Failed);
        }
        if call.hop > 0 {
            self.end(index, true, End::Failed);
        }
        self.entry.ended(call.api, End::Failed, 0.0, self.slo_s);
        self.again(call.api, call.attempt);
        self.release(index);
    }

    /// The client of a call leaves.
    fn leave(&mut self, index: u32, life: u32) {
        let call = &mut self.calls[index as usize];
        if call.life != life || !call.alive {
            return;
        }
        call.alive = false;
        if !call.working {
            call.wait = self.now - call.hop_start;
        }
        if call.hop == 0 {
            call.front_wait = call.wait;
        }
        let (api, attempt, hop, start) = (call.api, call.attempt, call.hop, call.start);
        if hop > 0 {
            self.end(index, false, End::Left);
        }
        self.end(index, true, End::Left);
        self.entry
            .ended(api, End::Left, seconds(self.now - start), self.slo_s);
        self.out.left += 1;
        self.again(api, attempt);
    }

    fn again(&mut self, api: usize, attempt: u8) {
        if self.setup.retries && attempt < ATTEMPTS && self.random.unit() < RETRIED {
            self.retries.push_back((self.now + RETRY, api, attempt + 1));
        }
    }

    fn release(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        call.alive = false;
        call.life = call.life.wrapping_add(1);
        self.free.push(index);
    }
}
