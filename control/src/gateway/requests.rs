//! What a running gateway is asked for from outside: to end, to read its configuration again, to
//! give itself away to another process.
//!
//! Whoever asks has to be answered although the store may not answer: what is asked of it here is
//! bounded, and the end of the gateway is heard meanwhile. This must not know how either is done.

use sd_notify::NotifyState;
use tokio::net::UnixStream;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::Role;
use super::desk::{Desk, DeskError};
use super::start::Started;
use crate::failure::{Failure, Status};
use crate::logs::reason::Code;
use crate::manager;
use crate::people::People;
use crate::plane::Operation;
use crate::service::Hold;
use crate::upgrade;
use crate::upgrade::old::Outcome;
use crate::upgrade::rival::Rival;

/// What ends a gateway from outside.
pub(super) struct Endings {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) gone: mpsc::Receiver<()>,
}

impl Endings {
    /// Returns when the gateway has to end, and why.
    pub(super) async fn next(&mut self, started: &Started) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "Told to stop",
            _ = self.interrupt.recv() => "Interrupted",
            _ = self.gone.recv() => "The interface is gone",
            () = removed(started) => "The socket was removed",
            () = started.core_ended() => "A core has ended",
        }
    }
}

/// Passes on what is meant for the gateway, as long as this process is there to be told. Until then
/// `_held` keeps it from telling the store what was used.
pub(super) async fn pass_on(
    mut endings: Endings,
    mut hang_up: Signal,
    heir: Rival,
    _held: Option<Hold>,
) {
    use rustix::process::Signal;
    loop {
        heir.pass(tokio::select! {
            _ = endings.terminate.recv() => Signal::TERM,
            _ = endings.interrupt.recv() => Signal::INT,
            _ = hang_up.recv() => Signal::HUP,
        });
    }
}

/// What follows from a request for the gateway.
pub(super) enum Next {
    /// Nothing.
    GoOn,
    /// It ends, and why.
    End(&'static str),
    /// Another process is the gateway. What is held stays so.
    Heir(Rival, Option<Hold>),
}

/// Talks to a process that asks for the gateway.
pub(super) async fn hand_over(
    request: UnixStream,
    started: &Started,
    role: &dyn Role,
    people: Option<&People>,
    endings: &mut Endings,
) -> Result<Next, Failure> {
    let legacy = match role.legacy() {
        Ok(legacy) => legacy,
        Err(error) => {
            error!("Upgrade: {error}");
            return Ok(Next::GoOn);
        }
    };
    let mut why = "";
    let ends = async { why = endings.next(started).await };
    let mut held = None;
    // What was used must not be entered by both processes.
    let hold = async {
        if let Some(people) = people {
            held = people.hold().await?;
        }
        Ok(())
    };
    match upgrade::old::hand_over(request, started, &legacy, hold, ends).await {
        Outcome::HandedOver(heir) => {
            info!("Handed over to process {}", heir.pid());
            // The number that the service manager will know the gateway by. It has a whole period
            // of the watchdog from now on.
            let pid = heir.pid().unsigned_abs();
            manager::tell(&[NotifyState::Watchdog, NotifyState::MainPid(pid)]);
            Ok(Next::Heir(heir, held))
        }
        Outcome::Stays(why) => {
            let reason = Code::UpgradeRefused.code();
            warn!(reason, "Upgrade refused, going on as before: {why}");
            Ok(Next::GoOn)
        }
        Outcome::Ends => Ok(Next::End(why)),
        Outcome::Lost(why) => Err(Failure::new(Status::Crashed, format!("Upgrade: {why}"))),
    }
}

/// Reads the configuration again and logs what came of it. Returns why the gateway has to end, if
/// it has to.
pub(super) async fn hang_up(
    desk: &Desk,
    role: &mut dyn Role,
    people: Option<&People>,
    ends: impl Future<Output = &'static str>,
) -> Option<&'static str> {
    let (outcome, ended) = reload(desk, role, people, ends).await;
    match outcome {
        Ok(done) => info!("Reload: {done}"),
        Err(why) => error!(reason = Code::ReloadRefused.code(), "Reload refused: {why}"),
    }
    ended
}

/// Reads the configuration again. While the store is asked about it the gateway may have to end:
/// then nothing changes, and why it `ends` is returned too. That is not asked again afterwards.
pub(crate) async fn reload(
    desk: &Desk,
    role: &mut dyn Role,
    people: Option<&People>,
    ends: impl Future<Output = &'static str>,
) -> (Result<String, String>, Option<&'static str>) {
    manager::tell(&[NotifyState::Reloading]);
    let mut ended = None;
    let outcome = match role.reload() {
        Ok((operations, sentence)) => {
            let ends = async { ended = Some(ends.await) };
            let applied = apply(desk, role, people, operations, ends).await;
            role.reloaded(applied.is_ok());
            if let (Ok(()), Some(people), Some(plan)) = (&applied, people, role.people()) {
                people.reloaded(plan);
            }
            applied.map(|()| sentence)
        }
        Err(why) => Err(why),
    };
    desk.count(|about| match outcome {
        Ok(_) => about.reloads += 1,
        Err(_) => about.reloads_refused += 1,
    });
    manager::tell(&[NotifyState::Ready]);
    (outcome, ended)
}

/// Applies a changed configuration, unless what the store has speaks against it.
async fn apply(
    desk: &Desk,
    role: &dyn Role,
    people: Option<&People>,
    operations: Vec<Operation>,
    ends: impl Future<Output = ()>,
) -> Result<(), String> {
    if let (Some(people), Some(plan)) = (people, role.people()) {
        tokio::select! {
            biased;
            () = ends => return Err("the gateway is stopping".to_owned()),
            checked = people.check(&plan) => checked?,
        }
    }
    let failed = |error: DeskError| error.to_string();
    desk.configure(operations).await.map_err(failed)?;
    desk.change_policy(|policy| role.adjust(policy)).await.map_err(failed)
}

/// Returns when clients can no longer find the socket. Deleting it is one of the ways to stop a
/// WireGuard daemon.
async fn removed(started: &Started) {
    match started.uapi.as_deref().filter(|_| started.is_configured_by_clients()) {
        Some(listener) => {
            if let Err(error) = listener.removed().await {
                debug!("Watching the socket: {error}");
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}
