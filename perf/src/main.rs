//! The command line of the measuring tools; `tools/perf` builds and calls it.

#![allow(clippy::print_stdout, reason = "a command-line tool: its output is what it is for")]

mod crowd;
mod profiles;
mod run;
mod tools;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use ringway_perf::folder::{Folder, conditions_of_people, conditions_of_shards};
use ringway_perf::netns;
use ringway_perf::outcomes::{Outcome, Outcomes, Size};
use ringway_perf::people::Scenario as People;
use ringway_perf::shards::{Scenario as Shards, Settings as ShardSettings};

/// Measures the gateway beside its peers, in network namespaces.
#[derive(Parser)]
#[command(name = "ringway-perf")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure; needs root for namespaces.
    Run(run::RunArgs),
    /// Measure our gateway with very many clients, an attacker, several workers; needs root.
    Shards(ShardsArgs),
    /// Measure the service for people: sign-ins, API, changes, revocation, metrics; needs root.
    People(PeopleArgs),
    /// Tell where the time of a program goes; needs root and linux-perf.
    Profile(profiles::ProfileArgs),
    /// List the scenarios.
    List,
    /// Delete namespaces left behind by runs that no longer live.
    Sweep,
    #[command(flatten)]
    Tool(tools::Tool),
}

#[derive(clap::Args)]
struct ShardsArgs {
    /// Scenarios; all when none is given.
    scenarios: Vec<String>,
    /// Worker counts to measure, by comma.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<u16>,
    /// Repetitions.
    #[arg(long, short = 'n', default_value_t = 1)]
    repetitions: u32,
    /// Further flags of the gateway, such as "--driver epoll".
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    flags: String,
    /// The small size, as in tests.
    #[arg(long)]
    small: bool,
    /// Folder in which a dated result folder is made.
    #[arg(long, default_value = "perf/results")]
    results: PathBuf,
    /// Print only; write no result folder.
    #[arg(long)]
    dry: bool,
}

#[derive(clap::Args)]
struct PeopleArgs {
    /// Scenarios; all when none is given.
    scenarios: Vec<String>,
    /// Repetitions.
    #[arg(long, short = 'n', default_value_t = 1)]
    repetitions: u32,
    /// The small size, as in tests.
    #[arg(long)]
    small: bool,
    /// Folder in which a dated result folder is made.
    #[arg(long, default_value = "perf/results")]
    results: PathBuf,
    /// Print only; write no result folder.
    #[arg(long)]
    dry: bool,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => args.run(),
        Command::Shards(args) => shards(&args),
        Command::People(args) => people(&args),
        Command::Profile(args) => args.run(),
        Command::List => {
            run::list();
            Shards::ALL.iter().for_each(|scenario| println!("shards {}", scenario.name()));
            People::ALL.iter().for_each(|scenario| println!("people {}", scenario.name()));
            Ok(())
        }
        Command::Sweep => {
            println!("{} namespaces deleted", netns::sweep());
            Ok(())
        }
        Command::Tool(tool) => tool.run(),
    }
}

fn shards(args: &ShardsArgs) -> Result<()> {
    netns::sweep();
    let folder = if args.dry { None } else { Some(Folder::create(&args.results)?) };
    let mut outcomes = Outcomes::default();
    for repetition in 1..=args.repetitions {
        for scenario in chosen(&Shards::ALL, |one| one.name(), &args.scenarios)? {
            for &workers in &args.workers {
                if !scenario.is_for(workers, &args.workers) {
                    continue;
                }
                let size = if args.small { Size::Small } else { Size::Full };
                let settings = ShardSettings { workers, flags: args.flags.clone(), size };
                let rows = match scenario.run(&settings) {
                    Ok(rows) => rows,
                    Err(error) => {
                        println!("{}: FAILED {error:#}", scenario.name());
                        continue;
                    }
                };
                rows.iter().for_each(|row| show(scenario.name(), row));
                outcomes.push(scenario.name(), repetition, rows);
                if let Some(folder) = &folder {
                    outcomes.write(folder.path(), &conditions_of_shards())?;
                }
            }
        }
    }
    if let Some(folder) = &folder {
        println!("written to {}", folder.path().display());
    }
    let broken: Vec<String> = outcomes.broken().collect();
    ensure!(broken.is_empty(), "{} invariants do not hold", broken.len());
    Ok(())
}

fn people(args: &PeopleArgs) -> Result<()> {
    netns::sweep();
    let folder = if args.dry { None } else { Some(Folder::named(&args.results, "people")?) };
    let size = if args.small { Size::Small } else { Size::Full };
    let (mut outcomes, mut failed) = (Outcomes::default(), Vec::new());
    for repetition in 1..=args.repetitions {
        for scenario in chosen(&People::ALL, |one| one.name(), &args.scenarios)? {
            match scenario.run(size) {
                Ok(rows) => {
                    rows.iter().for_each(|row| show(scenario.name(), row));
                    outcomes.push(scenario.name(), repetition, rows);
                }
                Err(error) => {
                    println!("{}: FAILED {error:#}", scenario.name());
                    failed.push(format!("{}: {error:#}", scenario.name()));
                }
            }
            if let Some(folder) = &folder {
                outcomes.write(folder.path(), &conditions_of_people(&failed))?;
            }
        }
    }
    if let Some(folder) = &folder {
        println!("written to {}", folder.path().display());
    }
    let broken = outcomes.broken().count();
    ensure!(broken == 0, "{broken} invariants do not hold");
    ensure!(failed.is_empty(), "{} scenarios were not measured", failed.len());
    Ok(())
}

fn show(scenario: &str, row: &Outcome) {
    print!("{scenario:<10} {:<44}", row.variant);
    row.figures.iter().for_each(|figure| print!(" {} {:.2};", figure.name, figure.value));
    println!();
    row.broken().for_each(|says| println!("          DOES NOT HOLD: {says}"));
}

/// Those of `all` with these names, or all if none is named.
fn chosen<T: Copy>(
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
    names: &[String],
) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |name: &String| {
        let found = all.iter().copied().find(|scenario| name_of(*scenario) == name);
        found.with_context(|| format!("No scenario is called {name:?}"))
    };
    names.iter().map(find).collect()
}
