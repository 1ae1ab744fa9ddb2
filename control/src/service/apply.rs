//! Steps go to the plane one batch at a time, in order.
//!
//! While the cores take one batch the next one gathers: however fast records change, there is one
//! request at a time. Accounts that were given up are counted for the last time when the cores have
//! let go of them.

use std::rc::Rc;

use tracing::error;

use super::Service;
use crate::access::{Number, Step};
use crate::gateway::desk::DeskError;

impl Service {
    pub(super) async fn apply_steps(self: Rc<Self>) {
        loop {
            self.apply_pending().await;
            self.steps.notified().await;
        }
    }

    /// Applies what there is now. Returns when the cores have done it.
    async fn apply_pending(&self) {
        loop {
            let steps = self.projection.borrow_mut().take_steps();
            if steps.is_empty() {
                return;
            }
            let given_up: Vec<Number> = steps
                .iter()
                .filter_map(|step| match step {
                    Step::RemoveAccount(number) => Some(*number),
                    Step::PutAccount(_) | Step::PutPeer(_) | Step::RemovePeer(_) => None,
                })
                .collect();
            let now = self.now();
            self.measure.borrow_mut().remember(&steps, &self.projection.borrow(), now);
            let operations = self.volumes.borrow_mut().operations(steps);
            match self.desk.configure(operations).await {
                Ok(()) => {}
                Err(DeskError::Stopping) => return,
                Err(failure) => {
                    // Each command is refused by itself: the others took effect.
                    error!("The cores did not take some of what the records say: {failure}");
                    self.outbox.borrow_mut().steps_refused += 1;
                }
            }
            let now = self.now();
            self.retire(&given_up, now);
            self.take_notes(now);
        }
    }
}
