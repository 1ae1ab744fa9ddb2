//! Pausing the cores, and moving their sessions out and in: the desk's part of an upgrade.

use ringway_dataplane::command::{Command, Refusal};
use ringway_dataplane::state::{Pending, StatePage};
use ringway_proto::CoreId;
use ringway_ring::TunQueue;
use tokio::sync::{MutexGuard, oneshot};

use super::{Desk, DeskError};
use crate::gateway::ports::Ports;

/// What a core answered.
pub(super) type Spent = (Result<(), Refusal>, Command);

impl Desk {
    /// Waits until no request is being applied, and lets none be while the guard lives.
    pub async fn hold(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.inner.borrow().lines.len() as u16
    }

    /// Looks at the sockets. `look` must not come back to the desk.
    pub fn with_ports<T>(&self, look: impl FnOnce(&Ports) -> T) -> T {
        look(&self.inner.borrow().ports)
    }

    /// Steers the interface from now on.
    pub fn steer(&self, queue: &TunQueue) {
        self.inner.borrow().tun_map.attach(queue);
    }

    /// Stops all cores from carrying packets. What waits in them is told.
    ///
    /// # Errors
    /// [`DeskError`]; then some cores may be paused and have to be resumed.
    pub async fn pause_cores(&self) -> Result<Pending, DeskError> {
        // All are asked before the first answer is awaited: the pause begins everywhere at once.
        let asked: Vec<_> = (0..self.cores())
            .map(|core| self.ask(CoreId(core), Command::Pause(Pending::default())))
            .collect();
        let mut all = Pending::default();
        for answer in asked {
            if let Command::Pause(pending) = answer.await? {
                all.handshakes += pending.handshakes;
                all.initiations += pending.initiations;
                all.staged += pending.staged;
            }
        }
        Ok(all)
    }

    /// Lets all cores carry packets again, with this many counters of every key left out.
    ///
    /// # Errors
    /// [`DeskError`]: the first one. All cores were asked.
    pub async fn resume_cores(&self, counters_ahead: u64) -> Result<(), DeskError> {
        let asked: Vec<_> = (0..self.cores())
            .map(|core| self.ask(CoreId(core), Command::Resume { counters_ahead }))
            .collect();
        let mut outcome = Ok(());
        for answer in asked {
            outcome = outcome.and(answer.await.map(drop));
        }
        outcome
    }

    /// Sessions of a paused core, from `cursor` on.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn export_page(
        &self,
        core: CoreId,
        cursor: u32,
    ) -> Result<Box<StatePage>, DeskError> {
        let page = Box::new(StatePage::to_fill(cursor));
        let Command::ExportPeers(page) = self.ask(core, Command::ExportPeers(page)).await? else {
            unreachable!("a core gives back what it was asked")
        };
        Ok(page)
    }

    /// Gives a frozen core sessions.
    ///
    /// # Errors
    /// [`DeskError::Refused`] if the page cannot be used.
    pub async fn import_page(
        &self,
        core: CoreId,
        page: StatePage,
    ) -> Result<Box<StatePage>, DeskError> {
        let page = Command::ImportPeers(Box::new(page));
        let Command::ImportPeers(page) = self.ask(core, page).await? else {
            unreachable!("a core gives back what it was asked")
        };
        Ok(page)
    }

    /// Asks a core now; the answer may be awaited later.
    pub(super) fn ask(
        &self,
        core: CoreId,
        command: Command,
    ) -> impl Future<Output = Result<Command, DeskError>> + use<> {
        let answer = {
            let mut inner = self.inner.borrow_mut();
            let (sender, answer) = oneshot::channel();
            if !inner.stopping && usize::from(core.0) < inner.lines.len() {
                let sequence = inner.plane.ask(core, command);
                inner.asked.insert(sequence, sender);
            }
            answer
        };
        self.pump();
        async move {
            let (outcome, spent): Spent = answer.await.map_err(|_| DeskError::Stopping)?;
            outcome?;
            Ok(spent)
        }
    }
}
