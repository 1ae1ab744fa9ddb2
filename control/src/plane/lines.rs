//! The lines to the cores: commands that wait, commands that were sent, and what became of them.
//!
//! Every command gets the next number of one sequence. A core answers in the order it was asked, so
//! the oldest command that is still open says what has been done.

use std::collections::VecDeque;

use ringway_dataplane::command::{Command, Envelope, PeerChange, Refusal};
use ringway_dataplane::owner::owner_of;
use ringway_proto::CoreId;
use ringway_proto::crypto::PublicKey;

/// Refusals remembered for tickets that nobody has asked about yet. Each request asks as soon as it
/// is complete, so a few would do; beyond this the oldest are forgotten.
const REFUSALS_MAX: usize = 1024;

/// A range of commands whose end somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    first: u64,
    /// One past the last.
    end: u64,
}

impl Ticket {
    /// Everything from the start of this ticket to the end of a later one.
    #[must_use]
    pub const fn until(self, later: Self) -> Self {
        Self { first: self.first, end: later.end }
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Vec<Line>,
    next: u64,
    refused: VecDeque<(u64, Refusal)>,
}

#[derive(Debug, Default)]
struct Line {
    /// Not sent yet, oldest first.
    waiting: VecDeque<(Envelope, Option<PublicKey>)>,
    /// Sent and not answered, oldest first; with the peer that the command creates.
    sent: VecDeque<(u64, Option<PublicKey>)>,
}

impl Lines {
    pub(super) fn new(cores: u16) -> Self {
        let lines = (0..cores).map(|_| Line::default()).collect();
        Self { lines, next: 1, refused: VecDeque::new() }
    }

    pub(super) fn cores(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..self.lines.len() as u16).map(CoreId)
    }

    /// The core a peer lives on: the hash of its key, as every core computes it too.
    pub(super) fn owner(&self, public: &PublicKey) -> CoreId {
        owner_of(public, self.lines.len() as u16)
    }

    pub(super) const fn next_sequence(&self) -> u64 {
        self.next
    }

    pub(super) const fn ticket_from(&self, first: u64) -> Ticket {
        Ticket { first, end: self.next }
    }

    pub(super) fn push(&mut self, core: CoreId, command: Command) -> u64 {
        self.enqueue(core, command, None)
    }

    /// Queues a change of a peer; `creates` names the peer if the core does not know it yet.
    pub(super) fn push_put(
        &mut self,
        core: CoreId,
        change: PeerChange,
        creates: Option<PublicKey>,
    ) {
        self.enqueue(core, Command::PutPeer(Box::new(change)), creates);
    }

    pub(super) fn outgoing(&mut self, core: CoreId) -> impl Iterator<Item = Envelope> + '_ {
        let Line { waiting, sent } = &mut self.lines[usize::from(core.0)];
        std::iter::from_fn(move || {
            let (envelope, creates) = waiting.pop_front()?;
            sent.push_back((envelope.sequence, creates));
            Some(envelope)
        })
    }

    /// Notes an answer. Returns the peer that the command was to create.
    pub(super) fn answered(
        &mut self,
        core: CoreId,
        sequence: u64,
        outcome: Result<(), Refusal>,
    ) -> Option<PublicKey> {
        let sent = &mut self.lines[usize::from(core.0)].sent;
        let at = sent.iter().position(|(number, _)| *number == sequence)?;
        let (_, creates) = sent.remove(at)?;
        if let Err(refusal) = outcome {
            if self.refused.len() == REFUSALS_MAX {
                self.refused.pop_front();
            }
            self.refused.push_back((sequence, refusal));
        }
        creates
    }

    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        let open = self.lines.iter().filter_map(Line::oldest).any(|oldest| oldest < ticket.end);
        if open {
            return None;
        }
        let mut inside =
            self.refused.iter().filter(|(at, _)| (ticket.first..ticket.end).contains(at));
        Some(inside.next().map_or(Ok(()), |(_, refusal)| Err(*refusal)))
    }

    pub(super) fn pending(&self) -> usize {
        self.lines.iter().map(|line| line.waiting.len() + line.sent.len()).sum()
    }

    fn enqueue(&mut self, core: CoreId, command: Command, creates: Option<PublicKey>) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let envelope = Envelope { sequence, command };
        self.lines[usize::from(core.0)].waiting.push_back((envelope, creates));
        sequence
    }
}

impl Line {
    fn oldest(&self) -> Option<u64> {
        let sent = self.sent.front().map(|(sequence, _)| *sequence);
        sent.or_else(|| self.waiting.front().map(|(envelope, _)| envelope.sequence))
    }
}
