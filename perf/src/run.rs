//! Measuring beside peers, from the command line to the result folder.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use ringway_perf::compare::Earlier;
use ringway_perf::folder::{Folder, conditions, host, missing, readme};
use ringway_perf::netns;
use ringway_perf::programs::Program;
use ringway_perf::report::{Figure, Results, Sample};
use ringway_perf::scenarios::{Scenario, Settings};
use ringway_perf::topology::Family;

/// What the README of a smoke run says.
const QUICK: &str = "\n**A smoke run: seconds instead of minutes, one peer. It shows that the \
                     scenarios run; its figures are no result.**\n";

#[derive(clap::Args, Default)]
pub(crate) struct RunArgs {
    /// Scenario names or their beginnings (`tcp`, `tcp-4`); all when none is given.
    scenarios: Vec<String>,
    /// Repetitions, 3 by default; programs are interleaved within each.
    #[arg(long, short = 'n')]
    repetitions: Option<u32>,
    /// A smoke run: one repetition of a second, ours and one peer, without the longest scenarios.
    #[arg(long)]
    quick: bool,
    /// Servers to measure, by comma; default: all that are installed, and ours in all shapes.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// The client, the same for all; default: `wireguard-go-new` if that is installed, else ours.
    #[arg(long)]
    client: Option<String>,
    /// Seconds of warm-up of each measurement.
    #[arg(long, default_value_t = OMITTED_S)]
    omit: u32,
    /// Seconds measured, 2 by default.
    #[arg(long)]
    seconds: Option<u32>,
    /// IPv6 outside, where a stock client or the generator is the client.
    #[arg(long)]
    outside_v6: bool,
    /// IPv6 inside, where a stock client or the generator is the client.
    #[arg(long)]
    inside_v6: bool,
    /// Folder in which a dated result folder is made.
    #[arg(long, default_value = "perf/results")]
    results: PathBuf,
    /// Result folder to compare with; default: the latest one of this machine.
    #[arg(long)]
    compare: Option<PathBuf>,
    /// Print only; write no result folder.
    #[arg(long)]
    dry: bool,
}

/// Repetitions and seconds of a complete run, so that it takes an hour.
const REPETITIONS: u32 = 3;
const MEASURED_S: u32 = 2;
const OMITTED_S: u32 = 1;

/// One measurement that is to be made.
#[derive(Clone, Copy)]
struct Step {
    repetition: u32,
    scenario: Scenario,
    program: Program,
}

impl RunArgs {
    pub(crate) fn run(&self) -> Result<()> {
        netns::sweep();
        let servers = self.chosen_servers()?;
        let settings = self.settings()?;
        let steps = self.steps(&servers)?;
        let folder = if self.dry { None } else { Some(Folder::create(&self.results)?) };
        let own = folder.as_ref().map(Folder::path);
        let earlier = match &self.compare {
            Some(path) => Some(Earlier::read(path)?),
            None => Earlier::latest(&self.results, own, &host()),
        };
        missing(&servers).iter().for_each(|line| println!("not measured: {line}"));

        let mut results = Results::default();
        let text = |results: &Results| {
            let quick = if self.quick { QUICK } else { "" };
            let conditions = conditions(&servers, settings.client);
            readme(&format!("{conditions}{quick}"), settings.client, results, earlier.as_ref())
        };
        let estimates: Vec<f64> =
            steps.iter().map(|step| step.scenario.estimate_s(step.program, &settings)).collect();
        let minutes = estimates.iter().sum::<f64>() / 60.0;
        println!("{} measurements, about {minutes:.0} minutes", steps.len());
        let start = Instant::now();
        for (done, step) in steps.iter().enumerate() {
            let left = left(start.elapsed(), estimates.split_at(done));
            print!("[{:>3}/{}, {left:.0} min left] ", done + 1, steps.len());
            step.measure(&settings, &mut results);
            if let Some(folder) = &folder {
                folder.write(&results, &text(&results))?;
            }
        }
        println!("\n{}", text(&results));
        if let Some(folder) = &folder {
            println!("written to {}", folder.path().display());
        }
        println!("took {:.1} minutes", start.elapsed().as_secs_f64() / 60.0);
        if !results.failures().is_empty() {
            bail!("{} of {} measurements failed", results.failures().len(), steps.len());
        }
        Ok(())
    }

    fn settings(&self) -> Result<Settings> {
        Ok(self.settings_for(chosen_client(self.client.as_deref())?))
    }

    fn settings_for(&self, client: Program) -> Settings {
        let family = |v6| if v6 { Family::V6 } else { Family::V4 };
        Settings {
            client,
            omitted_s: self.omit,
            measured_s: self.seconds.unwrap_or(if self.quick { 1 } else { MEASURED_S }).max(1),
            outside: family(self.outside_v6),
            inside: family(self.inside_v6),
            quick: self.quick,
        }
    }

    /// All measurements in their order: programs interleaved in each scenario, and the whole again.
    fn steps(&self, servers: &[Program]) -> Result<Vec<Step>> {
        let scenarios = chosen_scenarios(&self.scenarios, self.quick)?;
        let repetitions = self.repetitions.unwrap_or(if self.quick { 1 } else { REPETITIONS });
        let mut steps = Vec::new();
        for repetition in 1..=repetitions {
            for &scenario in &scenarios {
                let able = servers
                    .iter()
                    .filter(|program| times(scenario, **program, repetitions) >= repetition);
                steps.extend(able.map(|&program| Step { repetition, scenario, program }));
            }
        }
        if steps.is_empty() {
            bail!("None of these servers is measured in these scenarios");
        }
        Ok(steps)
    }

    fn chosen_servers(&self) -> Result<Vec<Program>> {
        if !self.servers.is_empty() {
            return self.servers.iter().map(|name| Program::named(name)).collect();
        }
        let mut servers = Program::by_default();
        if self.quick {
            // Beside ours the one that is hardest to beat without merging.
            let mut peers = Program::PEERS.to_vec();
            peers.retain(|peer| peer.find().is_some());
            peers.sort_by_key(|peer| *peer != Program::Boringtun);
            servers = [Program::Ringway].into_iter().chain(peers.into_iter().take(1)).collect();
        }
        Ok(servers)
    }
}

impl Step {
    fn measure(&self, settings: &Settings, results: &mut Results) {
        let Self { repetition, scenario, program } = *self;
        let (name, server, start) = (scenario.name(), program.name(), Instant::now());
        match scenario.measure(program, settings) {
            Ok(figures) => {
                let took_s = start.elapsed().as_secs_f64();
                let told = told(&figures);
                println!("{repetition} {name:<28} {server:<17} {took_s:.1} s:{told}");
                results.push(Sample { scenario: name, program, repetition, figures });
            }
            Err(error) => {
                println!("{repetition} {name:<28} {server:<17} FAILED {error:#}");
                results.fail(format!("{name} with {program}, repetition {repetition}: {error:#}"));
            }
        }
    }
}

fn told(figures: &[Figure]) -> String {
    figures.iter().map(|figure| format!(" {} {:.2};", figure.name, figure.value)).collect()
}

/// Minutes that are left, if the rest deviates from what was estimated as what was done did.
fn left(elapsed: Duration, (done, rest): (&[f64], &[f64])) -> f64 {
    let estimated: f64 = done.iter().sum();
    let slower = if estimated > 0.0 { elapsed.as_secs_f64() / estimated } else { 1.0 };
    rest.iter().sum::<f64>() * slower / 60.0
}

/// All scenarios with what a complete run spends on each, in minutes.
pub(crate) fn list() {
    let usual = RunArgs { omit: OMITTED_S, ..RunArgs::default() };
    let settings = usual.settings_for(Program::Ringway);
    let servers = Program::by_default();
    let mut minutes_in_all = 0.0;
    for scenario in Scenario::all() {
        let seconds_with = |server: &Program| {
            let times = times(scenario, *server, REPETITIONS);
            f64::from(times) * scenario.estimate_s(*server, &settings)
        };
        let minutes = servers.iter().map(seconds_with).sum::<f64>() / 60.0;
        minutes_in_all += minutes;
        println!("{:<28} {minutes:>4.1} min  {}", scenario.name(), scenario.about());
    }
    println!("{:<28} {minutes_in_all:>4.0} min  with {} programs", "all", servers.len());
}

/// How often a program is measured.
const fn times(scenario: Scenario, program: Program, repetitions: u32) -> u32 {
    match (scenario.is_for(program), scenario.is_once(program)) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => repetitions,
    }
}

pub(crate) fn chosen_client(name: Option<&str>) -> Result<Program> {
    if let Some(name) = name {
        let client = Program::named(name)?;
        ensure!(client.is_wireguard(), "{client} cannot be the client of WireGuard servers");
        return Ok(client);
    }
    // The old wireguard-go of the distribution sends single datagrams: behind it every server looks
    // slow. Ours is no neutral client, but the same one for all.
    let all = [Program::WireguardGoNew, Program::Ringway];
    let found = all.into_iter().find(|program| program.find().is_some());
    found.context("There is no client: neither wireguard-go-new nor a build of ringway")
}

pub(crate) fn chosen_scenarios(names: &[String], quick: bool) -> Result<Vec<Scenario>> {
    let mut all = Scenario::all();
    if names.is_empty() {
        all.retain(|scenario| !quick || !scenario.is_long());
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        let exact = all.iter().any(|scenario| scenario.name() == *name);
        chosen.extend(all.iter().filter(|scenario| match exact {
            true => scenario.name() == *name,
            false => scenario.name().starts_with(name.as_str()) && !(quick && scenario.is_long()),
        }));
        if chosen.len() == before {
            bail!("No scenario begins with {name:?}; `tools/perf --list` shows them");
        }
    }
    Ok(chosen)
}
