//! All of people's half over fake cores, asked over HTTPS by `curl` with certificates that
//! `openssl` made.

#![allow(clippy::unwrap_used, reason = "tests")]

mod command;
mod doors;
mod news;
mod patience;
mod responders;
mod signing_in;

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use ringway_proto::crypto::PrivateKey;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::api::server::tls::Tls;
use crate::authority::Authority;
use crate::directory::Actor;
use crate::directory::input::{NewDevice, NewPolicy, NewUser, Secret};
use crate::gateway::fake_cores::{Told, desk};
use crate::scratch::Scratch;
use crate::store::records::{Device, Factor, UserSecrets};

const PASSWORD: &str = "correct horse battery";
const TOTP_SECRET: [u8; 20] = [5; 20];

/// How long a test waits for what must happen.
const SOON: Duration = Duration::from_secs(20);

/// A gateway, and who made the certificates of its clients.
struct World {
    folder: Scratch,
    authority: Authority,
    /// An authority below that one.
    branch: Authority,
    issuer: KeyPair,
    people: Rc<People>,
    told: Rc<Told>,
    port: u16,
    task: JoinHandle<()>,
    _reloads: mpsc::Receiver<ReloadRequest>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the API answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    /// The code and the sentence of a refusal.
    #[track_caller]
    fn problem(&self) -> (u16, &str, &str) {
        let kind = self.body["type"].as_str().unwrap_or_else(|| panic!("{self:?}"));
        let code = kind.strip_prefix("urn:ringway:problem:").unwrap();
        (self.status, code, self.body["detail"].as_str().unwrap())
    }
}

impl World {
    async fn new(name: &str) -> Self {
        Self::with(name, "").await
    }

    /// With more in `[sign_in]`.
    async fn with(name: &str, sign_in: &str) -> Self {
        let folder = Scratch::new(&format!("people_{name}"));
        let authority = Authority::new(&folder.path().join("authority"), "Crew CA");
        authority.publish();
        let branch = authority.below("branch");
        branch.publish();
        let issuer = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        std::fs::write(folder.path().join("keys.json"), key_set(&issuer)).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        Tls::self_made(folder.path(), names, 2026).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (desk, told) = desk(1);
        let (reloads, heard) = mpsc::channel(1);
        let people = People::new(plan(&folder, port, sign_in), desk, reloads);
        let task = spawn_local(Rc::clone(&people).run());
        let world =
            Self { folder, authority, branch, issuer, people, told, port, task, _reloads: heard };
        until(|| world.people.running.borrow().is_some()).await;
        until(|| TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        world
    }

    /// The process ends, and the next one begins with its records and other cores.
    async fn restart(&mut self) {
        self.task.abort();
        let plan = self.people.plan.borrow().clone();
        let (desk, told) = desk(1);
        let (reloads, heard) = mpsc::channel(1);
        (self.told, self._reloads) = (told, heard);
        self.people = People::new(plan, desk, reloads);
        self.task = spawn_local(Rc::clone(&self.people).run());
        until(|| self.people.reached.api.borrow().is_some()).await;
        until(|| TcpStream::connect(("127.0.0.1", self.port)).is_ok()).await;
    }

    fn directory(&self) -> Directory {
        self.people.running.borrow().as_ref().unwrap().directory.clone()
    }

    fn service(&self) -> Rc<Service> {
        Rc::clone(&self.people.running.borrow().as_ref().unwrap().service)
    }

    /// A user with a password and a device, whose policy asks for these.
    async fn user(&self, name: &str, factors: &[Factor]) -> Device {
        let (directory, root) = (self.directory(), Actor::local(0));
        let policy = format!("for-{name}");
        let form = NewPolicy {
            name: policy.clone(),
            factors: Some(factors.to_vec()),
            ..serde_json::from_value(json!({ "name": "x" })).unwrap()
        };
        directory.create_policy(&root, form).await.unwrap();
        let form = NewUser { name: name.to_owned(), policy: Some(policy), ..NewUser::default() };
        let user = directory.create_user(&root, form).await.unwrap();
        let password = Secret::new(PASSWORD);
        directory.set_password(&root, name, None, password).await.unwrap();
        let id = user.id;
        let with_totp = directory.store().write(move |db| {
            let secrets =
                UserSecrets { totp_secret: Some(TOTP_SECRET.to_vec()), ..db.user_secrets(id)? };
            db.set_user_secrets(id, &secrets)
        });
        with_totp.await.unwrap();
        let form = NewDevice { name: "laptop".to_owned(), ..NewDevice::default() };
        directory.add_device(&root, name, form).await.unwrap().view.device
    }

    fn is_peer(&self, device: &Device) -> bool {
        self.told.peers.borrow().keys().any(|(_, public)| *public == device.public_key)
    }

    /// Posts `body` over HTTPS, with the certificate in these files if there is one. The control
    /// thread goes on meanwhile.
    async fn post(&self, path: &str, certificate: Option<&str>, body: &Value) -> Answer {
        self.curl(path, certificate, body, &[]).await
    }

    async fn curl(
        &self,
        path: &str,
        certificate: Option<&str>,
        body: &Value,
        more: &[&str],
    ) -> Answer {
        let trust = self.folder.path().join("api-certificate.pem");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(trust);
        command.args([
            "--write-out",
            "\n%{http_code}",
            "--header",
            "Content-Type: application/json",
        ]);
        command.args(["--data", &body.to_string()]).args(more);
        if let Some(name) = certificate {
            command.arg("--cert").arg(self.authority.file(name, "pem"));
            command.arg("--key").arg(self.authority.file(name, "key"));
        }
        command.arg(format!("https://localhost:{}{path}", self.port));
        let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let done = done.expect("curl is missing: run tools/setup test");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Answer { status: status.parse().unwrap(), body }
    }

    async fn access(&self, certificate: Option<&str>, body: Value) -> Answer {
        self.post("/api/v1/access/sign-in", certificate, &body).await
    }

    /// A token of the issuer for `name` that ends after so many seconds.
    fn token(&self, name: &str, seconds: i64) -> String {
        let now = now().0 / 1000;
        let claims = json!({
            "iss": "https://id.example.org", "aud": "ringway", "sub": name,
            "iat": now, "exp": now + seconds,
        });
        let key = EncodingKey::from_ec_pem(self.issuer.serialize_pem().as_bytes()).unwrap();
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

fn plan(folder: &Scratch, port: u16, sign_in: &str) -> Plan {
    let file = folder.path().join("ringway.toml");
    let text = format!(
        "[interface]\nname = \"rwt0\"\nlisten_port = 51820\npools = [\"10.9.0.0/24\"]\n\
         [api]\nsocket = \"off\"\nlisten = [\"127.0.0.1:{port}\"]\n\
         certificate_file = \"api-certificate.pem\"\nkey_file = \"api-key.pem\"\n\
         [sign_in]\ncertificate_authorities = \"authority/ca.pem\"\n\
         revocation_lists = [\"authority/ca.crl\", \"authority/branch/ca.crl\"]\n{sign_in}\
         [[issuer]]\nname = \"id\"\nissuer = \"https://id.example.org\"\n\
         audience = \"ringway\"\nalgorithms = [\"ES256\"]\nkeys = \"keys.json\"\n"
    );
    std::fs::write(&file, &text).unwrap();
    let config = Config::parse(&text, "t", folder.path(), &Overrides::default()).unwrap();
    Plan {
        config,
        gateway: PrivateKey::from_bytes([7; 32]).public(),
        file,
        state_dir: folder.path().to_owned(),
        overrides: Overrides::default(),
        trial: None,
    }
}

/// The issuer's public key, as issuers publish it.
fn key_set(key: &KeyPair) -> String {
    let (x, y) = key.der_bytes()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y }] }).to_string()
}

/// The one-time password of this moment.
fn code() -> String {
    let now = u64::try_from(now().0).unwrap() / 1000;
    let secret = TOTP_SECRET.to_vec();
    let algorithm = totp_rs::Algorithm::SHA1;
    totp_rs::TOTP::new_unchecked(algorithm, 6, 1, 30, secret, None, String::new()).generate(now)
}

/// Waits until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    let devices = answer.body["devices"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    devices.iter().map(|device| device["name"].as_str().unwrap()).collect()
}
