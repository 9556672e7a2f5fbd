//! What a migration says, and how it is printed.

use serde::Serialize;
use serde_json::Value;

use crate::manifests;

/// The whole of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// From what to what.
    pub title: String,
    /// What stays as it is.
    pub stays: Vec<Line>,
    /// What changes by itself, or is not needed any more.
    pub changes: Vec<Line>,
    /// What somebody has to decide.
    pub decisions: Vec<Decision>,
    /// Values of the chart.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub values: Value,
    /// Objects to apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Value>,
    /// What to do, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What could not be read, so that the rest may lack something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_read: Vec<String>,
}

/// What is so of some objects or keys.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Kind, place or key of each.
    pub what: Vec<String>,
    /// What becomes of them, and why.
    pub why: String,
}

/// A choice.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// Object or key.
    pub what: String,
    /// What is at stake.
    pub why: String,
    /// What can be done.
    pub choices: Vec<String>,
}

/// A step.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What is done.
    pub title: String,
    /// What holds after it.
    pub after: String,
    /// Commands in order.
    pub commands: Vec<String>,
    /// How to get back from here.
    pub back: Vec<String>,
}

impl Report {
    /// What stays; nothing is said of nothing.
    pub fn stay(&mut self, what: Vec<String>, why: impl Into<String>) {
        add(&mut self.stays, what, why.into());
    }

    /// What changes.
    pub fn change(&mut self, what: Vec<String>, why: impl Into<String>) {
        add(&mut self.changes, what, why.into());
    }

    /// What needs a decision.
    pub fn decide(&mut self, what: impl Into<String>, why: impl Into<String>, choices: &[&str]) {
        let decision = Decision {
            what: what.into(),
            why: why.into(),
            choices: choices.iter().map(|&c| c.to_owned()).collect(),
        };
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }

    /// Adds a step.
    pub fn step(&mut self, title: &str, after: &str, commands: Vec<String>, back: &[&str]) {
        self.steps.push(Step {
            title: title.to_owned(),
            after: after.to_owned(),
            commands,
            back: back.iter().map(|&b| b.to_owned()).collect(),
        });
    }

    /// For people.
    pub fn text(&self) -> anyhow::Result<String> {
        let mut out = self.head();
        if !self.values.is_null() {
            section(&mut out, "4. values.yaml of the chart trimtab");
            indent(&mut out, &manifests::yaml(&self.values)?);
        }
        if !self.objects.is_empty() {
            section(&mut out, "Objects to apply");
            for object in &self.objects {
                indent(&mut out, &format!("---\n{}", manifests::yaml(object)?));
            }
        }
        self.tail(&mut out);
        Ok(out)
    }

    /// The objects as `kubectl` takes them; all words are comments.
    pub fn commented(&self) -> anyhow::Result<String> {
        let mut words = self.head();
        self.tail(&mut words);
        let mut out = String::new();
        for line in words.lines() {
            out.push_str(format!("# {line}").trim_end());
            out.push('\n');
        }
        for object in &self.objects {
            out.push_str("---\n");
            out.push_str(&manifests::yaml(object)?);
        }
        Ok(out)
    }

    fn head(&self) -> String {
        let mut out = format!("{}\nNothing was changed.\n", self.title);
        let lines = [
            ("1. What stays as it is", &self.stays),
            ("2. What changes", &self.changes),
        ];
        for (title, lines) in lines {
            section(&mut out, title);
            for line in lines {
                line.print(&mut out);
            }
            nothing(&mut out, lines.is_empty());
        }
        section(&mut out, "3. What needs a decision");
        let decisions = &self.decisions;
        for decision in decisions {
            decision.print(&mut out);
        }
        nothing(&mut out, decisions.is_empty());
        out
    }

    fn tail(&self, out: &mut String) {
        if !self.steps.is_empty() {
            section(out, "5. Steps, in this order");
        }
        for (i, step) in self.steps.iter().enumerate() {
            step.print(i + 1, out);
        }
        if !self.not_read.is_empty() {
            section(out, "Not read, so that this may lack something");
            for line in &self.not_read {
                indent(out, line);
            }
        }
    }
}

/// So many objects of a line are named.
const NAMED: usize = 8;

impl Line {
    fn print(&self, out: &mut String) {
        let named = self.what.iter().take(NAMED);
        let named: Vec<&str> = named.map(String::as_str).collect();
        let more = match self.what.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        indent(out, &format!("{}{more}", named.join(", ")));
        indent(out, &format!("  {}", self.why));
    }
}

impl Decision {
    fn print(&self, out: &mut String) {
        indent(out, &self.what);
        indent(out, &format!("  {}", self.why));
        for choice in &self.choices {
            indent(out, &format!("  - {choice}"));
        }
    }
}

impl Step {
    fn print(&self, number: usize, out: &mut String) {
        indent(out, &format!("{number}. {}", self.title));
        for command in &self.commands {
            for line in command.lines() {
                indent(out, &format!("     {line}"));
            }
        }
        if !self.after.is_empty() {
            indent(out, &format!("   After it: {}", self.after));
        }
        for back in &self.back {
            indent(out, &format!("   Back: {back}"));
        }
    }
}

fn add(list: &mut Vec<Line>, what: Vec<String>, why: String) {
    if what.is_empty() {
        return;
    }
    match list.iter_mut().find(|line| line.why == why) {
        Some(line) => {
            line.what.extend(what);
            line.what.dedup();
        }
        None => list.push(Line { what, why }),
    }
}

fn section(out: &mut String, title: &str) {
    for part in ["\n", title, "\n"] {
        out.push_str(part);
    }
}

fn nothing(out: &mut String, is_empty: bool) {
    if is_empty {
        indent(out, "nothing");
    }
}

fn indent(out: &mut String, text: &str) {
    for line in text.lines() {
        for part in ["  ", line, "\n"] {
            out.push_str(part);
        }
    }
}

/// `Kind place` of each.
pub fn titled(kind: &str, places: Vec<String>) -> Vec<String> {
    let places = places.into_iter();
    places.map(|place| format!("{kind} {place}")).collect()
}

/// Namespace of the release, as everywhere in the documents.
pub const INSTALL: &str = trimtab_crds::NAMESPACE;

/// The command that saves objects of all namespaces.
pub fn saved(kinds: &str, file: &str) -> String {
    format!("kubectl get {kinds} --all-namespaces --output yaml > {file}")
}

/// A saved object, or with `list` a list of objects, as it can be written again.
pub fn again(file: &str, list: bool) -> String {
    let indent = if list { "    " } else { "  " };
    format!("sed -E '/^{indent}(resourceVersion|uid):/d' {file}")
}

/// The command that takes the chart away.
pub fn uninstall() -> String {
    format!("helm uninstall trimtab --namespace {INSTALL}")
}

/// The commands that install the chart with these values.
pub fn install() -> Vec<String> {
    vec![
        format!("helm install trimtab charts/trimtab --namespace {INSTALL} --values values.yaml"),
        format!("kubectl --namespace {INSTALL} rollout status deployment/trimtab"),
    ]
}
