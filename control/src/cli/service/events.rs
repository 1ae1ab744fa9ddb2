//! `ringway events`: what happens, while it happens.
//!
//! A stream that ends is opened again where it stopped, also after a restart of the gateway; what
//! could not be heard meanwhile is said, not hidden. [`Reader`] is pure.

use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{Desk, Verb};
use crate::cli::client::path;
use crate::cli::show::{moment, plain, word};
use crate::cli::{print, print_json, say};
use crate::failure::{Failure, Status};

/// How long to wait before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest line of a stream, in bytes: events have a thousandth of it.
const LINE_BYTES_MAX: usize = 1 << 20;

/// `ringway events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Only these kinds, separated by commas, such as session.started,session.ended
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
    /// Also what came after the event of this number, as far as it is kept
    #[arg(long, value_name = "N")]
    since: Option<u64>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Does it.
pub(crate) fn run(verb: &Verb<EventsArgs>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let args = &verb.args;
    let query = [("kind", args.kind.clone())];
    let (mut last, mut left, mut heard_before) = (args.since, args.count, false);
    loop {
        let stream = desk.client.stream(&path(&["events"]), &query, last);
        let mut stream = match stream {
            Ok(stream) => stream,
            // Who was heard before will be back.
            Err(failure) if heard_before && is_passing(failure.status) => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if heard_before && !desk.show.quiet {
            say("Listening again");
        }
        let mut reader = Reader::default();
        while let Ok(Some(piece)) = stream.next() {
            for event in reader.take(&piece) {
                tell(&desk, &event)?;
                last = event.id.or(last);
                left = left.map(|left| left - u64::from(!event.is_gap()));
                if left == Some(0) {
                    return Ok(Status::Done);
                }
            }
        }
        heard_before = true;
        thread::sleep(PAUSE);
    }
}

/// Whether a failure is one that a restart of the gateway brings about.
const fn is_passing(status: Status) -> bool {
    matches!(status, Status::NotRunning | Status::Unavailable)
}

fn tell(desk: &Desk, event: &Event) -> Result<(), Failure> {
    if desk.show.json {
        return print_json(&event.data);
    }
    let value: Value = serde_json::from_str(&event.data).unwrap_or_default();
    if event.kind == "lagged" {
        say(&format!("Missed {} events: they came faster than they were read", value["missed"]));
        return Ok(());
    }
    if event.kind == "restarted" {
        say("The gateway was started anew: what happened before that and was not heard is lost");
        return Ok(());
    }
    if desk.show.quiet {
        return print(&format!("{}\n", plain(&event.kind)));
    }
    let (at, kind, subject) =
        (moment(&value, "/at"), word(&value, "/kind"), word(&value, "/subject"));
    let has_detail = value["detail"].as_object().is_some_and(|detail| !detail.is_empty());
    let detail = if has_detail { plain(&format!("  {}", value["detail"])) } else { String::new() };
    print(&format!("{at}  {kind:<18}  {subject}{detail}\n"))
}

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<u64>,
    kind: String,
    data: String,
}

impl Event {
    /// Whether it says that something was not heard, not what happened.
    fn is_gap(&self) -> bool {
        matches!(self.kind.as_str(), "lagged" | "restarted")
    }
}

/// Makes events of the pieces of a stream (`text/event-stream`).
#[derive(Debug, Default)]
struct Reader {
    rest: Vec<u8>,
    event: Event,
}

impl Reader {
    /// The events that are complete with this piece.
    fn take(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
        }
        if self.rest.len() > LINE_BYTES_MAX {
            self.rest.clear();
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                let end = if self.event.data.is_empty() { "" } else { "\n" };
                self.event.data.push_str(&format!("{end}{value}"));
            }
            // Comments keep the connection alive.
            _ => (),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = ": hello\n\nid: 7\nevent: user.created\ndata: {\"id\":7}\n\n\
                          event: lagged\ndata: {\"missed\":3}\r\n\r\n\
                          id: 8\nevent: x\ndata: a\ndata: b\n\n";

    fn events() -> Vec<Event> {
        let event =
            |id, kind: &str, data: &str| Event { id, kind: kind.to_owned(), data: data.to_owned() };
        vec![
            event(Some(7), "user.created", "{\"id\":7}"),
            event(None, "lagged", "{\"missed\":3}"),
            event(Some(8), "x", "a\nb"),
        ]
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_the_stream_is_cut(
            cuts in proptest::collection::vec(1_usize..20, 1..60)
        ) {
            let mut reader = Reader::default();
            let (mut heard, mut rest) = (Vec::new(), STREAM.as_bytes());
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                heard.extend(reader.take(piece));
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(heard, events());
        }

        #[test]
        fn no_stream_makes_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            Reader::default().take(&bytes);
        }
    }
}
