//! A gateway without cores: store, directory, configuration and API are the real ones.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_control::api::accounts::{PasswordRefused, Passwords, StoreAccounts};
use ringway_control::api::doors::{Board, DoorView};
use ringway_control::api::first_start::FirstStart;
use ringway_control::api::live::*;
use ringway_control::api::server::bounds::Bounds;
use ringway_control::api::server::tls::Tls;
use ringway_control::api::server::{Doors, Server, start};
use ringway_control::api::sign_in::Later;
use ringway_control::api::state::Allowances;
use ringway_control::api::{
    ApiState, Paged, Parts, SignIn, SignInAttempt, SignInOutcome, resources, router,
};
use ringway_control::auth::password::{Hasher, PasswordSettings};
use ringway_control::config::{Config, Overrides};
use ringway_control::configs::{ConfigParts, Configs, ReloadError, Reloader, StoreHistory};
use ringway_control::directory::input::Secret;
use ringway_control::directory::{Credentials, Directory, LocalCredentials, Surroundings};
use ringway_control::events::Hub;
use ringway_control::keys::SystemRandom;
use ringway_control::store::ids::Timestamp;
use ringway_control::store::{Store, StoreOptions, StoreUrl};
use ringway_proto::crypto::PublicKey;
use serde_json::Value;

/// What the gateway begins with.
pub(crate) const CONFIG: &str = "[interface]\nname = \"rw0\"\nlisten_port = 51820\n\
    pools = [\"10.9.0.0/24\", \"fd00:9::/64\"]\n\
    addresses = [\"10.9.0.1/16\", \"fd00:9::1/48\"]\n[clients]\nendpoint = \"vpn.example.org:51820\"\n";

/// A gateway, gone with its folder when the test ends.
pub(crate) struct Gateway {
    pub(crate) folder: PathBuf,
    pub(crate) live: Arc<Cores>,
    pub(crate) store: Store,
    pub(crate) hub: Hub,
    pub(crate) https: u16,
    runtime: tokio::runtime::Runtime,
    doors: Option<Server>,
}

impl Gateway {
    /// Starts one for the test called `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, true)
    }

    /// With its first administrator made already, or not.
    pub(crate) fn with(name: &str, settled: bool) -> Self {
        let folder = std::env::temp_dir().join(format!("rw_service_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ringway.toml"), CONFIG).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let live = Arc::new(Cores::default());
        let hub = Hub::default();
        let (store, server) = runtime.block_on(serve(&folder, &live, &hub, settled));
        let https = server.addresses()[0].port();
        Self { folder, live, store, hub, https, runtime, doors: Some(server) }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("rw0.api")
    }

    /// A file in its folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Ends its server; records and folder stay.
    pub(crate) fn stop(&mut self) {
        self.doors.take().unwrap().stop();
    }

    /// Serves again, as a gateway that was started anew does.
    pub(crate) fn start(&mut self) {
        let served = serve(&self.folder, &self.live, &self.hub, true);
        let (store, server) = self.runtime.block_on(served);
        self.https = server.addresses()[0].port();
        (self.store, self.doors) = (store, Some(server));
    }

    /// Runs `work` on the store.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut ringway_control::store::Db<'_>) -> T + Send + 'static,
    ) -> T {
        self.runtime.block_on(self.store.write(move |db| Ok(work(db)))).unwrap()
    }

    /// Runs the program as root on the gateway's host.
    pub(crate) fn run(&self, line: &str) -> Done {
        self.run_with(line, "")
    }

    /// As [`Self::run`], with something on standard input.
    pub(crate) fn run_with(&self, line: &str, input: &str) -> Done {
        let mut arguments = split(line);
        arguments.extend(["--socket".to_owned(), self.socket().to_str().unwrap().to_owned()]);
        ringway(&arguments, input, &[])
    }

    /// What a command that must succeed prints.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!(done.code, 0, "ringway {line}: {}", done.err);
        done.out
    }

    /// What a command shows on a terminal, which `script` of util-linux provides.
    pub(crate) fn on_terminal(&self, line: &str) -> String {
        let socket = self.socket().display().to_string();
        let command = format!("{} {line} --socket {socket}", env!("CARGO_BIN_EXE_ringway"));
        let shown = Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
        assert!(shown.status.success(), "{command}: {shown:?}");
        String::from_utf8(shown.stdout).unwrap()
    }

    /// The JSON that a command that must succeed prints.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        let out = self.ok(&format!("{line} --json"));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("ringway {line}: {error}: {out}"))
    }

    /// Runs a command that must fail with `code` and say `parts`.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str, code: i32, parts: &[&str]) {
        self.run(line).failed(line, code, parts);
    }

    /// A token of a new user with a role.
    #[track_caller]
    pub(crate) fn token(&self, user: &str, role: &str, scopes: &str) -> String {
        self.ok(&format!("user add {user} --role {role}"));
        self.ok(&format!("token add {user} test --scope {scopes} -q")).trim().to_owned()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.doors.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn serve(folder: &Path, live: &Arc<Cores>, hub: &Hub, settled: bool) -> (Store, Server) {
    let url = StoreUrl::file(&folder.join("ringway.db")).unwrap();
    let options = StoreOptions { durable: false, ..StoreOptions::default() };
    let store = Store::open(&url, &options).await.unwrap();
    let file = folder.join("ringway.toml");
    let text = fs::read_to_string(&file).unwrap();
    let config = Config::parse(&text, "ringway.toml", folder, &Overrides::default()).unwrap();
    let portal = Some("https://vpn.example.org".to_owned());
    let here = Surroundings::of(&config, PublicKey([1; 32]), portal);
    let clock = Arc::new(now);
    let credentials: Arc<dyn Credentials> = Arc::new(Judge::cheap().0);
    let directory = Directory::new(store.clone(), hub.clone(), clock.clone(), credentials, here);
    directory.take_configured_pools().await.unwrap();
    let configs = Arc::new(Configs::new(ConfigParts {
        file,
        state_dir: folder.to_owned(),
        overrides: Overrides::default(),
        reloader: Arc::new(Willing),
        history: StoreHistory::shared(store.clone(), "gateway".to_owned()),
        hub: hub.clone(),
        clock: clock.clone(),
        trial: None,
    }));
    configs.note_file().await.unwrap();
    let (first_start, _) = FirstStart::prepare(folder, settled, &mut SystemRandom).unwrap();
    let plenty = ringway_control::api::rate::Allowance { per_second: 100_000, burst: 100_000 };
    let state = ApiState::new(Parts {
        live: live.clone(),
        accounts: Arc::new(StoreAccounts::new(store.clone(), Arc::new(Judge::cheap()))),
        sign_in: Arc::new(Nobody),
        configs: Arc::clone(&configs),
        first_start,
        hub: hub.clone(),
        clock,
        own_uid: 4242,
        allowances: Allowances { per_source: plenty, per_caller: plenty, ..Allowances::default() },
    });
    let (router, _) = router(&state, vec![resources::part(directory)]);
    let tls = Tls::self_made(folder, vec!["localhost".to_owned()], 2026).unwrap();
    let doors = Doors {
        unix: Some(folder.join("rw0.api")),
        plain: Vec::new(),
        https: vec!["127.0.0.1:0".parse().unwrap()],
        tls: Some(Arc::new(tls)),
    };
    (store, start(doors, Bounds::default(), router, configs, Board::default()).unwrap())
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Failed with `code`, said `parts` and printed nothing.
    #[track_caller]
    pub(crate) fn failed(&self, line: &str, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "ringway {line}: {}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "ringway {line} lacks {part:?}: {}", self.err);
        }
        assert_eq!(self.out, "", "ringway {line}");
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program, not yet started, in an environment of its own.
pub(crate) fn program(arguments: &[String], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["STATE_DIRECTORY", "RINGWAY_TOKEN", "COLUMNS"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command
}

/// Runs the program to its end.
pub(crate) fn ringway(arguments: &[String], input: &str, environment: &[(&str, &str)]) -> Done {
    let mut child = program(arguments, environment).spawn().unwrap();
    // A program that does not read its input may end before this.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// Runs of spaces made one, so that a test does not depend on how wide a column is.
pub(crate) fn squeeze(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.map(|line| line + "\n").collect()
}

/// Words of a line; quotes hold words together.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Cores that say what a test wants.
#[derive(Default)]
pub(crate) struct Cores {
    /// Nobody answers.
    pub(crate) away: AtomicBool,
    /// Something is wrong.
    pub(crate) ill: AtomicBool,
    pub(crate) sessions: Mutex<Vec<SessionView>>,
    /// Seconds of work that the metrics tell of; grows by each look.
    looks: AtomicU64,
    disabled: AtomicBool,
    drain: Mutex<Option<Timestamp>>,
}

impl Cores {
    fn answer<T: Send + 'static>(&self, value: T) -> Reply<T> {
        let away = self.away.load(Ordering::SeqCst);
        let answer =
            if away { Err(LiveError::Unavailable("told to".to_owned())) } else { Ok(value) };
        Box::pin(std::future::ready(answer))
    }

    fn view(&self) -> DrainView {
        let deadline = *self.drain.lock().unwrap();
        let left = self.sessions.lock().unwrap();
        let row = |one: &SessionView| DrainSession {
            id: one.id,
            user: one.user.clone(),
            why: "active".to_owned(),
        };
        DrainView {
            draining: deadline.is_some(),
            started_at: deadline.map(|_| now()),
            deadline,
            left: left.len() as u64,
            sessions: left.iter().map(row).collect(),
        }
    }
}

fn door(address: &str, reason: Option<&str>) -> DoorView {
    DoorView {
        kind: "https".to_owned(),
        address: address.to_owned(),
        open: reason.is_none(),
        reason: reason.map(str::to_owned),
        why: reason.map(|_| "it is not on this host now".to_owned()),
    }
}

impl Live for Cores {
    fn status(&self) -> Reply<StatusView> {
        self.answer(StatusView {
            version: "0.1.0".to_owned(),
            interface: "rw0".to_owned(),
            state: "running".to_owned(),
            started_at: Timestamp(1_796_000_000_000),
            uptime_s: 3_661,
            public_key: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned(),
            listen_port: 51820,
            cores: 2,
            sessions: self.sessions.lock().unwrap().len() as u64,
            peers: 9,
            max_clients: 1000,
            bytes_received: 3 << 30,
            bytes_sent: 5 << 20,
            api: vec![
                door("/run/ringway/rw0.api", None),
                door("192.0.2.1:443", Some("address_missing")),
            ],
        })
    }

    fn health(&self) -> Reply<HealthView> {
        let healthy = !self.ill.load(Ordering::SeqCst);
        let part = |name: &str, healthy: bool| HealthPart {
            name: name.to_owned(),
            healthy,
            why: (!healthy).then(|| "it does not answer".to_owned()),
        };
        let parts = vec![part("cores", true), part("store", healthy)];
        self.answer(HealthView { healthy, parts })
    }

    fn metrics(&self) -> Reply<String> {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        let core = |core: u64| {
            format!(
                "ringway_turn_seconds_sum{{core=\"{core}\"}} {}\n\
                 ringway_to_exit_packets_total{{core=\"{core}\"}} {}\n\
                 ringway_to_client_bytes_total{{core=\"{core}\"}} {}\n\
                 ringway_drops_total{{core=\"{core}\",reason=\"quota_exceeded\"}} {}\n",
                0.25 * look as f64,
                1_000 * look,
                125_000_000 * look,
                10 * look,
            )
        };
        self.answer(format!("{}{}# EOF\n", core(0), core(1)))
    }

    fn sessions(&self, filter: SessionFilter, page: LivePage) -> Reply<Paged<SessionView>> {
        let all = self.sessions.lock().unwrap();
        let wanted = |one: &&SessionView| {
            filter.user.as_ref().is_none_or(|user| *user == one.user)
                && filter.state.is_none_or(|state| state == one.status)
        };
        let start: usize = page.after.map_or(0, |after| after.parse().unwrap());
        let limit = page.limit as usize;
        let rows: Vec<SessionView> = all.iter().filter(wanted).cloned().collect();
        let items: Vec<SessionView> = rows.iter().skip(start).take(limit).cloned().collect();
        let next = (start + limit < rows.len()).then(|| (start + limit).to_string());
        self.answer(Paged { items, next })
    }

    fn end_session(&self, id: u64, _: Option<String>, _: String) -> Reply<()> {
        let mut all = self.sessions.lock().unwrap();
        let before = all.len();
        all.retain(|one| one.id != id);
        if all.len() == before {
            return Box::pin(std::future::ready(Err(LiveError::NotFound(format!("session {id}")))));
        }
        self.answer(())
    }

    fn nodes(&self) -> Reply<Vec<NodeView>> {
        self.answer(vec![node(self.disabled.load(Ordering::SeqCst))])
    }

    fn enable_node(&self, id: String, enabled: bool, _: String) -> Reply<NodeView> {
        let refused = |error| Box::pin(std::future::ready(Err(error)));
        if id != "local" {
            return refused(LiveError::NotFound(format!("node {id}")));
        }
        if self.disabled.swap(!enabled, Ordering::SeqCst) != enabled {
            return refused(LiveError::Conflict("It is so already".to_owned()));
        }
        self.answer(node(!enabled))
    }

    fn usage_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report> {
        let body = format!("usage {format:?} {} to {}", span.from, span.to);
        self.answer(Report { body })
    }

    fn performance_report(&self, _: ReportSpan, format: ReportFormat) -> Reply<Report> {
        self.answer(Report { body: format!("performance {format:?}") })
    }

    fn start_drain(&self, deadline: Timestamp, _: String) -> Reply<DrainView> {
        *self.drain.lock().unwrap() = Some(deadline);
        self.answer(self.view())
    }

    fn stop_drain(&self, _: String) -> Reply<DrainView> {
        *self.drain.lock().unwrap() = None;
        self.answer(self.view())
    }

    fn drain(&self) -> Reply<DrainView> {
        self.answer(self.view())
    }
}

fn node(disabled: bool) -> NodeView {
    NodeView {
        id: "local".to_owned(),
        kind: "local".to_owned(),
        status: if disabled { "disabled" } else { "healthy" }.to_owned(),
        sessions: 3,
        load: 0.25,
        addresses: vec!["192.0.2.1".to_owned()],
        last_seen: Some(now()),
    }
}

/// A session number `id` of `user`, fast in proportion to its number.
pub(crate) fn session(id: u64, user: &str) -> SessionView {
    SessionView {
        id,
        user: user.to_owned(),
        client_ip: Some("192.0.2.7".parse().unwrap()),
        exit_node: "local".to_owned(),
        connected_at: now().plus_ms(-7_530_000),
        last_activity: now(),
        bytes_sent: 1 << 30,
        bytes_received: 2 << 20,
        status: if id.is_multiple_of(2) { SessionState::Active } else { SessionState::Idle },
        tunnel: vec!["10.9.0.5".to_owned()],
        user_id: None,
        device_id: None,
        device: Some("laptop".to_owned()),
        public_key: None,
        endpoint: Some("192.0.2.7:4711".parse().unwrap()),
        state_since: now(),
        protocol: "wireguard".to_owned(),
        core: 1,
        path_mtu: Some(1420),
        rate_up_bps: 1_000 * id,
        rate_down_bps: 1_000_000 * id,
    }
}

/// Takes every configuration.
struct Willing;

impl Reloader for Willing {
    fn reload(&self) -> ringway_control::configs::Later<Result<String, ReloadError>> {
        Box::pin(std::future::ready(Ok("read again".to_owned())))
    }
}

/// Signs nobody in: the command line has tokens.
struct Nobody;

impl SignIn for Nobody {
    fn sign_in(&self, _: SignInAttempt) -> Later<SignInOutcome> {
        Box::pin(std::future::ready(SignInOutcome::Refused))
    }
}

/// Password rules and hashes as the gateway has them, but cheap.
struct Judge(LocalCredentials);

impl Judge {
    fn cheap() -> Self {
        let cheap = PasswordSettings { memory_kib: 8, passes: 1, ..PasswordSettings::default() };
        Self(LocalCredentials::new(Hasher::new(cheap).unwrap(), "Ringway"))
    }
}

impl Passwords for Judge {
    fn hash(&self, name: &str, password: &str) -> Result<String, PasswordRefused> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let hashed = runtime.block_on(self.0.hash_password(name, &Secret::new(password)));
        hashed.map_err(PasswordRefused::Weak)
    }
}

/// Whether `password` is the one that is kept as `hash`.
pub(crate) fn is_password(hash: &str, password: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Judge::cheap().0.password_matches(hash, &Secret::new(password)))
}
