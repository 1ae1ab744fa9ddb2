//! How it stands with each door of the API: open, or closed and why.
//!
//! Every door opens by itself and is tried again by itself, so one that stays closed says so here:
//! in the log, in `status` and `health`, and in the metrics. The reasons are a closed list with a
//! line each in `control/manual/log_reasons.md` (a test compares the two). This module must not
//! know how a door is opened.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

macro_rules! faults {
    ($($variant:ident $code:literal $doc:literal,)*) => {
        /// Why a door is closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $doc] $variant,)* }

        impl Fault {
            /// All of them, in the order of the manual.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name in the log, in answers and in metrics.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

faults! {
    AddressMissing "address_missing" "The address is not on this host now.",
    AddressTaken "address_taken" "Another program listens there, or a gateway that is about to end.",
    NotPermitted "not_permitted" "The process may not listen there.",
    CertificateUnreadable "certificate_unreadable" "The certificate or its key is not there, or cannot be read.",
    CertificateUnusable "certificate_unusable" "The certificate or its key is there and cannot be used.",
    InTheClear "in_the_clear" "Without TLS the address would be open to other hosts.",
    SocketTaken "socket_taken" "A running process answers on the Unix socket, or something lies there that is no socket.",
    CannotListen "cannot_listen" "The system refuses for another reason.",
}

/// Why a door is closed now, in a code and in words: what, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The code.
    pub fault: Fault,
    /// The words.
    pub why: String,
}

/// How it stands with a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was not tried yet.
    Untried,
    /// It is open, here: with the real port, where the system chose one.
    Open(String),
    /// It is closed, and is tried again.
    Closed(Closed),
}

/// One door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doorway {
    /// `unix`, `http` or `https`.
    pub kind: &'static str,
    /// Path or address, as it was configured.
    pub place: String,
    /// How it stands.
    pub standing: Standing,
}

/// A door as `GET /api/v1/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoorView {
    /// `unix`, `http` or `https`.
    pub kind: String,
    /// Path of the socket, or address with port.
    pub address: String,
    /// Whether the API answers there.
    pub open: bool,
    /// Why not: a code from the list in the manual.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Why not, and what to do. It is tried again by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

impl DoorView {
    fn of(door: &Doorway) -> Self {
        let (kind, address) = (door.kind.to_owned(), door.place.clone());
        let closed = Self { kind, address, open: false, reason: None, why: None };
        match &door.standing {
            Standing::Untried => closed,
            Standing::Open(address) => Self { open: true, address: address.clone(), ..closed },
            Standing::Closed(Closed { fault, why }) => {
                let reason = Some(fault.code().to_owned());
                Self { reason, why: Some(why.clone()), ..closed }
            }
        }
    }
}

/// All doors, for whoever wants to know. Clones are the same.
#[derive(Clone, Debug)]
pub struct Board(Arc<watch::Sender<Vec<Doorway>>>);

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl Board {
    /// Has these doors now, none of them tried yet.
    pub(super) fn begin(&self, doors: impl Iterator<Item = (&'static str, String)>) {
        let untried = |(kind, place)| Doorway { kind, place, standing: Standing::Untried };
        self.0.send_replace(doors.map(untried).collect());
    }

    /// How it stands with the door of this number now.
    pub(super) fn set(&self, number: usize, standing: Standing) {
        self.0.send_modify(|doors| {
            if let Some(door) = doors.get_mut(number) {
                door.standing = standing;
            }
        });
    }

    /// Returns when it stands so with all doors together.
    pub(super) async fn until(&self, is_so: impl Fn(&[Doorway]) -> bool) {
        // The sender is held here, so this does not end early.
        let _ = self.0.subscribe().wait_for(|doors| is_so(doors)).await;
    }

    /// All doors, in the order of the configuration: the Unix socket first.
    #[must_use]
    pub fn doors(&self) -> Vec<Doorway> {
        self.0.borrow().clone()
    }

    /// The same for the API.
    #[must_use]
    pub fn view(&self) -> Vec<DoorView> {
        self.0.borrow().iter().map(DoorView::of).collect()
    }

    /// What is closed and why, in one sentence; none if nothing is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let doors = self.0.borrow();
        let closed = doors.iter().filter_map(|door| match &door.standing {
            Standing::Untried | Standing::Open(_) => None,
            Standing::Closed(Closed { why, .. }) => Some(format!("{}: {why}", door.place)),
        });
        let closed: Vec<String> = closed.collect();
        (!closed.is_empty()).then(|| closed.join("; "))
    }
}

/// Whether each was tried at least once.
pub(super) fn all_tried(doors: &[Doorway]) -> bool {
    doors.iter().all(|door| door.standing != Standing::Untried)
}

/// Whether at least one is open.
pub(super) fn any_open(doors: &[Doorway]) -> bool {
    doors.iter().any(|door| matches!(door.standing, Standing::Open(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_explains_every_reason_for_a_closed_door() {
        let manual = include_str!("../../manual/log_reasons.md");
        for fault in Fault::ALL {
            let line = format!("| `{}` | {} |", fault.code(), fault.meaning());
            assert!(manual.contains(&line), "control/manual/log_reasons.md lacks: {line}");
        }
    }

    #[test]
    fn a_board_shows_what_is_open_where_and_what_is_closed_why() {
        let board = Board::default();
        let doors = [("unix", "/run/x.api"), ("https", "192.0.2.1:0"), ("https", "[::1]:0")];
        board.begin(doors.into_iter().map(|(kind, place)| (kind, place.to_owned())));
        assert!(board.trouble().is_none() && !any_open(&board.doors()));
        board.set(0, Standing::Open("/run/x.api".to_owned()));
        let why = "it is not here".to_owned();
        board.set(1, Standing::Closed(Closed { fault: Fault::AddressMissing, why }));
        assert!(any_open(&board.doors()) && !all_tried(&board.doors()));
        board.set(2, Standing::Open("[::1]:4711".to_owned()));
        board.set(3, Standing::Untried);
        assert!(all_tried(&board.doors()));
        assert_eq!(board.trouble().as_deref(), Some("192.0.2.1:0: it is not here"));
        let view = serde_json::to_value(board.view()).unwrap();
        assert_eq!(view[0]["open"], true);
        assert_eq!(
            (&view[1]["open"], &view[1]["reason"]),
            (&false.into(), &"address_missing".into())
        );
        assert_eq!(view[2]["address"], "[::1]:4711");
    }
}
