//! Memory and CPU of the replicas over time, as Linux counts them.

use std::time::Duration;

use crate::replica::Replica;

/// Ticks of `/proc/PID/stat` in a second, on every Linux that we know.
const TICKS: f64 = 100.0;

/// One replica at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub replica: usize,
    /// MiB.
    pub resident: f64,
    /// Share of one processor since the sample before; 0 for the first of a process.
    pub cpu: f64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Usage {
    last: [Option<(u32, Duration, f64)>; 2],
    pub samples: Vec<Sample>,
}

impl Usage {
    pub fn sample(&mut self, at: Duration, replicas: &[Replica]) {
        for (number, replica) in replicas.iter().enumerate() {
            let pid = replica.pid();
            let Some((resident, seconds)) = read(pid) else {
                continue;
            };
            let before = self.last[number].replace((pid, at, seconds));
            let cpu = before
                .filter(|(of, ..)| *of == pid)
                .map_or(0.0, |(_, then, used)| {
                    (seconds - used) / at.saturating_sub(then).as_secs_f64().max(0.001)
                });
            self.samples.push(Sample {
                at,
                replica: number,
                resident,
                cpu,
            });
        }
    }
}

/// MiB in memory, and seconds of CPU so far.
fn read(pid: u32) -> Option<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = resident.split_whitespace().next()?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((kib / 1024.0, (ticks(11)? + ticks(12)?) / TICKS))
}
