//! A result folder: samples, tables, targets, comparison, plots, and the circumstances beside them.
//!
//! It is complete in itself: command line, date, kernel, processor and versions stand beside the
//! figures, and what is missing is told.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::compare::{self, Circumstances, Earlier};
use crate::process::Launch;
use crate::programs::{Program, find_in_path};
use crate::report::Results;
use crate::{charts, model, targets};

/// `results/DATE-HOST`, or with a number appended when that exists.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a fresh folder under `parent`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(parent: &Path) -> Result<Self> {
        Self::make(parent, &host())
    }

    /// As [`Folder::create`], with what it is about behind the host.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn named(parent: &Path, about: &str) -> Result<Self> {
        Self::make(parent, &format!("{}-{about}", host()))
    }

    fn make(parent: &Path, name: &str) -> Result<Self> {
        let date = first_line("date", &["+%Y-%m-%d"]);
        let mut path = parent.join(format!("{date}-{name}"));
        let mut number = 2;
        while path.exists() {
            path = parent.join(format!("{date}-{name}-{number}"));
            number += 1;
        }
        fs::create_dir_all(&path).with_context(|| format!("Creating {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything; called after each sample, so that an interrupted run keeps what it has.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, results: &Results, text: &str) -> Result<()> {
        let lines: String =
            results.samples().iter().map(|sample| format!("{}\n", sample.json())).collect();
        let write = |name: &str, text: &str| {
            fs::write(self.path.join(name), text).with_context(|| format!("Writing {name}"))
        };
        write("samples.jsonl", &lines)?;
        write("README.md", text)?;
        charts::all(results).iter().try_for_each(|chart| write(chart.file, &chart.svg))
    }
}

/// The README of a run.
#[must_use]
pub fn readme(
    conditions: &str,
    client: Program,
    results: &Results,
    earlier: Option<&Earlier>,
) -> String {
    let mut text = format!("{conditions}\n{}", targets::table(results));
    match earlier {
        Some(earlier) => {
            let client = client.name().to_owned();
            let now = Circumstances { processor: processor(), client };
            text.push_str(&compare::table(results, earlier, &now));
        }
        None => text.push_str("## Compared\n\nThere is no earlier result.\n\n"),
    }
    text.push_str("## Plots\n\n");
    for chart in charts::all(results) {
        let _ = writeln!(text, "![{}]({})\n", chart.title, chart.file);
    }
    text.push_str(&model::table(results));
    text.push_str("## All figures\n\n");
    text.push_str(&results.markdown());
    if !results.failures().is_empty() {
        text.push_str("## Not measured\n\n");
        results.failures().iter().for_each(|failure| {
            let _ = writeln!(text, "- {}", failure.replace('\n', " "));
        });
    }
    text
}

/// The name of this machine.
#[must_use]
pub fn host() -> String {
    first_line("uname", &["-n"])
}

/// The circumstances: command, date, machine, versions, what is missing.
#[must_use]
pub fn conditions(programs: &[Program], client: Program) -> String {
    let mut text = machine("tools/perf");
    for program in programs.iter().filter(|program| !Program::VARIANTS.contains(program)) {
        let _ = writeln!(text, "- {program}: {}", program.version());
    }
    let note = if client.is_ours() {
        " (no neutral one that merges datagrams is installed; it is the same for all servers)"
    } else if client == Program::WireguardGoNew {
        ""
    } else {
        " (sends single datagrams: TCP costs every server more than behind a newer client)"
    };
    let _ = writeln!(text, "- client of the TCP and round-trip scenarios: {client}{note}");
    for line in missing(programs) {
        let _ = writeln!(text, "- not measured: {line}");
    }
    text.push_str(
        "\nServer alone on CPU 1; client and both traffic ends on CPU 0; namespaces cli – gw – dst, \
         veth offloads at default, cubic. Programs interleaved, median (min–max) of the \
         repetitions. \"single\" datagrams are split before the wire by the generator's kernel (no \
         UDP segmentation on its link). CPU time is user plus system time of the server and its \
         children, soft interrupts in its context included. ringway-2-workers shares both CPUs \
         with its load: its CPU time is the figure to read, not its rate.\n",
    );
    text
}

/// What this run does without, each with the reason.
#[must_use]
pub fn missing(programs: &[Program]) -> Vec<String> {
    let mut lines = Vec::new();
    let peers = Program::PEERS.into_iter().chain(Program::OTHERS);
    for peer in peers.filter(|peer| !programs.contains(peer)) {
        let superseded =
            peer == Program::WireguardGo && programs.contains(&Program::WireguardGoNew);
        let why = match peer.find() {
            Some(_) if superseded => "there is a newer one",
            Some(_) => "not asked for",
            None => "not installed",
        };
        lines.push(format!("{peer} ({why})"));
    }
    if find_in_path(&["netperf"]).is_none() {
        lines.push("netperf's view of the round trips (not installed)".to_owned());
    }
    lines
}

/// As [`conditions`], for scenarios with a fleet.
#[must_use]
pub fn conditions_of_shards() -> String {
    let mut text = machine("tools/perf shards");
    let _ = writeln!(text, "- ringway: {}", Program::Ringway.version());
    text.push_str(
        "\nNamespaces cli – gw – dst, veth offloads at default. Clients are a fleet of our own that \
         speaks the real protocol, each from its own source address. With one worker the gateway is \
         alone on CPU 1 and all else on CPU 0; with more, gateway and load share the machine, so \
         that processor time is the figure to read. \"single\" datagrams were never merged, \
         \"merged\" ones leave as GSO trains. Times of handshakes run from the first initiation \
         to the response, repetitions (every 5 s) included.\n",
    );
    text
}

/// As [`conditions`], for the service for people; `failed` says what could not be measured.
#[must_use]
pub fn conditions_of_people(failed: &[String]) -> String {
    let mut text = machine("tools/perf people");
    let program = Program::Ringway.find().unwrap_or_default();
    // Where this tree lies on one machine says nothing to anybody.
    let here = std::env::current_dir().unwrap_or_default();
    let place = program.strip_prefix(here).unwrap_or(&program).display();
    let _ = writeln!(text, "- ringway: {} ({place})", Program::Ringway.version());
    text.push_str(
        "\nNamespaces cli – gw – dst. On two CPUs: one worker on CPU 1, from which the gateway keeps \
         its other threads (control, API, store, passwords) away; these, clients, the ends of \
         traffic and whoever asks share CPU 0. Records are in SQLite. Unless told otherwise the API \
         is asked as root over the Unix socket, which has no allowance, over connections that are \
         kept.\n",
    );
    failed.iter().for_each(|failure| {
        let _ = writeln!(text, "\n- not measured: {}", failure.replace('\n', " "));
    });
    text
}

/// Its model and how many CPUs there are.
fn processor() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cpus} CPUs", model.trim_start_matches([' ', '\t', ':']))
}

fn machine(tool: &str) -> String {
    let command: Vec<String> = std::env::args().skip(2).collect(); // the program and its verb
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let changed = first_line("git", &["status", "--porcelain", "--untracked-files=no"]);
    let changed = if changed == "unknown" { "" } else { " and changes that are not committed" };
    format!(
        "# Measured {}\n\n- command: `{tool} {}`\n- kernel: {}\n- processor: {}\n\
         - commit: {}{changed}\n- load average when written (1, 5, 15 minutes): {}\n",
        first_line("date", &["+%Y-%m-%d %H:%M %Z"]),
        command.join(" "),
        first_line("uname", &["-srm"]),
        processor(),
        first_line("git", &["rev-parse", "--short", "HEAD"]),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}

fn first_line(program: &str, args: &[&str]) -> String {
    let text = Launch::new(program).args(args.iter().copied()).run().unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
