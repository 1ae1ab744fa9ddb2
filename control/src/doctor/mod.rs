//! `ringway doctor`: what of this machine is used, what is missing, and the command that fixes it.
//!
//! Each check looks at one thing and gives a [`Finding`]. Nothing is changed and nothing stays:
//! looking needs no privileges, and where a look needs one, the finding says so. `kernel` asks what
//! the kernel can do, `workers` what workers get from it, `host` what the process may do and how
//! the host is set, `secrets` whether keys can get out, `certificates` how long they are good,
//! `api` whether its addresses are here, `machine` where workers and network cards are.

mod certificates;
mod doors;
mod host;
mod kernel;
mod machine;
mod secrets;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ringway_ring::Features;
use serde::Serialize;

use crate::config::Config;
use crate::gateway::without;
use crate::store::ids::Timestamp;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There, and used.
    Ok,
    /// Works, and could be better.
    Advice,
    /// Missing or in the way: something will not work.
    Missing,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Group of checks, such as `kernel`.
    pub area: &'static str,
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What is used, or what is missing and what follows from it.
    pub text: String,
    /// The command or change that fixes it.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(area: &'static str, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { area, name: name.into(), state: State::Ok, text: text.into(), fix: None }
    }

    fn missing(
        area: &'static str,
        name: impl Into<String>,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let fix = Some(fix.into());
        Self { area, name: name.into(), state: State::Missing, text: text.into(), fix }
    }

    fn advice(
        area: &'static str,
        name: impl Into<String>,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { state: State::Advice, ..Self::missing(area, name, text, fix) }
    }
}

/// Looks at everything, for the gateway of this configuration.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let files = Files::default();
    // What workers would get: nothing that is left out is tried or named as used.
    let mut features = Features::probe();
    without::hide(&mut features, config.workers.without);
    let mut findings = kernel::examine();
    findings.extend(workers::examine(config, &features));
    findings.extend(host::examine(&files, config));
    findings.extend(secrets::examine(&files, config));
    let now = Timestamp(jiff::Timestamp::now().as_millisecond());
    findings.extend(certificates::examine(config, now));
    findings.extend(doors::examine(config));
    findings.extend(machine::examine(&files, config));
    findings
}

/// Whether something is missing.
#[must_use]
pub fn is_missing_something(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Missing)
}

/// The findings for people, area by area.
#[must_use]
pub fn show(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            let _ = writeln!(out, "{}{area}", if out.is_empty() { "" } else { "\n" });
        }
        let mark = match finding.state {
            State::Ok => "ok     ",
            State::Advice => "advice ",
            State::Missing => "MISSING",
        };
        let _ = writeln!(out, "  {mark} {}: {}", finding.name, finding.text);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(out, "          fix: {fix}");
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (missing, advice) = (count(State::Missing), count(State::Advice));
    let _ = writeln!(out, "\n{missing} missing, {advice} could be better");
    out
}

/// The findings as JSON.
#[must_use]
pub fn json(findings: &[Finding]) -> String {
    let missing = is_missing_something(findings);
    let value = serde_json::json!({ "ok": !missing, "findings": findings });
    format!("{value:#}\n")
}

/// Files of the kernel, under a root that tests replace.
#[derive(Clone, Debug)]
struct Files {
    root: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl Files {
    /// A file's text without the white space around it; `None` if it cannot be read.
    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that holds one number.
    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(Path::new(path).strip_prefix("/").unwrap_or_else(|_| Path::new(path)))
    }
}
