//! The resources through the whole frame: a real directory behind a real router, without sockets.

mod devices;
mod enrol;
mod me;
mod records;
mod routes;

use std::sync::Arc;

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::part;
use crate::api::accounts::{PasswordRefused, Passwords, StoreAccounts};
use crate::api::fake::{Answer, Ask, World};
use crate::api::first_start::FirstStart;
use crate::api::gatekeeper::Door;
use crate::api::sign_in::Later;
use crate::api::state::Allowances;
use crate::api::{ApiState, Parts, SignIn, SignInAttempt, SignInOutcome, Source, router};
use crate::directory::input::NewToken;
use crate::directory::tests::{Desk, root};
use crate::directory::{Directory, Proved, Refusal};
use crate::keys::SystemRandom;
use crate::store::records::{Factor, Role};

/// The API over a directory with `chief` (administrator), `olga` (operator), `vera` (viewer) and
/// `nora`, who has no role.
struct Office {
    desk: Desk,
    world: World,
    tokens: Vec<(&'static str, String)>,
}

/// Who there is.
const PEOPLE: [(&str, Option<Role>); 4] = [
    ("chief", Some(Role::Administrator)),
    ("olga", Some(Role::Operator)),
    ("vera", Some(Role::Viewer)),
    ("nora", None),
];

impl Office {
    async fn new(name: &str) -> Self {
        Self::with(name, generous()).await
    }

    async fn with(name: &str, allowances: Allowances) -> Self {
        let desk = Desk::new(&format!("api_{name}")).await;
        let mut tokens = Vec::new();
        for (name, role) in PEOPLE {
            desk.user(name, role).await;
            let password = crate::directory::input::Secret::new(format!("password of {name}!"));
            // The name may not be in a password, so each has another letter in its place.
            let password =
                crate::directory::input::Secret::new(password.0.replace(name, &secret_of(name)));
            desk.directory.set_password(&root(), name, None, password).await.unwrap();
            let scope = if role.is_some() { "*" } else { "me:write" };
            let form =
                NewToken { name: "t".to_owned(), scopes: vec![scope.to_owned()], expires_at: None };
            let made = desk.directory.create_token(&root(), name, form).await.unwrap();
            tokens.push((name, made.secret.0.to_string()));
        }
        let mut world = World::with(&format!("resources_{name}"), generous(), true).await;
        let clock = {
            let directory = desk.directory.clone();
            Arc::new(move || directory.now())
        };
        let store = desk.directory.store().clone();
        let (first_start, _) =
            FirstStart::prepare(world.folder.path(), true, &mut SystemRandom).unwrap();
        let state = ApiState::new(Parts {
            live: Arc::clone(&world.live) as Arc<_>,
            accounts: Arc::new(StoreAccounts::new(store, Arc::new(NoHash))),
            sign_in: Arc::new(ByPassword(desk.directory.clone())),
            configs: Arc::clone(&world.configs),
            first_start,
            hub: desk.hub.clone(),
            clock,
            own_uid: 4242,
            allowances,
        });
        (world.router, world.document) = router(&state, vec![part(desk.directory.clone())]);
        world.state = state;
        Self { desk, world, tokens }
    }

    fn token(&self, name: &str) -> &str {
        &self.tokens.iter().find(|(own, _)| *own == name).unwrap().1
    }

    /// What `name` gets for a request without a body.
    async fn ask(&self, name: &str, method: &str, path: &str) -> Answer {
        self.world.send(Ask::new(method, path).token(self.token(name))).await
    }

    /// What `name` gets for a request with a body.
    async fn tell(&self, name: &str, method: &str, path: &str, body: Value) -> Answer {
        self.world.send(Ask::new(method, path).token(self.token(name)).json(&body)).await
    }

    /// What `name` gets who has signed in rather than sent a token.
    async fn signed_in(&self, name: &str, method: &str, path: &str, body: Value) -> Answer {
        let credentials = json!({"name": name, "password": password_of(name)});
        let answer = self.world.send(Ask::post("/api/v1/session").json(&credentials)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();
        let ask = Ask::new(method, path).header("cookie", &cookie).header("x-csrf-token", &csrf);
        self.world.send(ask.json(&body)).await
    }

    /// What root gets on the gateway's own host.
    async fn on_the_host(&self, method: &str, path: &str, body: Value) -> Answer {
        let ask = Ask::new(method, path).via(Door::Unix, Source::Unix { uid: 0 });
        self.world.send(ask.json(&body)).await
    }
}

fn secret_of(name: &str) -> String {
    name.chars().rev().collect::<String>() + "#"
}

fn password_of(name: &str) -> String {
    format!("password of {}!", secret_of(name))
}

fn generous() -> Allowances {
    let plenty = crate::api::rate::Allowance { per_second: 100_000, burst: 100_000 };
    Allowances {
        per_source: plenty,
        per_caller: plenty,
        self_service: plenty,
        ..Allowances::default()
    }
}

/// Refuses with this status, this reason, and these places.
#[track_caller]
fn refused(answer: &Answer, status: u16, reason: &str, places: &[&str]) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, reason), "{answer:?}");
    let body = answer.json();
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    let found: Vec<&str> = errors.iter().map(|one| one["pointer"].as_str().unwrap()).collect();
    assert_eq!(found, places, "{body}");
}

/// The first administrator is made elsewhere.
struct NoHash;

impl Passwords for NoHash {
    fn hash(&self, _: &str, _: &str) -> Result<String, PasswordRefused> {
        Err(PasswordRefused::Weak("not here".to_owned()))
    }
}

/// Signs in whoever has the password, which the directory of tests keeps as it is.
struct ByPassword(Directory);

impl SignIn for ByPassword {
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome> {
        let directory = self.0.clone();
        Box::pin(async move {
            let Ok(user) = directory.user(&attempt.name.unwrap_or_default()).await else {
                return SignInOutcome::Refused;
            };
            let id = user.id;
            let secrets = directory.store().read(move |db| db.user_secrets(id)).await.unwrap();
            let given = attempt.password.map(|password| format!("plain:{}", *password));
            if given.is_some() && given == secrets.password_hash {
                let proved = Proved::of(vec![Factor::Password]);
                SignInOutcome::Accepted { user: user.id, name: user.name, proved }
            } else {
                SignInOutcome::Refused
            }
        })
    }
}

#[test]
fn every_refusal_of_the_directory_has_a_status_of_its_own_kind() {
    let problem = |refusal: Refusal| crate::api::Problem::from(refusal).reason.status().as_u16();
    let text = || "x".to_owned();
    for (refusal, status) in [
        (Refusal::field("/x", "y"), 422),
        (Refusal::missing("user", "x"), 404),
        (Refusal::Taken { pointer: text(), message: text() }, 409),
        (Refusal::Stale { kind: "user" }, 412),
        (Refusal::InUse(text()), 409),
        (Refusal::Forbidden(text()), 403),
        (Refusal::LastAdministrator(text()), 409),
        (Refusal::Conflict(text()), 409),
        (Refusal::PoolFull(text()), 409),
        (Refusal::Full(text()), 409),
        (Refusal::LinkRefused, 410),
        (Refusal::Store(crate::store::StoreError::Busy { why: text() }), 503),
    ] {
        let shown = format!("{refusal:?}");
        assert_eq!(problem(refusal), status, "{shown}");
    }
}
