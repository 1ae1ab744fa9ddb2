//! The API over a real store, a real sign-in, real sockets: asked by a program that knows only its
//! document.
//!
//! The gateway behind it is played; everything in front of it is what `ringway run` serves.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use ringway_control::api::accounts::{Accounts as _, StoreAccounts};
use ringway_control::api::doors::Board;
use ringway_control::api::first_start::FirstStart;
use ringway_control::api::live::*;
use ringway_control::api::rate::Allowance;
use ringway_control::api::server::{self, Doors, Server, bounds::Bounds};
use ringway_control::api::state::Allowances;
use ringway_control::api::{ApiState, Paged, Parts, resources, router};
use ringway_control::auth::{Gate, Settings};
use ringway_control::config::{InterfaceAddress, Overrides};
use ringway_control::configs::{ConfigParts, Configs, Later, ReloadError, Reloader, StoreHistory};
use ringway_control::directory::{Directory, LocalCredentials, Surroundings};
use ringway_control::events::Hub;
use ringway_control::keys::SystemRandom;
use ringway_control::store::ids::{Timestamp, TokenId};
use ringway_control::store::records::Token;
use ringway_control::store::{Store, StoreOptions, StoreUrl};
use sha2::Digest as _;
use zeroize::Zeroizing;

const NOW: Timestamp = Timestamp(1_796_000_000_000);
const PASSWORD: &str = "correct horse battery";
const TOKEN: &str = "a-token-of-the-administrator";
const CONFIG: &str =
    "[interface]\nname = \"rw0\"\nlisten_port = 51820\npools = [\"10.9.0.0/16\"]\n";

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway_api_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Host {
    server: Server,
    folder: Folder,
}

impl Host {
    async fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let file = folder.0.join("ringway.toml");
        fs::write(&file, CONFIG).unwrap();
        let url = format!("sqlite:{}", folder.0.join("ringway.db").display());
        let options = StoreOptions::default();
        let store = Store::open(&StoreUrl::parse(&url).unwrap(), &options).await.unwrap();
        let gate = Gate::builder(Settings::default(), Arc::new(store.clone())).unwrap().build();
        let accounts = StoreAccounts::new(store.clone(), Arc::new(gate.hasher().clone()));
        let (first_start, said) = FirstStart::prepare(&folder.0, false, &mut SystemRandom).unwrap();
        assert!(said.is_some());
        let hub = Hub::default();
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(|| NOW);
        let configs = Arc::new(Configs::new(ConfigParts {
            file,
            state_dir: folder.0.clone(),
            overrides: Overrides::default(),
            reloader: Arc::new(Played),
            history: StoreHistory::shared(store.clone(), "gateway".to_owned()),
            hub: hub.clone(),
            clock: Arc::clone(&clock),
            trial: None,
        }));
        configs.note_file().await.unwrap();
        give_token(&store, &accounts).await;
        let credentials = Arc::new(LocalCredentials::new(gate.hasher().clone(), "Ringway"));
        let directory = Directory::new(
            store.clone(),
            hub.clone(),
            Arc::clone(&clock),
            credentials,
            surroundings(),
        );
        directory.take_configured_pools().await.unwrap();
        let much = Allowance { per_second: 1_000_000, burst: 1_000_000 };
        let state = ApiState::new(Parts {
            live: Arc::new(Played),
            accounts: Arc::new(accounts),
            sign_in: Arc::new(gate),
            configs: Arc::clone(&configs),
            first_start,
            hub,
            clock,
            own_uid: rustix::process::getuid().as_raw(),
            allowances: Allowances {
                per_source: much,
                per_caller: much,
                self_service: much,
                ..Allowances::default()
            },
        });
        let (router, _) = router(&state, vec![resources::part(directory)]);
        let doors = Doors {
            unix: Some(folder.0.join("rw0.api")),
            plain: vec!["127.0.0.1:0".parse().unwrap()],
            ..Doors::default()
        };
        let server =
            server::start(doors, Bounds::default(), router, configs, Board::default()).unwrap();
        Self { server, folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addresses()[0])
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        gateway: ringway_proto::crypto::PublicKey([1; 32]),
        addresses: vec![InterfaceAddress { address: "10.9.0.1".parse().unwrap(), prefix: 16 }],
        pool4: Some("10.9.0.0/16".parse().unwrap()),
        pool6: None,
        peers_max: 100,
        peers: Vec::new(),
        mtu: 1420,
        endpoint: Some("vpn.example.org:51820".to_owned()),
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
        dns: Vec::new(),
        keepalive_s: 25,
        portal: Some("https://vpn.example.org".to_owned()),
        groups_from_credentials: false,
    }
}

/// Makes the first administrator and a token for everything.
async fn give_token(store: &Store, accounts: &StoreAccounts) {
    let password = Zeroizing::new(PASSWORD.to_owned());
    let user = accounts.make_first("boss".to_owned(), password, NOW).await.unwrap();
    let token = Token {
        id: TokenId::fresh(),
        user,
        name: "test".to_owned(),
        scopes: vec!["*".to_owned()],
        expires_at: None,
        last_used_at: None,
        created_at: NOW,
    };
    let hash: [u8; 32] = sha2::Sha256::digest(TOKEN).into();
    store.write(move |db| db.insert_token(&token, &hash)).await.unwrap();
}

/// Runs a tool of `tools/setup`, from its folder or from the path.
fn tool(name: &str) -> Command {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let cache =
        std::env::var_os("RINGWAY_CACHE").map_or_else(|| cache.join("ringway"), PathBuf::from);
    let kept = cache.join("tools/bin").join(name);
    Command::new(if kept.exists() { kept } else { PathBuf::from(name) })
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

#[tokio::test]
async fn what_the_document_promises_holds_for_thousands_of_requests() {
    let host = Host::new("contract").await;
    let checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "ignored_auth",
    ];
    // A text that is too long may make a body that is too large, and that is said of it then.
    let refusals = "[400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, \"5xx\"]";
    let config = format!("[checks]\nnegative_data_rejection.expected-statuses = {refusals}\n");
    fs::write(host.folder.0.join("schemathesis.toml"), config).unwrap();
    let mut program = tool("schemathesis");
    program
        .args(["run", &host.url("/api/v1/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--checks", &checks.join(",")])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "20", "--seed", "1", "--generation-deterministic"])
        // An identifier that few texts match is no fault of ours.
        .args(["--suppress-health-check", "filter_too_much"])
        .args(["--request-timeout", "10", "--no-color"])
        // A stream does not end.
        .args(["--exclude-path", "/api/v1/events"])
        .current_dir(&host.folder.0);
    let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap();
    let output = output.expect("schemathesis is missing: run tools/setup test");
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test]
async fn the_first_administrator_signs_in_by_curl_and_is_asked_for_the_token_of_the_page() {
    let host = Host::new("sign_in").await;
    let jar = host.folder.0.join("cookies");
    let jar = jar.to_str().unwrap().to_owned();
    let url = host.url("/api/v1/session");
    let drain = host.url("/api/v1/drain");
    let curl = async |arguments: Vec<String>| {
        let mut program = Command::new("curl");
        program.args(["--silent", "--max-time", "20"]).args(arguments);
        let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap();
        String::from_utf8(output.expect("run tools/setup test").stdout).unwrap()
    };
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let json = "Content-Type: application/json";
    let sign_in = |password: &str| {
        let body = format!("{{\"name\":\"boss\",\"password\":\"{password}\"}}");
        words(&["--cookie-jar", &jar, "-H", json, "-d", &body, &url])
    };
    let refused = curl(sign_in("a wrong password")).await;
    assert!(refused.contains("urn:ringway:problem:sign-in-refused"), "{refused}");
    let answer = curl(sign_in(PASSWORD)).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["actor"], &answer["role"]), (&"user:boss".into(), &"administrator".into()));
    let without = words(&["--cookie", &jar, "-X", "DELETE", &drain]);
    assert!(curl(without.clone()).await.contains("csrf-refused"));
    let token = format!("X-CSRF-Token: {}", answer["csrf_token"].as_str().unwrap());
    let with = [words(&["-H", &token]), without].concat();
    assert!(curl(with).await.contains("\"draining\":false"));
}

/// A gateway that is well and has nobody in it.
struct Played;

impl Reloader for Played {
    fn reload(&self) -> Later<Result<String, ReloadError>> {
        Box::pin(std::future::ready(Ok("Nothing changed".to_owned())))
    }
}

fn answer<T: Send + 'static>(answer: T) -> Reply<T> {
    Box::pin(std::future::ready(Ok(answer)))
}

fn nothing<T: Send + 'static>(what: String) -> Reply<T> {
    Box::pin(std::future::ready(Err(LiveError::NotFound(what))))
}

fn report(format: ReportFormat) -> Reply<Report> {
    let body = match format {
        ReportFormat::Json => "{}",
        ReportFormat::Csv => "user,bytes\n",
        ReportFormat::Html => "<!doctype html><title>Report</title>",
    };
    answer(Report { body: body.to_owned() })
}

fn drain(deadline: Option<Timestamp>) -> DrainView {
    let (draining, started_at) = (deadline.is_some(), deadline.map(|_| NOW));
    DrainView { draining, started_at, deadline, left: 0, sessions: Vec::new() }
}

impl Live for Played {
    fn status(&self) -> Reply<StatusView> {
        answer(StatusView {
            version: "0.1.0".to_owned(),
            interface: "rw0".to_owned(),
            state: "running".to_owned(),
            started_at: NOW,
            uptime_s: 1,
            public_key: "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".to_owned(),
            listen_port: 51820,
            cores: 2,
            sessions: 0,
            peers: 0,
            max_clients: 100,
            bytes_received: 0,
            bytes_sent: 0,
            api: Vec::new(),
        })
    }

    fn health(&self) -> Reply<HealthView> {
        answer(HealthView { healthy: true, parts: Vec::new() })
    }

    fn metrics(&self) -> Reply<String> {
        answer("# EOF\n".to_owned())
    }

    fn sessions(&self, _: SessionFilter, _: LivePage) -> Reply<Paged<SessionView>> {
        answer(Paged { items: Vec::new(), next: None })
    }

    fn end_session(&self, id: u64, _: Option<String>, _: String) -> Reply<()> {
        nothing(format!("session {id}"))
    }

    fn nodes(&self) -> Reply<Vec<NodeView>> {
        answer(Vec::new())
    }

    fn enable_node(&self, id: String, _: bool, _: String) -> Reply<NodeView> {
        nothing(format!("node {id}"))
    }

    fn usage_report(&self, _: ReportSpan, format: ReportFormat) -> Reply<Report> {
        report(format)
    }

    fn performance_report(&self, _: ReportSpan, format: ReportFormat) -> Reply<Report> {
        report(format)
    }

    fn start_drain(&self, deadline: Timestamp, _: String) -> Reply<DrainView> {
        answer(drain(Some(deadline)))
    }

    fn stop_drain(&self, _: String) -> Reply<DrainView> {
        answer(drain(None))
    }

    fn drain(&self) -> Reply<DrainView> {
        answer(drain(None))
    }
}
