//! Where the time of the programs goes, scenario by scenario, from the command line to a folder.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use ringway_perf::folder::{Folder, conditions};
use ringway_perf::programs::Program;
use ringway_perf::report::Figure;
use ringway_perf::scenarios::{Scenario, Settings};
use ringway_perf::topology::Family;
use ringway_perf::{netns, profile};

use crate::run::{chosen_client, chosen_scenarios};

/// The scenarios that a goal is about and where a stage could hide.
const USUAL: [&str; 7] = [
    "tcp-4-up",
    "tcp-4-down",
    "flood-1360-merged",
    "flood-1360-single",
    "flood-64-single",
    "encrypt-64-single",
    "rr-tcp",
];

/// What a table may be about, and in which unit it is told.
const COSTS: [(&str, &str); 2] = [("µs/packet", "µs per packet"), ("CPU-s/GB", "CPU-s per GB")];

#[derive(clap::Args)]
pub(crate) struct ProfileArgs {
    /// Scenario names or their beginnings; without any those that have targets.
    scenarios: Vec<String>,
    /// Servers, by comma.
    #[arg(long, value_delimiter = ',', default_value = "ringway")]
    servers: Vec<String>,
    /// The client, as for a measurement.
    #[arg(long)]
    client: Option<String>,
    /// Seconds sampled.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Folder in which a dated result folder is made.
    #[arg(long, default_value = "perf/results")]
    results: PathBuf,
}

impl ProfileArgs {
    pub(crate) fn run(&self) -> Result<()> {
        netns::sweep();
        let client = chosen_client(self.client.as_deref())?;
        let settings = Settings {
            client,
            omitted_s: 1,
            measured_s: self.seconds.max(1),
            outside: Family::V4,
            inside: Family::V4,
            quick: false,
        };
        let servers =
            self.servers.iter().map(|name| Program::named(name)).collect::<Result<Vec<_>>>()?;
        let usual = USUAL.map(String::from);
        let names = if self.scenarios.is_empty() { &usual[..] } else { &self.scenarios };
        let folder = Folder::create(&self.results)?;
        let conditions = conditions(&servers, client);
        let conditions = conditions.replacen("`tools/perf ", "`tools/perf profile ", 1);
        let mut text = format!("{conditions}\n{ABOUT}");
        profile::want();
        for scenario in chosen_scenarios(names, false)? {
            for &server in servers.iter().filter(|server| scenario.is_for(**server)) {
                let section = section(scenario, server, &settings)?;
                print!("{section}");
                text.push_str(&section);
                fs::write(folder.path().join("README.md"), &text).context("Writing README.md")?;
            }
        }
        println!("written to {}", folder.path().display());
        Ok(())
    }
}

const ABOUT: &str = "Where the time goes: samples of the stacks of the measured process, each given \
                     to the first stage on its way outwards. One repetition each; sampling itself \
                     is in the figures, so that they are no result beside `tools/perf`.\n\n";

fn section(scenario: Scenario, server: Program, settings: &Settings) -> Result<String> {
    let figures = scenario.measure(server, settings)?;
    let find = |name: &str| figures.iter().find(|figure| figure.name == name);
    let cost = COSTS.iter().find_map(|(name, unit)| Some((find(name)?.value, *unit)));
    let (cost, unit) = cost.unwrap_or_else(|| {
        (find("core used").map_or(1.0, |figure: &Figure| figure.value), "of a core")
    });
    let mut text = format!("### {} {server}\n\n", scenario.name());
    for figure in &figures {
        let _infallible = write!(text, "{} {:.2}; ", figure.name, figure.value);
    }
    text.truncate(text.trim_end_matches("; ").len());
    let _infallible = write!(text, "\n\n{}\n", profile::last()?.table(cost, unit));
    Ok(text)
}
