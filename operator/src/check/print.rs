//! A report as text. Pure.

use std::fmt::Write as _;

use super::finding::{Finding, Report, Severity};

/// Columns before the text of a line.
const SEVERITY: usize = 8;
const CHECK: usize = 14;

/// What is well first, then faults with what to do, then how many there are.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // A string takes whatever is written to it.
    for passed in &report.ok {
        let _ = writeln!(
            out,
            "{:<SEVERITY$} {:<CHECK$} {}",
            "ok", passed.check, passed.message
        );
    }
    for finding in &report.findings {
        let _ = write!(out, "\n{}", of(finding));
    }
    if !report.findings.is_empty() {
        let counts = [Severity::Error, Severity::Warning, Severity::Info].map(|severity| {
            let number = report
                .findings
                .iter()
                .filter(|f| f.severity == severity)
                .count();
            format!("{number} {}", severity.as_str())
        });
        let _ = writeln!(out, "\nfound: {}", counts.join(", "));
    }
    out
}

fn of(finding: &Finding) -> String {
    let Finding {
        severity,
        code,
        object,
        field,
        message,
        fix,
        link,
    } = finding;
    let field = Some(field).filter(|field| !field.is_empty());
    let field = field.map_or_else(String::new, |field| format!(", {field}"));
    format!(
        "{:<SEVERITY$} {code}  {object}{field}\n         {message}\n    fix: {fix}\n    see: {link}\n",
        severity.as_str()
    )
}
