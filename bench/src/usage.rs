//! CPU time and memory of this process and its threads, as Linux counts them.

use std::fs;
use std::time::Duration;

/// CPU time of the calling thread. The kernel brings it up to date at each of its timer ticks (some milliseconds), so
/// measure spans that are longer.
pub fn thread_cpu() -> Duration {
    nanoseconds(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

/// CPU time of all live threads of this process.
pub fn process_cpu() -> Duration {
    cpu_of("self")
}

/// CPU time of all live threads of the process with this number.
pub fn cpu_of(process: &str) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Duration::ZERO;
    };
    threads
        .flatten()
        .map(|thread| {
            nanoseconds(&fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default())
        })
        .sum()
}

fn nanoseconds(schedstat: &str) -> Duration {
    let first = schedstat
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// Memory of this process in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: f64,
    /// The most that was resident.
    pub peak: f64,
}

/// Reads the memory of this process.
pub fn memory() -> Memory {
    memory_of("self")
}

/// Reads the memory of the process with this number.
pub fn memory_of(process: &str) -> Memory {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next())
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 1024.0
    };
    Memory {
        resident: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}

/// Name of the processor, and how many of them this process may use.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown processor", |l| {
            l.trim_start_matches([' ', '\t', ':'])
        });
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cpus} CPUs")
}

/// The middle one; of an even number of values, the upper of the two in the middle.
pub fn median<T: Copy + Ord>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}
