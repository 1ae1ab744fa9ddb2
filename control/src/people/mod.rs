//! Everything for people, put together: the records, who may sign in, the directory, the API, and
//! the service that joins them with the cores.
//!
//! A gateway with a store starts all of it beside its tunnels and never waits for it: while the
//! store cannot be opened it is tried again, the peers of the file are served, and peers that
//! another process left go on. This is the composition root of that half of control; it must not
//! do what its parts do.

mod asked;
mod reload;
mod settings;
mod stats;
mod upkeep;

pub(crate) use settings::privacy;

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway_proto::crypto::PublicKey;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use self::reload::ReloadByDesk;
use self::upkeep::{Reached, Upkeep};
use crate::api::accounts::StoreAccounts;
use crate::api::doors::Board;
use crate::api::first_start::FirstStart;
use crate::api::joining::Joining;
use crate::api::server::bounds::Bounds;
use crate::api::server::{self, Server};
use crate::api::state::Allowances;
use crate::api::{self, ApiState};
use crate::auth::Gate;
use crate::config::{Config, Overrides};
use crate::configs::trial::Trial;
use crate::configs::{ConfigParts, Configs, StoreHistory};
use crate::directory::{Change, Directory, LocalCredentials, Refusal};
use crate::events::{Heard, Hub, Kind, Listener};
use crate::failure::{Failure, Status};
use crate::gateway::desk::Desk;
use crate::keys::{self, SystemRandom};
use crate::logs::privacy::Mode;
use crate::service::live::{About, LiveGateway};
use crate::service::{self, Service, door};
use crate::stats::serve::ReloadRequest;
use crate::store::records::{Ban, Timestamp};
use crate::store::{Store, StoreOptions};

/// How long to wait before the store or the API is tried again, at first and at most.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Who one-time passwords are for, as authenticators show it.
const ISSUER: &str = "Ringway";

/// How long the end of a process waits for the store.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long another process that asks for the gateway waits for the store.
const HOLD_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a changed configuration waits to be compared with what the store has.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// What it is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The checked configuration.
    pub config: Config,
    /// The gateway's public key.
    pub gateway: PublicKey,
    /// The configuration file.
    pub file: PathBuf,
    /// Folder of the store and of secrets.
    pub state_dir: PathBuf,
    /// The command line.
    pub overrides: Overrides,
    /// A change of the configuration that a process before this one began.
    pub trial: Option<Trial>,
}

/// The half of control that is for people.
pub struct People {
    plan: RefCell<Plan>,
    desk: Rc<Desk>,
    reloads: mpsc::Sender<ReloadRequest>,
    running: RefCell<Option<Running>>,
    reached: Rc<Reached>,
}

/// What the API is made of.
struct ApiParts {
    store: Store,
    hub: Hub,
    gate: Gate,
    directory: Directory,
    live: Arc<LiveGateway>,
}

/// What there is once the store is open.
struct Running {
    service: Rc<Service>,
    directory: Directory,
    gate: Gate,
}

impl People {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan, desk: Rc<Desk>, reloads: mpsc::Sender<ReloadRequest>) -> Rc<Self> {
        let (plan, running) = (RefCell::new(plan), RefCell::new(None));
        Rc::new(Self { plan, desk, reloads, running, reached: Rc::default() })
    }

    /// Runs until dropped.
    pub async fn run(self: Rc<Self>) {
        let store = self.open().await;
        let (gate, directory, hub) =
            again("Users and the API are not served yet", || self.prepare(&store)).await;
        let mut tasks = JoinSet::new();
        let live = self.serve(&store, &gate, &directory, &hub, &mut tasks);
        let api = ApiParts { store, hub, gate, directory, live: Arc::new(live) };
        let _server = again("The API is not served yet", || self.serve_api(&api)).await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended {
                error!("A task for people ended: {failure}");
            }
        }
        std::future::pending().await
    }

    /// Opens the store, as often as it takes.
    async fn open(&self) -> Store {
        let (url, options) = {
            let plan = self.plan.borrow();
            (settings::store_url(&plan), StoreOptions::default())
        };
        if let Ok(url) = &url
            && url.is_in_clear()
        {
            warn!(
                "Records and the password of the store pass the network as they are: with \
                 sslmode=verify-full in its address they are encrypted"
            );
        }
        let mut pause = PAUSE;
        loop {
            let failure = match &url {
                Ok(url) => match Store::open(url, &options).await {
                    Ok(store) => return store,
                    Err(failure) => failure.to_string(),
                },
                Err(failure) => failure.to_string(),
            };
            warn!(
                "The store cannot be opened, so only peers of the file are served; this is tried \
                 again: {failure}"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What may fail because of the store, or of files that are not there yet.
    async fn prepare(&self, store: &Store) -> Result<(Gate, Directory, Hub), Failure> {
        let plan = self.plan.borrow().clone();
        let hub = Hub::begun(now());
        let gate = self.gate(&plan, store, &hub).await?;
        let credentials = Arc::new(LocalCredentials::new(gate.hasher().clone(), ISSUER));
        let here = settings::surroundings(&plan);
        let directory =
            Directory::new(store.clone(), hub.clone(), Arc::new(now), credentials, here.clone());
        let failed = |refusal: Refusal| Failure::new(Status::Config, refusal.to_string());
        directory.take_configured_pools().await.map_err(failed)?;
        for note in directory.check_surroundings(here).await.map_err(failed)? {
            warn!("{note}");
        }
        Ok((gate, directory, hub))
    }

    /// Starts what joins the records with the cores.
    fn serve(
        &self,
        store: &Store,
        gate: &Gate,
        directory: &Directory,
        hub: &Hub,
        tasks: &mut JoinSet<()>,
    ) -> LiveGateway {
        let plan = self.plan.borrow().clone();
        let service = Service::new(service::Parts {
            desk: Rc::clone(&self.desk),
            store: store.clone(),
            hub: hub.clone(),
            name: keys::show_public(&plan.gateway),
            settings: settings::of_service(&plan.config),
        });
        let (door, calls) = door::door();
        tasks.spawn_local(Rc::clone(&service).run(calls));
        tasks.spawn_local(ring(directory.changes(), Rc::clone(&service), gate.clone()));
        tasks.spawn_local(lift(hub.listen(), gate.clone()));
        let upkeep = Upkeep {
            gate: gate.clone(),
            service: Rc::clone(&service),
            directory: directory.clone(),
            hub: hub.clone(),
            reached: Rc::clone(&self.reached),
        };
        tasks.spawn_local(upkeep.run());
        self.desk.hear(Box::new(stats::Sources::new(
            Rc::clone(&service),
            gate.clone(),
            Rc::clone(&self.reached),
            plan.config.metrics.sessions_max as usize,
        )));
        let running = Running { service, directory: directory.clone(), gate: gate.clone() };
        *self.running.borrow_mut() = Some(running);
        LiveGateway::new(door, about(&plan), self.reached.board.clone())
    }

    /// The gate computes a hash and reads files: on a thread that may take its time.
    async fn gate(&self, plan: &Plan, store: &Store, hub: &Hub) -> Result<Gate, Failure> {
        let wanted = settings::of_gate(&plan.config).map_err(|why| {
            Failure::new(Status::Config, format!("[sign_in] or [[issuer]]: {why}"))
        })?;
        let people = Arc::new(store.clone());
        let (hub, mode) = (hub.clone(), privacy(&plan.config).mode);
        let built = tokio::task::spawn_blocking(move || {
            let tell = move |ban: &Ban| tell_ban(&hub, mode, ban);
            Gate::builder(wanted, people).map(|builder| builder.on_ban(tell).build())
        });
        let gate = built
            .await
            .map_err(|failure| Failure::new(Status::Crashed, failure.to_string()))?
            .map_err(|why| {
                Failure::new(Status::Config, format!("[sign_in] or [[issuer]]: {why}"))
            })?;
        if let Err(trouble) = gate.restore().await {
            warn!("Who was kept out before is not known: {}", trouble.0);
        }
        Ok(gate)
    }

    /// Puts the API together and has its doors opened, each by itself: what keeps one closed is
    /// said there, and another process that is the gateway's past lets go of its own in a moment.
    async fn serve_api(&self, parts: &ApiParts) -> Result<Option<Server>, Failure> {
        let plan = self.plan.borrow().clone();
        if plan.config.api.socket.is_none() && plan.config.api.listen.is_empty() {
            info!("The API is switched off");
            return Ok(None);
        }
        let doors = settings::doors(&plan);
        let tls = doors.tls.clone();
        let has_administrator = parts.directory.has_administrator().await;
        let has_administrator = has_administrator
            .map_err(|refusal| Failure::new(Status::State, refusal.to_string()))?;
        let (first_start, said) =
            FirstStart::prepare(&plan.state_dir, has_administrator, &mut SystemRandom)?;
        let configs = Arc::new(Configs::new(ConfigParts {
            file: plan.file.clone(),
            state_dir: plan.state_dir.clone(),
            overrides: plan.overrides.clone(),
            reloader: Arc::new(ReloadByDesk::new(self.reloads.clone())),
            history: StoreHistory::shared(parts.store.clone(), keys::show_public(&plan.gateway)),
            hub: parts.hub.clone(),
            clock: Arc::new(now),
            trial: plan.trial.clone(),
        }));
        let hasher = Arc::new(parts.gate.hasher().clone());
        let state = ApiState::new(api::Parts {
            live: Arc::clone(&parts.live) as Arc<dyn api::Live>,
            accounts: Arc::new(StoreAccounts::new(parts.store.clone(), hasher)),
            sign_in: Arc::new(Joining {
                inner: Arc::new(parts.gate.clone()),
                directory: parts.directory.clone(),
            }),
            configs: Arc::clone(&configs),
            first_start,
            hub: parts.hub.clone(),
            clock: Arc::new(now),
            own_uid: rustix::process::geteuid().as_raw(),
            allowances: Allowances::default(),
        });
        let records = api::resources::part(parts.directory.clone());
        let (router, _) = api::router(&state, vec![records]);
        let (bounds, board) = (Bounds::default(), self.reached.board.clone());
        let server = server::start(doors, bounds, router, Arc::clone(&configs), board)?;
        self.reached.set(state, tls);
        if let Err(failure) = configs.note_file().await {
            warn!("The configuration is not in its history: {failure}");
        }
        said_where(&self.reached.board);
        if let Some(said) = said {
            // Where the operator looks, and the secret itself in no log that others may read.
            crate::run::say(&[said.sentence(std::io::stdout().is_terminal()).to_string()]);
        }
        Ok(Some(server))
    }

    /// The configuration has changed, as far as it may while the gateway runs.
    pub fn reloaded(&self, plan: Plan) {
        if let Some(running) = &*self.running.borrow() {
            running.service.set(settings::of_service(&plan.config));
            running.directory.set_surroundings(settings::surroundings(&plan));
            running.gate.keep_addresses(settings::keeps_addresses(&plan.config));
        }
        *self.plan.borrow_mut() = plan;
    }

    /// What a changed configuration would mean for pools and leases. If the store does not say so
    /// in time, that is all that is said.
    ///
    /// # Errors
    /// Why it cannot be.
    pub async fn check(&self, plan: &Plan) -> Result<(), String> {
        self.check_within(plan, CHECK_TIMEOUT).await
    }

    async fn check_within(&self, plan: &Plan, limit: Duration) -> Result<(), String> {
        let directory = self.running.borrow().as_ref().map(|running| running.directory.clone());
        let Some(directory) = directory else { return Ok(()) };
        let before = settings::surroundings(&self.plan.borrow());
        let look = async {
            let before = directory.check_surroundings(before).await?;
            let after = directory.check_surroundings(settings::surroundings(plan)).await?;
            Ok::<_, Refusal>((before, after))
        };
        // A store that does not answer is no reason to keep a gateway as it is.
        let trouble = match tokio::time::timeout(limit, look).await {
            Ok(Ok((before, after))) => {
                // What was wrong before does not keep anybody from changing something else.
                let new = after.into_iter().filter(|finding| !before.contains(finding));
                let new: Vec<String> = new.collect();
                return if new.is_empty() { Ok(()) } else { Err(new.join("; ")) };
            }
            Ok(Err(refusal)) => refusal.to_string(),
            Err(_) => format!("the store did not answer within {} s", limit.as_secs()),
        };
        warn!("Whether pools and leases fit to the configuration is not known: {trouble}");
        Ok(())
    }

    /// Tells the store nothing from now on, while another process may be about to: what was used
    /// must not be entered twice.
    ///
    /// # Errors
    /// If what is under way does not end in time. It goes on as before then.
    pub async fn hold(&self) -> Result<Option<service::Hold>, String> {
        self.hold_within(HOLD_TIMEOUT).await
    }

    async fn hold_within(&self, limit: Duration) -> Result<Option<service::Hold>, String> {
        let service = self.running.borrow().as_ref().map(|running| Rc::clone(&running.service));
        let Some(service) = service else { return Ok(None) };
        let held = tokio::time::timeout(limit, service.hold()).await;
        held.map(Some).map_err(|_| {
            format!(
                "For {} s the records are being read, or the store does not take what devices \
                 used, and two processes must not both enter that: try again in a moment, and if \
                 it lasts, see whether the store answers",
                limit.as_secs()
            )
        })
    }

    /// Enters what waits, for the end of the process.
    pub async fn settle(&self) {
        self.settle_within(SETTLE_TIMEOUT).await;
    }

    async fn settle_within(&self, limit: Duration) {
        let service = self.running.borrow().as_ref().map(|running| Rc::clone(&running.service));
        let Some(service) = service else { return };
        if tokio::time::timeout(limit, service.settle()).await.is_err() {
            warn!("The store does not take what waits; the next start enters it");
        }
    }
}

/// Does what may fail for a while, as often as it takes, ever more slowly.
async fn again<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pause = PAUSE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(failure) => warn!("{what}; this is tried again: {failure}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Says where it is open. What is closed was said by whoever tried to open it.
fn said_where(board: &Board) {
    let open = board.view().into_iter().filter(|door| door.open).map(|door| door.address);
    let open: Vec<String> = open.collect();
    if !open.is_empty() {
        info!("The API answers on {}", open.join(", "));
    }
}

/// What the API says of the gateway that nothing changes.
fn about(plan: &Plan) -> About {
    About { max_clients: u64::from(plan.config.limits.peers_max), exit_addresses: Vec::new() }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Rings the service whenever a record has changed, and has the gate forget what it refused.
async fn ring(mut changes: broadcast::Receiver<Change>, service: Rc<Service>, gate: Gate) {
    use broadcast::error::RecvError;
    loop {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(RecvError::Lagged(_)) => Change::All,
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        service.bell().notify_one();
        if let Change::User(id) = change {
            // Who is gone needs not be forgotten: what was refused is refused.
            let user = service.store().read(move |db| db.user(id)).await;
            if let Ok(user) = user {
                gate.changed(&user.name);
            }
        }
    }
}

/// Says that somebody is kept out. An address is no news where none is kept.
fn tell_ban(hub: &Hub, mode: Mode, ban: &Ban) {
    if mode == Mode::NoLog && !ban.subject.starts_with("user:") {
        return;
    }
    let detail = serde_json::json!({ "until": ban.until, "reason": ban.reason });
    hub.publish(now(), Kind::BanSet, ban.subject.clone(), detail);
}

/// Has the gate let in again whom an operator lets in.
async fn lift(mut listener: Listener, gate: Gate) {
    while let Some(heard) = listener.next().await {
        let event = match heard {
            Heard::Event(event) => event,
            Heard::Lagged(_) | Heard::Restarted => {
                // Somebody may have been let in among what was missed.
                if let Err(trouble) = gate.reconcile().await {
                    warn!("Whoever was let in again may be kept out here: {}", trouble.0);
                }
                continue;
            }
        };
        if event.kind == Kind::BanLifted
            && let Err(trouble) = gate.lift(&event.subject).await
        {
            warn!("A ban was lifted here and may come back with a restart: {}", trouble.0);
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
