//! Series of the process: its version, whether it is ready and leads, and what it uses, as Prometheus' own libraries name it.

use std::fmt::Result;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use trimtab_kit::lease::Standing;
use trimtab_kit::readiness::Readiness;
use trimtab_kit::series::{counter, gauge, gauges};

/// Clock ticks a second in `/proc`: Linux has the same number on every machine that Rust's standard library runs on.
const TICKS: f64 = 100.0;

/// Collector of the series.
#[derive(Debug)]
pub struct ProcessCollector(pub Readiness, pub Standing);

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let encoder = &mut encoder;
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(
            encoder,
            "trimtab_build_info",
            "1, with the version of the program",
            &[(version, 1_u64)],
        )?;
        let ready = u64::from(self.0.missing().is_empty());
        gauge(encoder, "trimtab_ready", "1 while /readyz says ok", ready)?;
        leading(encoder, &self.1)?;
        let Some(used) = Used::now() else {
            return Ok(());
        };
        let cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time that the process has used",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(used.cpu_seconds).encode(cpu)?;
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Memory that the process has",
                used.resident,
            ),
            (
                "process_virtual_memory_bytes",
                "Addresses that the process has",
                used.virtual_memory,
            ),
            ("process_threads", "Threads of the process", used.threads),
            (
                "process_open_fds",
                "Files and connections that the process has open",
                used.open_files,
            ),
            (
                "process_max_fds",
                "Files and connections that the process may have open",
                used.most_files,
            ),
            (
                "process_start_time_seconds",
                "Unix time at which the process started",
                used.start,
            ),
        ] {
            if let Some(value) = value {
                gauge(encoder, name, help, value)?;
            }
        }
        Ok(())
    }
}

/// Whether this replica leads.
fn leading(encoder: &mut DescriptorEncoder<'_>, standing: &Standing) -> Result {
    let standing = standing.view();
    gauge(
        encoder,
        "trimtab_leader",
        "1 while this replica leads, or is the only one",
        u64::from(standing.leads),
    )?;
    counter(
        encoder,
        "trimtab_leader_transitions",
        "How often this replica has begun or ceased to lead",
        standing.transitions,
    )
}

/// What `/proc` says of the process; there is none on other systems than Linux.
#[derive(Debug, PartialEq)]
struct Used {
    cpu_seconds: f64,
    resident: Option<f64>,
    virtual_memory: Option<f64>,
    threads: Option<f64>,
    open_files: Option<f64>,
    most_files: Option<f64>,
    start: Option<f64>,
}

impl Used {
    fn now() -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).ok();
        let open = std::fs::read_dir("/proc/self/fd").ok();
        Self::of(
            &read("self/stat")?,
            &read("self/status")?,
            &read("self/limits").unwrap_or_default(),
            &read("stat").unwrap_or_default(),
            open.map(|files| files.count() as f64),
        )
    }

    fn of(
        stat: &str,
        status: &str,
        limits: &str,
        machine: &str,
        open_files: Option<f64>,
    ) -> Option<Self> {
        // The name of the program, in brackets, may have blanks in it; what follows begins with the third field.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let value = |text: &str, name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let kilobytes = |name: &str| value(status, name).map(|n| n * 1024.0);
        let booted = value(machine, "btime ");
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
            resident: kilobytes("VmRSS:"),
            virtual_memory: kilobytes("VmSize:"),
            threads: value(status, "Threads:"),
            open_files,
            most_files: value(limits, "Max open files"),
            start: booted.and_then(|booted| Some(booted + ticks(22)? / TICKS)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4 5 0 0 0 150 50 0 0 20 0 9 0 1000 1 2 3";
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t 1024 kB\nThreads:\t9\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        let used = Used::of(stat, status, limits, "cpu 1\nbtime 1700000000\n", Some(3.0));
        let wanted = Used {
            cpu_seconds: 2.0,
            resident: Some(1_048_576.0),
            virtual_memory: Some(2_097_152.0),
            threads: Some(9.0),
            open_files: Some(3.0),
            most_files: Some(1024.0),
            start: Some(1_700_000_010.0),
        };
        assert_eq!(used, Some(wanted));
        assert_eq!(Used::of("garbage", "", "", "", None), None);
    }
}
