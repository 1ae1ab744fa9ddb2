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
    waiting: VecDeque<Waiting>,
    /// Sent and not answered, oldest first; with the peer that the command creates.
    sent: VecDeque<(u64, Option<PublicKey>)>,
}

#[derive(Debug)]
struct Waiting {
    envelope: Envelope,
    /// The peer that the command creates.
    creates: Option<PublicKey>,
    /// It is sent when all cores have answered every command with a smaller number than this.
    after: u64,
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
        self.push_after(core, command, 0)
    }

    /// Queues a command that is sent when every command with a smaller number than `after` has been
    /// answered, by all cores. Numbers only point back, so no two commands wait for each other.
    pub(super) fn push_after(&mut self, core: CoreId, command: Command, after: u64) -> u64 {
        self.enqueue(core, command, None, after)
    }

    /// Queues a change of a peer; `creates` names the peer if the core does not know it yet.
    pub(super) fn push_put(
        &mut self,
        core: CoreId,
        change: PeerChange,
        creates: Option<PublicKey>,
        after: u64,
    ) {
        self.enqueue(core, Command::PutPeer(Box::new(change)), creates, after);
    }

    pub(super) fn outgoing(&mut self, core: CoreId) -> impl Iterator<Item = Envelope> + '_ {
        let answered = self.answered_below();
        let Line { waiting, sent } = &mut self.lines[usize::from(core.0)];
        std::iter::from_fn(move || {
            let next = waiting.pop_front_if(|next| next.after <= answered)?;
            let Waiting { envelope, creates, after: _ } = next;
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
        if self.answered_below() < ticket.end {
            return None;
        }
        let mut inside =
            self.refused.iter().filter(|(at, _)| (ticket.first..ticket.end).contains(at));
        Some(inside.next().map_or(Ok(()), |(_, refusal)| Err(*refusal)))
    }

    pub(super) fn pending(&self) -> usize {
        self.lines.iter().map(|line| line.waiting.len() + line.sent.len()).sum()
    }

    /// Sends what waits in its own order only: some core will not answer any more.
    pub(super) fn wait_for_nobody(&mut self) {
        self.lines.iter_mut().flat_map(|line| &mut line.waiting).for_each(|next| next.after = 0);
    }

    /// Every command with a smaller number has been answered.
    fn answered_below(&self) -> u64 {
        self.lines.iter().filter_map(Line::oldest).min().unwrap_or(self.next)
    }

    fn enqueue(
        &mut self,
        core: CoreId,
        command: Command,
        creates: Option<PublicKey>,
        after: u64,
    ) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let waiting = Waiting { envelope: Envelope { sequence, command }, creates, after };
        self.lines[usize::from(core.0)].waiting.push_back(waiting);
        sequence
    }
}

impl Line {
    fn oldest(&self) -> Option<u64> {
        let sent = self.sent.front().map(|(sequence, _)| *sequence);
        sent.or_else(|| self.waiting.front().map(|next| next.envelope.sequence))
    }
}
