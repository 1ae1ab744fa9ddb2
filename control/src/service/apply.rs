//! Steps go to the plane one batch at a time, in order.
//!
//! While the cores take one batch the next one gathers: however fast records change, there is one
//! request at a time. Accounts that were given up are counted for the last time when the cores have
//! let go of them.

use std::rc::Rc;
use std::time::Duration;

use ringway_proto::AccountId;
use tracing::{error, warn};

use super::Service;
use crate::access::{Number, Step};
use crate::gateway::desk::DeskError;

/// How often the plane is compared with what it should be.
const COMPARE: Duration = Duration::from_secs(30);

/// The same after something was refused.
const PAUSE: Duration = Duration::from_secs(1);

impl Service {
    pub(super) async fn apply_steps(self: Rc<Self>) {
        let mut pause = COMPARE;
        loop {
            let all = self.apply_pending().await;
            if !all {
                pause = PAUSE;
            }
            tokio::select! {
                () = self.steps.notified(), if pause == COMPARE => {}
                () = tokio::time::sleep(pause) => {
                    pause = COMPARE;
                    self.say_again();
                }
            }
        }
    }

    /// What the plane should know and does not, because it was refused or somebody else removed
    /// it, is told again.
    fn say_again(&self) {
        if !self.loaded.get() {
            return;
        }
        let missing = self.desk.with_plane(|plane| {
            let has_account = |number| plane.account(AccountId(number)).is_some();
            let has_peer = |public: &_, account| {
                plane.peer(public).is_some_and(|peer| peer.account == Some(AccountId(account)))
            };
            self.projection.borrow().missing(has_account, has_peer)
        });
        if !missing.is_empty() {
            warn!("{} thing(s) that the records say are told to the cores again", missing.len());
            self.projection.borrow_mut().put_first(missing);
        }
    }

    /// There is no room to count what new accounts use. Who is to go goes all the same; the rest
    /// waits.
    async fn apply_removals(&self, steps: Vec<Step>) {
        let removals = steps.iter().filter(|step| matches!(step, Step::RemovePeer(_))).cloned();
        let operations = self.volumes.borrow_mut().operations(removals.collect());
        self.projection.borrow_mut().put_first(steps);
        if let Err(failure) = self.desk.configure(operations).await {
            error!("The cores did not take who may not connect any more: {failure}");
        }
    }

    /// Applies what there is now. Returns when the cores have done it; whether they took all.
    async fn apply_pending(&self) -> bool {
        let mut all = true;
        loop {
            let steps = self.projection.borrow_mut().take_steps();
            if steps.is_empty() {
                return all;
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
            let operations = self.volumes.borrow_mut().operations(steps.clone());
            match self.desk.configure(operations).await {
                Ok(()) => {}
                Err(DeskError::Stopping) => return all,
                Err(failure @ DeskError::Usage(_)) => {
                    error!("What the records say waits: {failure}");
                    self.outbox.borrow_mut().steps_refused += 1;
                    self.apply_removals(steps).await;
                    return false;
                }
                Err(failure) => {
                    // Each command is refused by itself: the others took effect.
                    error!("The cores did not take some of what the records say: {failure}");
                    self.outbox.borrow_mut().steps_refused += 1;
                    all = false;
                }
            }
            let now = self.now();
            self.retire(&given_up, now);
            self.take_notes(now);
        }
    }
}
