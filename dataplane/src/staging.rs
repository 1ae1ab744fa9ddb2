//! Packets that wait until their peer's handshake is done.
//!
//! A staged packet is a copy in the session's own memory, counted against its byte budget, so that
//! a silent peer cannot hold receive buffers. The queue is bounded; when it is full the oldest
//! packet goes, because what TCP retransmits is newer (kernel behaviour).

use std::collections::VecDeque;

use ringway_alloc::heap::{HeapBuf, SessionHeap};
use ringway_proto::DropReason;
use ringway_proto::limits::STAGED_PACKETS_MAX;

/// The waiting packets of one peer, virtio header included, oldest first.
#[derive(Default)]
pub struct Staged {
    queue: VecDeque<HeapBuf>,
}

impl Staged {
    /// Copies a packet in. `Some` names why a packet was lost: the oldest one, or this one.
    pub fn push(&mut self, heap: &mut SessionHeap, packet: &[u8]) -> Option<DropReason> {
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
