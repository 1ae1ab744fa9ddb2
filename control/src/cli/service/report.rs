//! `ringway report`: who moved how much, and how fast it was.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Noun, now};
use crate::cli::client::path;
use crate::cli::given::{self, When};
use crate::cli::{files, print, print_json, say};
use crate::failure::{Failure, Status};

/// Which report.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportVerb {
    /// Who moved how much
    Usage(ReportArgs),
    /// How fast it was
    Performance(ReportArgs),
}

/// How a report is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For programs
    Json,
    /// For spreadsheets and for reading
    Csv,
    /// For browsers
    Html,
}

/// `ringway report …`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// From when on: a date, a time, or a distance back such as 7d [default: a day before --to]
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    from: Option<When>,
    /// Until when [default: now]
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    to: Option<When>,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    format: Format,
    /// Write it to this file, readable by its owner only
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Does it.
pub(crate) fn run(noun: Noun<ReportVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    let (name, args) = match noun.verb {
        ReportVerb::Usage(args) => ("usage", args),
        ReportVerb::Performance(args) => ("performance", args),
    };
    let format = match (desk.show.json, args.format) {
        (true, _) | (_, Format::Json) => "json",
        (_, Format::Csv) => "csv",
        (_, Format::Html) => "html",
    };
    let time = |when: Option<When>| when.map(|when| when.back(now()).to_string());
    let query =
        [("from", time(args.from)), ("to", time(args.to)), ("format", Some(format.to_owned()))];
    let answer = desk.client.get(&path(&["reports", name]), &query)?;
    match &args.out {
        Some(file) => {
            files::write_private(file, answer.text.as_bytes())?;
            say(&format!("Wrote {}", file.display()));
        }
        None if format == "json" => print_json(&answer.text)?,
        None => {
            let end = if answer.text.ends_with('\n') { "" } else { "\n" };
            print(&format!("{}{end}", answer.text))?;
        }
    }
    Ok(Status::Done)
}
