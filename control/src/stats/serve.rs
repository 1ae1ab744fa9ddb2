//! Conversations on the stats socket, one task each.
//!
//! A line is a command, its answer follows; a client may send the next line on the same connection.
//! Idle, slow and oversized clients are cut off and counted.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::query::{HELP, LINE_BYTES_MAX, Place, Query};
use super::{json, sessions, text};
use crate::client_io::{Client, OUTPUT_BYTES};
use crate::gateway::desk::{Desk, PEERS_PER_PAGE};
use crate::listen::Listener;

/// How long a client may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The answer about a reload that this process will not do. It is no refusal: who comes after it
/// may have read the file.
const STOPPING: &str = "The gateway is stopping.\n";

/// A request to read the configuration again; the answer says what came of it.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

/// Serves clients until the task is dropped. Reload requests go to `reloads`.
pub async fn serve(listener: Rc<Listener>, desk: Rc<Desk>, reloads: mpsc::Sender<ReloadRequest>) {
    let counted = Rc::clone(&desk);
    let cut = move |error: &io::Error| {
        debug!("Stats client: {error}");
        counted.count(|about| about.clients_cut += 1);
    };
    let converse = async move |stream| {
        let reloads = reloads.clone();
        Conversation { client: Client::new(stream), desk: &desk, reloads }.run().await
    };
    listener.serve(cut, converse).await;
}

struct Conversation<'a> {
    client: Client,
    desk: &'a Desk,
    reloads: mpsc::Sender<ReloadRequest>,
}

impl Conversation<'_> {
    async fn run(mut self) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            let count = self.client.read(SILENCE_MAX).await?;
            if count == 0 {
                // A last line may come without its end.
                return if line.is_empty() { Ok(()) } else { self.answer(&line).await };
            }
            let input = self.client.input(count).to_vec();
            for piece in input.split_inclusive(|byte| *byte == b'\n') {
                let ends = piece.ends_with(b"\n");
                line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
                if line.len() > LINE_BYTES_MAX {
                    return Err(io::Error::other("Line longer than 256 bytes"));
                }
                if ends {
                    self.answer(&line).await?;
                    line.clear();
                }
            }
        }
    }

    async fn answer(&mut self, line: &[u8]) -> io::Result<()> {
        let query = std::str::from_utf8(line).map_or(Query::Unknown, Query::parse);
        let served = query != Query::Unknown;
        self.desk.count(|about| {
            about.queries_served += u64::from(served);
            about.queries_unknown += u64::from(!served);
        });
        let mut out = match query {
            Query::Stats => text::write(&self.desk.snapshot()),
            Query::StatsJson => json::write(&self.desk.snapshot()),
            Query::Metrics => self.desk.metrics(),
            Query::Sessions { from, rows } => return self.sessions(from, rows).await,
            Query::PeersJson => return self.peers_json().await,
            Query::Reload => self.reload().await,
            Query::Help => HELP.to_owned(),
            Query::Unknown => format!("Unknown command. These are known:\n{HELP}"),
        };
        self.client.send(&mut out).await
    }

    async fn sessions(&mut self, from: Place, rows: Option<u32>) -> io::Result<()> {
        let mut out = String::with_capacity(OUTPUT_BYTES + 4096);
        sessions::head(&mut out);
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut left = rows.map_or(usize::MAX, |rows| rows as usize);
        let mut place = Some(from);
        while let Some(from) = place
            && left > 0
        {
            let Ok((page, next)) = self.desk.read_peers(from, left.min(PEERS_PER_PAGE)).await
            else {
                out.push_str("No such place, or the gateway is stopping.\n");
                break;
            };
            left -= page.peers.len();
            self.desk.with_plane(|plane| {
                for status in &page.peers {
                    if let Some(peer) = plane.peer(&status.public) {
                        sessions::table_row(&mut out, status, peer, wall);
                    }
                }
            });
            self.client.send_if_full(&mut out).await?;
            place = next;
        }
        if let Some(next) = place.filter(|_| left == 0) {
            out.push_str(&format!("more: sessions {next}\n"));
        }
        self.client.send(&mut out).await
    }

    async fn peers_json(&mut self) -> io::Result<()> {
        let mut out = String::from("[");
        let mut place = Some(Place::default());
        let first = Cell::new(true);
        while let Some(from) = place {
            let Ok((page, next)) = self.desk.read_peers(from, PEERS_PER_PAGE).await else { break };
            self.desk.with_plane(|plane| {
                for status in &page.peers {
                    let Some(peer) = plane.peer(&status.public) else { continue };
                    out.push_str(if first.replace(false) { "\n" } else { ",\n" });
                    out.push_str(&sessions::json_object(status, peer));
                }
            });
            self.client.send_if_full(&mut out).await?;
            place = next;
        }
        out.push_str("\n]\n");
        self.client.send(&mut out).await
    }

    async fn reload(&self) -> String {
        let (sender, answer) = oneshot::channel();
        if self.reloads.send(sender).await.is_err() {
            return STOPPING.to_owned();
        }
        match answer.await {
            Ok(Ok(done)) => format!("Done: {done}\n"),
            Ok(Err(why)) => format!("Refused: {why}\n"),
            Err(_) => STOPPING.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
