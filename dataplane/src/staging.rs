//! Packets that wait until their peer's handshake is done.
//!
//! A staged packet is a copy in the session's own memory, counted against its byte budget, so that
//! a silent peer cannot hold receive buffers. The queue is bounded; when it is full the oldest
//! packet goes, because what TCP retransmits is newer (kernel behaviour).

use std::collections::VecDeque;

use ringway_alloc::heap::{HeapBuf, SessionHeap};
use ringway_proto::limits::STAGED_PACKETS_MAX;
use ringway_proto::wireguard::REKEY_ATTEMPT_TIME;
use ringway_proto::{DropReason, Instant};

/// The waiting packets of one peer, virtio header included, oldest first.
#[derive(Default)]
pub struct Staged {
    queue: VecDeque<HeapBuf>,
    /// Since when there has been one.
    since: Instant,
}

impl Staged {
    /// Copies a packet in. `Some` names why a packet was lost: the oldest one, or this one.
    pub fn push(
        &mut self,
        heap: &mut SessionHeap,
        packet: &[u8],
        now: Instant,
    ) -> Option<DropReason> {
        if self.queue.is_empty() {
            self.since = now;
        }
        let mut lost = None;
        if self.queue.len() == STAGED_PACKETS_MAX {
            self.queue.pop_front();
            lost = Some(DropReason::StagedQueueFull);
        }
        match heap.copy(packet) {
            Ok(copy) => self.queue.push_back(copy),
            Err(_) => lost = Some(DropReason::SessionBudget),
        }
        lost
    }

    /// When it is time to ask what they wait for: no handshake is tried for longer.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.since + REKEY_ATTEMPT_TIME)
    }

    /// The oldest packet.
    pub fn pop(&mut self) -> Option<HeapBuf> {
        self.queue.pop_front()
    }

    /// Forgets all; returns how many were lost. The memory of the queue itself goes too.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.queue).len()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
