//! The ring beside the runtimes: what a UDP echo and a TCP relay cost, by time.
//!
//! ```text
//! cargo bench --package ringway-benches --bench echo -- --rounds 5 --seconds 2 --results FOLDER
//! ```
//!
//! Everything runs over loopback on two CPUs: the figures compare the contenders with each other
//! and with nothing else. Nobody else should use the machine meanwhile.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ringway_benches::echo::report::{self, Row};
use ringway_benches::echo::{Contender, Workload, load, server};

struct Options {
    rounds: u32,
    seconds: f64,
    results: Option<PathBuf>,
    workloads: Vec<String>,
    serve: Option<Contender>,
    to: Option<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    if let Some(contender) = options.serve {
        server::bind_server()?;
        return server::serve(contender, options.to);
    }
    server::bind_load()?;
    let length = Duration::try_from_secs_f64(options.seconds).context("--seconds")?;
    let mut rows = Vec::new();
    for workload in Workload::ALL.into_iter().filter(|workload| options.wants(*workload)) {
        let able = Contender::ALL.into_iter().filter(|contender| workload.has(*contender));
        let mut group: Vec<_> =
            able.map(|contender| Row { workload, contender, samples: Vec::new() }).collect();
        for number in 1..=options.rounds {
            for row in &mut group {
                eprintln!("{} by {}, round {number}", workload.name(), row.contender.name());
                row.samples.push(load::round(row.contender, workload, length)?);
            }
        }
        rows.extend(group);
    }
    println!("{}", report::table(&rows));
    if let Some(parent) = &options.results {
        let folder = report::write(parent, &rows, options.seconds)?;
        println!("written to {}", folder.display());
    }
    Ok(())
}

impl Options {
    /// Whether a workload is asked for by a part of its name; all are when none is.
    fn wants(&self, workload: Workload) -> bool {
        let name = workload.name();
        self.workloads.is_empty() || self.workloads.iter().any(|word| name.contains(word.as_str()))
    }
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options {
        rounds: 3,
        seconds: 1.0,
        results: None,
        workloads: Vec::new(),
        serve: None,
        to: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--bench" => {} // what cargo adds
            "--rounds" => options.rounds = value()?.parse::<u32>()?.max(1),
            "--seconds" => options.seconds = value()?.parse()?,
            "--results" => options.results = Some(value()?.into()),
            "--quick" => (options.rounds, options.seconds) = (1, 0.3),
            "--serve" => options.serve = Some(value()?.parse()?),
            "--to" => options.to = Some(value()?.parse()?),
            word if !word.starts_with('-') => options.workloads.push(word.to_owned()),
            _ => bail!("Unknown option {word}: --rounds N, --seconds S, --quick, --results FOLDER"),
        }
    }
    Ok(options)
}
