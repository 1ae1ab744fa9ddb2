//! `ringway session`: who is connected now.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::Value;

use super::{Desk, Noun, now};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Body, Extra, path};
use crate::cli::given;
use crate::cli::show::{self, moment, rate, size, word};
use crate::cli::table::Table;
use crate::cli::{print, print_json};
use crate::failure::{Failure, Status};
use crate::store::ids::Timestamp;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionVerb {
    /// List live sessions
    List(ListArgs),
    /// Show a session
    Show(SessionId),
    /// End a session; a client that may still connect comes back by itself
    Kill(KillArgs),
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateWord {
    /// The handshake is not complete
    Connecting,
    /// Packets come and go
    Active,
    /// None did for a while
    Idle,
    /// It must be gone by the deadline of the drain
    Draining,
    /// It is ending
    Ending,
}

impl StateWord {
    const fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Draining => "draining",
            Self::Ending => "ending",
        }
    }
}

/// `ringway session list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Of this user
    #[arg(long)]
    user: Option<String>,
    /// Of this device: name, identifier or public key
    #[arg(long)]
    device: Option<String>,
    /// In this state
    #[arg(long)]
    state: Option<StateWord>,
    /// From this address or prefix
    #[arg(long, value_name = "PREFIX")]
    source: Option<String>,
    /// Show it again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks with --watch
    #[arg(long, value_name = "TIME", value_parser = given::seconds, default_value = "2s")]
    interval: u32,
}

/// A session.
#[derive(Args, Debug)]
pub(crate) struct SessionId {
    /// Its number, as the list shows it
    id: u64,
}

/// `ringway session kill`.
#[derive(Args, Debug)]
pub(crate) struct KillArgs {
    /// Its number, as the list shows it
    id: u64,
    /// Why, for the log and the event
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<SessionVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        SessionVerb::List(args) => list(&desk, &args),
        SessionVerb::Show(id) => show_session(&desk, id.id),
        SessionVerb::Kill(args) => kill(&desk, &args),
    }
}

fn list(desk: &Desk, args: &ListArgs) -> Result<Status, Failure> {
    let clear = args.watch && io::stdout().is_terminal() && !desk.show.json;
    loop {
        list_once(desk, args, clear)?;
        if !args.watch {
            return Ok(Status::Done);
        }
        thread::sleep(Duration::from_secs(u64::from(args.interval.max(1))));
    }
}

fn list_once(desk: &Desk, args: &ListArgs, clear: bool) -> Result<(), Failure> {
    let query = [
        ("user", args.user.clone()),
        ("device", args.device.clone()),
        ("state", args.state.map(|state| state.word().to_owned())),
        ("source", args.source.clone()),
    ];
    let rows = desk.list(&path(&["sessions"]), &query, |session| word(session, "/id"))?;
    let Some(rows) = rows else { return Ok(()) };
    let (mut table, now) = (Table::new(HEADS), now());
    for session in &rows {
        table.push(row(session, now));
    }
    if clear {
        print(CLEAR)?;
    }
    desk.table(&table).map(|_| ())
}

const HEADS: &[&str] = &[
    ">ID",
    "USER",
    "DEVICE",
    "STATE",
    "CLIENT",
    "TUNNEL",
    "SINCE",
    ">UP",
    ">DOWN",
    ">RATE UP",
    ">RATE DOWN",
    "EXIT",
    ">CORE",
];

fn row(session: &Value, now: Timestamp) -> Vec<String> {
    vec![
        word(session, "/id"),
        word(session, "/user"),
        word(session, "/device"),
        word(session, "/status"),
        word(session, "/client_ip"),
        word(session, "/tunnel"),
        since(session, "/connected_at", now),
        size(session, "/bytes_received"),
        size(session, "/bytes_sent"),
        rate(session, "/rate_up_bps"),
        rate(session, "/rate_down_bps"),
        word(session, "/exit_node"),
        word(session, "/core"),
    ]
}

/// How long ago the moment at `pointer` was.
fn since(session: &Value, pointer: &str, now: Timestamp) -> String {
    let moment: Option<Timestamp> =
        session.pointer(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok());
    moment.map_or_else(
        || show::NOTHING.to_owned(),
        |moment| show::age(u64::try_from(now.since(moment) / 1000).unwrap_or(0)),
    )
}

fn show_session(desk: &Desk, id: u64) -> Result<Status, Failure> {
    let mut page = desk.client.pages(&path(&["sessions"]), &[])?;
    let found = page["items"].as_array_mut().and_then(|rows| {
        rows.iter_mut().find(|row| row["id"].as_u64() == Some(id)).map(Value::take)
    });
    let Some(session) = found else {
        let message =
            format!("There is no session {id}: \"ringway session list\" shows what there is");
        return Err(Failure::new(Status::NotFound, message));
    };
    if desk.show.json {
        print_json(&session.to_string())?;
        return Ok(Status::Done);
    }
    if desk.show.quiet {
        print(&format!("{id}\n"))?;
        return Ok(Status::Done);
    }
    desk.facts(&[
        ("Session", word(&session, "/id")),
        ("User", word(&session, "/user")),
        ("Device", word(&session, "/device")),
        ("Public key", word(&session, "/public_key")),
        ("State", word(&session, "/status")),
        ("In this state since", moment(&session, "/state_since")),
        ("Protocol", word(&session, "/protocol")),
        ("Client", word(&session, "/endpoint")),
        ("Tunnel", word(&session, "/tunnel")),
        ("Exit", word(&session, "/exit_node")),
        ("Connected", moment(&session, "/connected_at")),
        ("Last packet", moment(&session, "/last_activity")),
        ("From the client", size(&session, "/bytes_received")),
        ("To the client", size(&session, "/bytes_sent")),
        ("Rate from the client", rate(&session, "/rate_up_bps")),
        ("Rate to the client", rate(&session, "/rate_down_bps")),
        ("Path MTU", word(&session, "/path_mtu")),
        ("Core", word(&session, "/core")),
    ])
}

fn kill(desk: &Desk, args: &KillArgs) -> Result<Status, Failure> {
    args.sure.confirm(&format!("This ends the session {}", args.id))?;
    let at = path(&["sessions", &args.id.to_string()]);
    let query = [("reason", args.reason.clone())];
    let extra = Extra { query: &query, if_match: None };
    let answer = desk.client.send(Method::DELETE, &at, &extra, Body::Empty)?;
    desk.done(&answer, "", &format!("The session {} has ended", args.id))
}
