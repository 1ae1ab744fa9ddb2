//! The command line of the measuring tools; `tools/perf` builds and calls it.

#![allow(clippy::print_stdout, reason = "a command-line tool: its output is what it is for")]

mod crowd;
mod tools;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

use ringway_perf::netns;
use ringway_perf::programs::Program;
use ringway_perf::report::{Folder, Results, Sample, conditions_of_shards, verdicts};
use ringway_perf::scenarios::{Scenario, Settings};
use ringway_perf::shards::report::Outcomes;
use ringway_perf::shards::{Outcome, Scenario as Shards, Settings as ShardSettings, Size};
use ringway_perf::topology::Family;

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
    Run(RunArgs),
    /// Measure our gateway with very many clients, an attacker, several workers; needs root.
    Shards(ShardsArgs),
    /// List the scenarios.
    List,
    /// Delete namespaces left behind by runs that no longer live.
    Sweep,
    #[command(flatten)]
    Tool(tools::Tool),
}

#[derive(clap::Args)]
struct RunArgs {
    /// Scenario names or their beginnings (`tcp`, `tcp-4`); all when none is given.
    scenarios: Vec<String>,
    /// Repetitions; programs are interleaved within each.
    #[arg(long, short = 'n', default_value_t = 3)]
    repetitions: u32,
    /// Servers to measure, by comma; default: all that are installed.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// The client, the same for all; default: the newest wireguard-go there is.
    #[arg(long)]
    client: Option<String>,
    /// Seconds of warm-up of each measurement.
    #[arg(long, default_value_t = 1)]
    omit: u32,
    /// Seconds measured.
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// IPv6 outside.
    #[arg(long)]
    outside_v6: bool,
    /// IPv6 inside.
    #[arg(long)]
    inside_v6: bool,
    /// Folder in which a dated result folder is made.
    #[arg(long, default_value = "perf/results")]
    results: PathBuf,
    /// Print only; write no result folder.
    #[arg(long)]
    dry: bool,
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

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Shards(args) => shards(&args),
        Command::List => {
            Scenario::all().iter().for_each(|scenario| println!("{}", scenario.name()));
            Shards::ALL.iter().for_each(|scenario| println!("shards {}", scenario.name()));
            Ok(())
        }
        Command::Sweep => {
            println!("{} namespaces deleted", netns::sweep());
            Ok(())
        }
        Command::Tool(tool) => tool.run(),
    }
}

fn run(args: &RunArgs) -> Result<()> {
    netns::sweep();
    let servers = chosen_servers(&args.servers)?;
    let scenarios = chosen_scenarios(&args.scenarios)?;
    let family = |v6| if v6 { Family::V6 } else { Family::V4 };
    let settings = Settings {
        client: chosen_client(args.client.as_deref())?,
        omitted_s: args.omit,
        measured_s: args.seconds,
        outside: family(args.outside_v6),
        inside: family(args.inside_v6),
    };
    let folder = if args.dry { None } else { Some(Folder::create(&args.results)?) };

    let mut results = Results::default();
    for repetition in 1..=args.repetitions {
        for scenario in &scenarios {
            for &program in &servers {
                let figures = match scenario.measure(program, &settings) {
                    Ok(figures) => figures,
                    Err(error) => {
                        println!("{repetition} {} {program}: FAILED {error:#}", scenario.name());
                        continue;
                    }
                };
                print!("{repetition} {:<22} {:<17}", scenario.name(), program.name());
                figures.iter().for_each(|figure| print!(" {} {:.2}", figure.name, figure.value));
                println!();
                let scenario = scenario.name();
                results.push(Sample { scenario, program, repetition, figures });
                if let Some(folder) = &folder {
                    folder.write(&results, &servers)?;
                }
            }
        }
    }
    println!("\n{}", results.markdown());
    for scenario in results.scenarios() {
        verdicts(&results.rows(&scenario)).iter().for_each(|line| println!("{scenario}: {line}"));
    }
    if let Some(folder) = &folder {
        println!("written to {}", folder.path().display());
    }
    Ok(())
}

fn shards(args: &ShardsArgs) -> Result<()> {
    netns::sweep();
    let folder = if args.dry { None } else { Some(Folder::create(&args.results)?) };
    let mut outcomes = Outcomes::default();
    for repetition in 1..=args.repetitions {
        for scenario in chosen_shards(&args.scenarios)? {
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
                rows.iter().for_each(|row| show(scenario, row));
                outcomes.push(scenario, repetition, rows);
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

fn show(scenario: Shards, row: &Outcome) {
    print!("{:<9} {:<44}", scenario.name(), row.variant);
    row.figures.iter().for_each(|figure| print!(" {} {:.2};", figure.name, figure.value));
    println!();
    row.broken().for_each(|says| println!("          DOES NOT HOLD: {says}"));
}

fn chosen_shards(names: &[String]) -> Result<Vec<Shards>> {
    if names.is_empty() {
        return Ok(Shards::ALL.to_vec());
    }
    let find = |name: &String| {
        let found = Shards::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.with_context(|| format!("No scenario is called {name:?}"))
    };
    names.iter().map(find).collect()
}

fn chosen_servers(names: &[String]) -> Result<Vec<Program>> {
    if names.is_empty() {
        let installed: Vec<Program> =
            Program::ALL.into_iter().filter(|program| program.find().is_some()).collect();
        return Ok(installed);
    }
    names.iter().map(|name| Program::named(name)).collect()
}

fn chosen_client(name: Option<&str>) -> Result<Program> {
    if let Some(name) = name {
        return Program::named(name);
    }
    let newest = [Program::WireguardGoNew, Program::WireguardGo, Program::Gotatun];
    match newest.into_iter().find(|program| program.find().is_some()) {
        Some(program) => Ok(program),
        None => bail!("No stock client is installed; `tools/setup demo` installs one"),
    }
}

fn chosen_scenarios(names: &[String]) -> Result<Vec<Scenario>> {
    let all = Scenario::all();
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        let exact = all.iter().any(|scenario| scenario.name() == *name);
        chosen.extend(all.iter().filter(|scenario| match exact {
            true => scenario.name() == *name,
            false => scenario.name().starts_with(name.as_str()),
        }));
        if chosen.len() == before {
            bail!("No scenario begins with {name:?}; `ringway-perf list` shows them");
        }
    }
    Ok(chosen)
}
