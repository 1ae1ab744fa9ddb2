//! Draining: nobody new comes in, and whoever is left at the deadline goes.
//!
//! The cores refuse new sessions by themselves (see the policy); here it is known since when, until
//! when, and that the rest ends then.

use std::rc::Rc;
use std::time::Duration;

use ringway_proto::crypto::PublicKey;
use serde_json::json;
use tracing::{info, warn};

use super::Service;
use crate::access::Moment;
use crate::events::Kind;
use crate::plane::{Operation, Peer};
use crate::store::records::Timestamp;

/// The longest that a drain may last.
const DEADLINE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Since when, by the calendar; none if there is none.
    pub since: Option<Timestamp>,
    /// When the rest ends, by the calendar.
    pub deadline: Option<Timestamp>,
    /// The same on the steady clock.
    due: Option<Timestamp>,
}

/// Why a drain did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// Its end has passed, or is too far away.
    #[error("The deadline of a drain lies between now and a week from now")]
    Deadline,
    /// The gateway is stopping.
    #[error("The gateway is stopping")]
    Stopping,
}

impl Service {
    /// Takes no new sessions from now on; those left at `deadline` end.
    ///
    /// # Errors
    /// [`DrainError`].
    pub async fn start_drain(&self, deadline: Timestamp) -> Result<Drain, DrainError> {
        let now = self.now();
        let left = deadline.since(now.wall);
        let most = i64::try_from(DEADLINE_MAX.as_millis()).unwrap_or(i64::MAX);
        if !(0..=most).contains(&left) {
            return Err(DrainError::Deadline);
        }
        let drain = Drain {
            since: Some(self.drain.borrow().since.unwrap_or(now.wall)),
            deadline: Some(deadline),
            due: Some(now.steady.plus_ms(left)),
        };
        *self.drain.borrow_mut() = drain;
        self.tell_draining(true).await?;
        info!("Draining until {deadline}: no new sessions");
        let detail = json!({ "deadline": deadline.to_string() });
        self.hub.publish(now.wall, Kind::DrainStarted, self.name.as_str(), detail);
        Ok(drain)
    }

    /// Takes new sessions again.
    ///
    /// # Errors
    /// [`DrainError::Stopping`].
    pub async fn stop_drain(&self) -> Result<Drain, DrainError> {
        let before = std::mem::take(&mut *self.drain.borrow_mut());
        let now = self.now();
        self.projection.borrow_mut().set_drained(false, now);
        self.steps.notify_one();
        self.tell_draining(false).await?;
        if before.since.is_some() {
            info!("The drain is over: new sessions are taken again");
            self.hub.publish(self.now().wall, Kind::DrainEnded, self.name.as_str(), json!({}));
        }
        Ok(Drain::default())
    }

    /// The drain that goes on, if any.
    #[must_use]
    pub fn drain(&self) -> Drain {
        *self.drain.borrow()
    }

    async fn tell_draining(&self, draining: bool) -> Result<(), DrainError> {
        let told = self.desk.change_policy(|policy| policy.draining = draining).await;
        told.map_err(|_| DrainError::Stopping)
    }

    /// Ends what is left once the deadline has passed. New sessions are refused all the same.
    pub(super) fn drain_is_over(&self, now: Moment) {
        let due = self.drain.borrow().due;
        if due.is_none_or(|due| now.steady < due) {
            return;
        }
        self.drain.borrow_mut().due = None;
        let left = self.with_projection(|projection| projection.sessions().len());
        warn!("The deadline of the drain has passed: {left} session(s) end");
        self.projection.borrow_mut().set_drained(true, now);
        let again = self.peers_again();
        let desk = Rc::clone(&self.desk);
        tokio::task::spawn_local(async move {
            if let Err(failure) = desk.configure(again).await {
                warn!("Not all sessions ended with the drain: {failure}");
            }
        });
    }

    /// Removes the peers of the file that have a session, and makes them again without one.
    fn peers_again(&self) -> Vec<Operation> {
        let keys: Vec<PublicKey> = self.with_projection(|projection| {
            let sessions = projection.sessions().after(None);
            sessions
                .filter(|session| session.owner.is_none())
                .map(|session| session.public)
                .collect()
        });
        keys.iter().flat_map(|public| self.peer_again(public)).collect()
    }

    /// Removes a peer and makes it again, without its session.
    pub(super) fn peer_again(&self, public: &PublicKey) -> Vec<Operation> {
        self.desk.with_plane(|plane| {
            // A device of the store has an account, and is never made again without it.
            let of_file = plane.peer(public).filter(|peer| peer.account.is_none());
            of_file.map(|peer| again(*public, peer)).unwrap_or_default()
        })
    }
}

/// The steps that make a peer of the file what it is, without its session.
fn again(public: PublicKey, peer: &Peer) -> Vec<Operation> {
    let mut steps = vec![
        Operation::Peer(public),
        Operation::UpdateOnly,
        Operation::Remove,
        Operation::Peer(public),
        Operation::Preshared(peer.preshared.clone()),
        Operation::Keepalive(peer.keepalive_s),
    ];
    steps.extend(peer.allowed_ips.iter().copied().map(Operation::AllowedIp));
    steps
}
