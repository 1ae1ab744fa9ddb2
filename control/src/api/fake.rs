//! What stands around the API in its tests: a gateway, accounts, a sign-in and a clock that do what
//! a test tells them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;
use zeroize::Zeroizing;

use super::accounts::{Account, Accounts};
use super::caller::Source;
use super::first_start::FirstStart;
use super::gatekeeper::{Door, Via};
use super::live::*;
use super::logins::hash;
use super::sign_in::Later;
use super::state::Allowances;
use super::*;
use crate::config::Overrides;
use crate::configs::fake::{Gateway, Memory, text};
use crate::configs::{ConfigParts, Configs};
use crate::directory::Proved;
use crate::events::Hub;
use crate::keys::SystemRandom;
use crate::scratch::Scratch;
use crate::store::StoreError;
use crate::store::records::{Factor, Role, Timestamp, Token, TokenId, User, UserId, UserState};

/// When the world begins.
pub(crate) const BEGIN: Timestamp = Timestamp(1_796_000_000_000);

const STREAM: &str = "text/event-stream";

/// A world around the API.
pub(crate) struct World {
    pub(crate) folder: Scratch,
    pub(crate) state: ApiState,
    pub(crate) router: Router,
    pub(crate) document: OpenApi,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) accounts: Arc<FakeAccounts>,
    pub(crate) live: Arc<FakeLive>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) configs: Arc<Configs>,
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, Allowances::default(), true).await
    }

    /// With or without users: `root` (administrator), `olga` (operator), `vera` (viewer) and `nora`
    /// without a role; the password of each is `password of NAME`, the token `token-NAME`.
    pub(crate) async fn with(name: &str, allowances: Allowances, users: bool) -> Self {
        let folder = Scratch::new(&format!("api_{name}"));
        let file = folder.path().join("ringway.toml");
        fs::write(&file, text(&[2])).unwrap();
        let now = Arc::new(AtomicI64::new(BEGIN.0));
        let told = Arc::clone(&now);
        let clock: state::Clock = Arc::new(move || Timestamp(told.load(Ordering::SeqCst)));
        let gateway = Arc::new(Gateway::new(file.clone()));
        let hub = Hub::default();
        let configs = Arc::new(Configs::new(ConfigParts {
            file,
            state_dir: folder.path().to_owned(),
            overrides: Overrides::default(),
            reloader: Arc::clone(&gateway) as Arc<_>,
            history: Arc::new(Memory::default()),
            hub: hub.clone(),
            clock: Arc::clone(&clock),
            trial: None,
        }));
        configs.note_file().await.unwrap();
        let accounts = Arc::new(FakeAccounts::default());
        if users {
            accounts.fill();
        }
        let live = Arc::new(FakeLive::default());
        let (first_start, _) =
            FirstStart::prepare(folder.path(), users, &mut SystemRandom).unwrap();
        let state = ApiState::new(Parts {
            live: Arc::clone(&live) as Arc<_>,
            accounts: Arc::clone(&accounts) as Arc<_>,
            sign_in: Arc::new(FakeSignIn(Arc::clone(&accounts))),
            configs: Arc::clone(&configs),
            first_start,
            hub,
            clock,
            own_uid: 4242,
            allowances,
        });
        let (router, document) = router(&state, Vec::new());
        Self { folder, state, router, document, now, accounts, live, gateway, configs }
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) async fn send(&self, ask: Ask) -> Answer {
        let response = self.router.clone().oneshot(ask.request()).await.unwrap();
        let (parts, body) = response.into_parts();
        // A stream does not end.
        let streams = parts.headers.get(header::CONTENT_TYPE).is_some_and(|form| form == STREAM);
        let body = if streams { Body::empty() } else { body };
        let body = to_bytes(body, 1 << 24).await.unwrap().to_vec();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        answer.check();
        answer
    }

    /// The body of an answer that does not end.
    pub(crate) async fn stream(&self, ask: Ask) -> axum::body::BodyDataStream {
        let response = self.router.clone().oneshot(ask.request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], STREAM);
        response.into_body().into_data_stream()
    }

    /// Signs in by the HTTPS door; gives the cookie and the CSRF token.
    pub(crate) async fn sign_in(&self, name: &str) -> (String, String) {
        let body = json!({ "name": name, "password": format!("password of {name}") });
        let answer = self.send(Ask::post("/api/v1/session").json(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        (cookie, answer.json()["csrf_token"].as_str().unwrap().to_owned())
    }
}

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    via: Via,
}

impl Ask {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let source = Source::Ip(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
        Self {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            headers: vec![("host".to_owned(), "gw.example".to_owned())],
            body: Vec::new(),
            via: Via { door: Door::Https, source },
        }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| own != name);
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    pub(crate) fn body(mut self, form: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", form)
    }

    pub(crate) fn via(mut self, door: Door, source: Source) -> Self {
        self.via = Via { door, source };
        self
    }

    pub(crate) fn from(self, address: &str) -> Self {
        let door = self.via.door;
        self.via(door, Source::Ip(address.parse().unwrap()))
    }

    fn request(self) -> Request {
        let mut request = Request::builder().method(self.method).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !self.body.is_empty() {
            request = request.header("content-length", self.body.len());
        }
        request.extension(self.via).body(Body::from(self.body)).unwrap()
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The code of the problem; empty if it is none.
    pub(crate) fn problem(&self) -> String {
        if self.headers.get(header::CONTENT_TYPE).is_none_or(|form| form != problem::CONTENT_TYPE) {
            return String::new();
        }
        let kind = self.json()["type"].as_str().unwrap().to_owned();
        kind.strip_prefix("urn:ringway:problem:").unwrap().to_owned()
    }

    /// What every answer must have, whatever it is.
    fn check(&self) {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(self.headers.get(name).expect(name), value);
        }
        let policy = self.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        if self.status.is_client_error() || self.status.is_server_error() {
            let problem = self.problem();
            assert!(
                !problem.is_empty() || self.status == StatusCode::SERVICE_UNAVAILABLE,
                "{self:?}"
            );
            if !problem.is_empty() {
                let body = self.json();
                assert_eq!(body["status"], self.status.as_u16());
                assert!(body["title"].is_string() && body["instance"].is_string());
                assert!(!body["detail"].as_str().unwrap().is_empty());
            }
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(self.headers.contains_key(header::RETRY_AFTER));
        }
    }
}

/// Accounts in memory, which can be told to fail.
#[derive(Default)]
pub(crate) struct FakeAccounts {
    pub(crate) users: Mutex<BTreeMap<UserId, (User, String)>>,
    pub(crate) tokens: Mutex<BTreeMap<[u8; 32], Token>>,
    pub(crate) fails: Mutex<Option<StoreError>>,
}

impl FakeAccounts {
    fn fill(&self) {
        let roles = [
            ("root", Some(Role::Administrator)),
            ("olga", Some(Role::Operator)),
            ("vera", Some(Role::Viewer)),
            ("nora", None),
        ];
        for (name, role) in roles {
            let id = self.add(name, role);
            self.give_token(id, &format!("token-{name}"), &["*"]);
        }
    }

    pub(crate) fn add(&self, name: &str, role: Option<Role>) -> UserId {
        let id = UserId::fresh();
        let user = User {
            id,
            name: name.to_owned(),
            display_name: name.to_owned(),
            group: None,
            policy: None,
            role,
            state: UserState::Active,
            expires_at: None,
            rate: None,
            quota: None,
            has_password: true,
            has_totp: false,
            totp_kind: None,
            created_at: BEGIN,
            version: 1,
        };
        self.users.lock().unwrap().insert(id, (user, format!("password of {name}")));
        id
    }

    pub(crate) fn give_token(&self, user: UserId, secret: &str, scopes: &[&str]) -> TokenId {
        let id = TokenId::fresh();
        let token = Token {
            id,
            user,
            name: secret.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            expires_at: None,
            last_used_at: None,
            created_at: BEGIN,
        };
        self.tokens.lock().unwrap().insert(hash(secret.as_bytes()), token);
        id
    }

    pub(crate) fn id(&self, name: &str) -> UserId {
        let users = self.users.lock().unwrap();
        users.values().find(|(user, _)| user.name == name).unwrap().0.id
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut User, &mut String)) {
        let id = self.id(name);
        let mut users = self.users.lock().unwrap();
        let (user, password) = users.get_mut(&id).unwrap();
        change(user, password);
    }

    fn answer<T: Send + 'static>(&self, found: impl FnOnce() -> T) -> Later<Result<T, StoreError>> {
        let answer = match self.fails.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(found()),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Accounts for FakeAccounts {
    fn has_user(&self, name: String) -> Later<Result<bool, StoreError>> {
        self.answer(|| self.users.lock().unwrap().values().any(|(user, _)| user.name == name))
    }

    fn by_token(&self, secret_hash: [u8; 32]) -> Later<Result<Option<(Token, User)>, StoreError>> {
        self.answer(|| {
            let token = self.tokens.lock().unwrap().get(&secret_hash).cloned()?;
            let user = self.users.lock().unwrap().get(&token.user)?.0.clone();
            Some((token, user))
        })
    }

    fn by_id(&self, user: UserId) -> Later<Result<Option<Account>, StoreError>> {
        self.answer(|| {
            let users = self.users.lock().unwrap();
            let (user, password) = users.get(&user)?;
            let password_print = hash(password.as_bytes());
            Some(Account { user: user.clone(), password_print })
        })
    }

    fn has_administrator(&self) -> Later<Result<bool, StoreError>> {
        self.answer(|| {
            let users = self.users.lock().unwrap();
            users.values().any(|(user, _)| user.role == Some(Role::Administrator))
        })
    }

    fn make_first(
        &self,
        name: String,
        password: Zeroizing<String>,
        _: Timestamp,
    ) -> Later<Result<UserId, Problem>> {
        let taken = self
            .users
            .lock()
            .unwrap()
            .values()
            .any(|(user, _)| user.role == Some(Role::Administrator));
        if taken {
            let gone = Problem::new(Reason::Gone, "There is one");
            return Box::pin(std::future::ready(Err(gone)));
        }
        if password.len() < 10 {
            let weak = FieldError::new("/password", "is too short");
            return Box::pin(std::future::ready(Err(Problem::invalid(vec![weak]))));
        }
        let id = self.add(&name, Some(Role::Administrator));
        self.change(&name, |_, own| own.clone_from(&password));
        Box::pin(std::future::ready(Ok(id)))
    }

    fn touch(&self, token: TokenId, now: Timestamp) -> Later<Result<(), StoreError>> {
        self.answer(|| {
            for known in self.tokens.lock().unwrap().values_mut().filter(|own| own.id == token) {
                known.last_used_at = Some(now);
            }
        })
    }
}

/// A sign-in that compares texts; `challenged` has one more factor, the code `stale` an old print.
struct FakeSignIn(Arc<FakeAccounts>);

impl SignIn for FakeSignIn {
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome> {
        let (users, password) = (self.0.users.lock().unwrap(), attempt.password.as_deref());
        let mut proved = Proved::of(vec![Factor::Password]);
        let is_stale = attempt.totp.as_deref().is_some_and(|code| code == "stale");
        proved.password_print = is_stale.then_some([9; 32]);
        let outcome = match attempt.name.as_deref().unwrap_or_default() {
            "challenged" if attempt.totp.is_none() => SignInOutcome::Challenge {
                factor: Factor::Totp,
                prompt: "one-time password".to_owned(),
                continuation: "c1".to_owned(),
            },
            "flooder" => SignInOutcome::TooMany { retry_after_s: 9 },
            "nobody-home" => SignInOutcome::Unavailable { retry_after_s: 3 },
            name => {
                let is = |(user, own): &&(User, String)| user.name == name && Some(own) == password;
                let user = users.values().find(is).map(|(user, _)| (user.id, user.name.clone()));
                let accepted = |(user, name)| SignInOutcome::Accepted { user, name, proved };
                user.map_or(SignInOutcome::Refused, accepted)
            }
        };
        Box::pin(std::future::ready(outcome))
    }
}

/// A gateway that remembers what it was told.
#[derive(Default)]
pub(crate) struct FakeLive {
    pub(crate) told: Mutex<Vec<String>>,
    pub(crate) fails: Mutex<Option<LiveError>>,
    pub(crate) panics: AtomicBool,
    pub(crate) unhealthy: AtomicBool,
}

impl FakeLive {
    fn answer<T: Send + 'static>(&self, said: String, answer: T) -> Reply<T> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to panic, with /a/secret/path");
        self.told.lock().unwrap().push(said);
        let answer = match self.fails.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(answer),
        };
        Box::pin(std::future::ready(answer))
    }

    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

fn node(status: &str) -> NodeView {
    NodeView {
        id: "local".to_owned(),
        kind: "local".to_owned(),
        status: status.to_owned(),
        sessions: 1,
        load: 0.5,
        addresses: vec!["198.51.100.7".to_owned()],
        last_seen: Some(BEGIN),
    }
}

fn drain_view(draining: bool, deadline: Option<Timestamp>) -> DrainView {
    let session = DrainSession { id: 17, user: "anna".to_owned(), why: "active".to_owned() };
    let started_at = draining.then_some(BEGIN);
    DrainView { draining, started_at, deadline, left: 1, sessions: vec![session] }
}

pub(crate) fn session(id: u64) -> SessionView {
    SessionView {
        id,
        user: "anna".to_owned(),
        client_ip: Some("192.0.2.9".parse().unwrap()),
        exit_node: "local".to_owned(),
        connected_at: BEGIN,
        last_activity: BEGIN,
        bytes_sent: 10,
        bytes_received: 20,
        status: SessionState::Active,
        tunnel: vec!["10.9.0.2".to_owned()],
        user_id: None,
        device_id: None,
        device: Some("phone".to_owned()),
        public_key: None,
        endpoint: None,
        state_since: BEGIN,
        protocol: "wireguard".to_owned(),
        core: 0,
        path_mtu: Some(1420),
        rate_up_bps: 1,
        rate_down_bps: 2,
    }
}

impl Live for FakeLive {
    fn status(&self) -> Reply<StatusView> {
        let view = StatusView {
            version: "0.1.0".to_owned(),
            interface: "rw0".to_owned(),
            state: "running".to_owned(),
            started_at: BEGIN,
            uptime_s: 1,
            public_key: "k".to_owned(),
            listen_port: 51820,
            cores: 2,
            sessions: 1,
            peers: 1,
            max_clients: 100,
            bytes_received: 20,
            bytes_sent: 10,
            api: Vec::new(),
        };
        self.answer("status".to_owned(), view)
    }

    fn health(&self) -> Reply<HealthView> {
        let healthy = !self.unhealthy.load(Ordering::SeqCst);
        let (name, why) = ("cores".to_owned(), (!healthy).then(|| "core 1 hangs".to_owned()));
        let view = HealthView { healthy, parts: vec![HealthPart { name, healthy, why }] };
        self.answer("health".to_owned(), view)
    }

    fn metrics(&self) -> Reply<String> {
        self.answer("metrics".to_owned(), "# TYPE ringway_x gauge\nringway_x 1\n# EOF\n".to_owned())
    }

    fn sessions(&self, filter: SessionFilter, page: LivePage) -> Reply<Paged<SessionView>> {
        let items = vec![session(17)];
        self.answer(format!("{filter:?} {page:?}"), Paged { items, next: Some("18".to_owned()) })
    }

    fn end_session(&self, id: u64, reason: Option<String>, actor: String) -> Reply<()> {
        if id != 17 {
            let error = LiveError::NotFound(format!("session {id}"));
            return Box::pin(std::future::ready(Err(error)));
        }
        self.answer(format!("end {id} {reason:?} {actor}"), ())
    }

    fn nodes(&self) -> Reply<Vec<NodeView>> {
        self.answer("nodes".to_owned(), vec![node("healthy")])
    }

    fn enable_node(&self, id: String, enabled: bool, actor: String) -> Reply<NodeView> {
        let status = if enabled { "healthy" } else { "disabled" };
        let error = match (id.as_str(), enabled) {
            ("local", false) => LiveError::Conflict("It is the last exit".to_owned()),
            ("local" | "second", _) => {
                return self.answer(format!("{id} {enabled} {actor}"), node(status));
            }
            _ => LiveError::NotFound(format!("node {id}")),
        };
        Box::pin(std::future::ready(Err(error)))
    }

    fn usage_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report> {
        let body = match format {
            ReportFormat::Json => json!({ "from": span.from, "to": span.to }).to_string(),
            ReportFormat::Csv => "user,bytes\n".to_owned(),
            ReportFormat::Html => "<!doctype html>".to_owned(),
        };
        self.answer(format!("usage {format:?}"), Report { body })
    }

    fn performance_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report> {
        self.usage_report(span, format)
    }

    fn start_drain(&self, deadline: Timestamp, actor: String) -> Reply<DrainView> {
        let after = deadline.since(BEGIN);
        self.answer(format!("drain {after} {actor}"), drain_view(true, Some(deadline)))
    }

    fn stop_drain(&self, actor: String) -> Reply<DrainView> {
        self.answer(format!("undrain {actor}"), drain_view(false, None))
    }

    fn drain(&self) -> Reply<DrainView> {
        self.answer("drain?".to_owned(), drain_view(false, None))
    }
}
