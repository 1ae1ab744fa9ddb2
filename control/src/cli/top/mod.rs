//! `ringway top`: the gateway at a glance, live.
//!
//! A thread asks the API ([`fetch`]); two readings make rates ([`model`], pure); a picture is a
//! pure function of the model ([`draw`]); keys change the view ([`view`], pure); only [`screen`]
//! touches the terminal. While the gateway is away, the last picture stays and says so.

mod draw;
mod fetch;
mod json;
mod metrics;
mod model;
mod screen;
mod view;

use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::given;
use super::service::Verb;
use super::{print, print_json};
use crate::failure::{Failure, Status};
use fetch::Fetcher;
use model::Model;
use view::{Sort, View};

/// Columns of `--once` where nobody says how many: what a table of sessions needs.
const ONCE_COLUMNS: u16 = 120;
/// Most sessions of `--once`.
const ONCE_SESSIONS_MAX: usize = 50;

/// `ringway top`.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "TIME", value_parser = given::seconds, default_value = "2s")]
    interval: u32,
    /// Print one screen as text and end; with --json, all of it as JSON
    #[arg(long)]
    once: bool,
    /// How sessions are sorted at first
    #[arg(long, value_name = "BY", default_value = "rate")]
    sort: SortWord,
    /// Show only sessions whose user, device or address contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
}

/// How sessions are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortWord {
    /// Both rates together, the fastest first
    Rate,
    /// By user
    User,
    /// By device
    Device,
    /// Rate from the client, the fastest first
    Up,
    /// Rate to the client, the fastest first
    Down,
    /// The youngest first
    Since,
}

impl SortWord {
    const fn sort(self) -> Sort {
        match self {
            Self::Rate => Sort::Rate,
            Self::User => Sort::User,
            Self::Device => Sort::Device,
            Self::Up => Sort::Up,
            Self::Down => Sort::Down,
            Self::Since => Sort::Since,
        }
    }
}

/// Does it.
pub(crate) fn run(verb: &Verb<TopArgs>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let args = &verb.args;
    let columns = desk.width().and_then(|columns| u16::try_from(columns).ok());
    let view = View { sort: args.sort.sort(), filter: args.filter.clone(), ..View::default() };
    let interval = Duration::from_secs(u64::from(args.interval.max(1)));
    let is_json = desk.show.json;
    let fetcher = Fetcher::new(desk.client);
    if args.once {
        let model = two_looks(fetcher)?;
        if is_json {
            print_json(&json::of(&model, &view).to_string())?;
        } else {
            let columns = columns.unwrap_or(ONCE_COLUMNS);
            let shown = model.sessions(&view).len().min(ONCE_SESSIONS_MAX);
            print(&draw::text(&model, &view, columns, draw::height(&model, shown)))?;
        }
        return Ok(Status::Done);
    }
    if is_json {
        let message = "A live view is no JSON: say --once too, or ask \"ringway stats --json\"";
        return Err(Failure::new(Status::Usage, message));
    }
    screen::run(fetcher, view, interval)
}

/// Two looks a second apart, so that there are rates.
fn two_looks(mut fetcher: Fetcher) -> Result<Model, Failure> {
    let mut model = Model::default();
    model.take(fetcher.look()?);
    thread::sleep(Duration::from_secs(1));
    model.take(fetcher.look()?);
    Ok(model)
}
