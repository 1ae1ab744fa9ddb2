use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use rustls::pki_types::CertificateDer;

use super::super::backend::{Abort, Answer, Proof, Request, Work};
use super::super::ban::BanSettings;
use super::super::cache::CacheSettings;
use super::super::challenges::ChallengeSettings;
use super::super::memory::{Memory, person};
use super::super::password::PasswordSettings;
use super::super::people::Person;
use super::super::source::Lists;
use super::*;
use crate::store::records::UserState;

pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub(super) const RIGHT: &str = "three small boats";
const SECRET: &[u8] = b"12345678901234567890";

/// A gate in memory with a clock that the test turns.
pub(super) struct World {
    pub(super) gate: Gate,
    pub(super) memory: Memory,
    clock: Arc<AtomicI64>,
}

pub(super) fn settings() -> Settings {
    Settings {
        passwords: PasswordSettings { memory_kib: 64, passes: 1, lanes: 1, at_once: 4 },
        bans: BanSettings { source_rate: 1000, source_burst: 100_000, ..BanSettings::default() },
        ..Settings::default()
    }
}

/// No bans: for tests that fail more often than anybody may.
pub(super) fn patient() -> Settings {
    let bans = BanSettings {
        source_points: u32::MAX,
        site_points: u32::MAX,
        user_points: u32::MAX,
        ..settings().bans
    };
    Settings { bans, ..settings() }
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self::with(settings, |builder| builder)
    }

    pub(super) fn with(settings: Settings, more: impl FnOnce(Builder) -> Builder) -> Self {
        let memory = Memory::default();
        let clock = Arc::new(AtomicI64::new(NOW.0));
        let time = Arc::clone(&clock);
        let builder = Gate::builder(settings, Arc::new(memory.clone())).unwrap();
        let builder = more(builder.clock(Arc::new(move || Timestamp(time.load(Ordering::SeqCst)))));
        let world = Self { gate: builder.build(), memory, clock };
        let hash = world.gate.hasher().hash(&Secret::new(RIGHT)).unwrap();
        world.add("ann", |ann| ann.secrets.password_hash = Some(hash.clone()));
        world.add("bob", |bob| {
            bob.secrets.password_hash = Some(hash.clone());
            bob.secrets.totp_secret = Some(SECRET.to_vec());
            bob.factors = vec![Factor::Password, Factor::Totp];
        });
        world.add("bare", |_| {});
        world.add("guest", |guest| guest.factors = vec![Factor::Anonymous]);
        for (name, state) in [("off", UserState::Disabled), ("out", UserState::Banned)] {
            world.add(name, |user| {
                user.secrets.password_hash = Some(hash.clone());
                user.state = state;
            });
        }
        world.add("late", |late| {
            late.secrets.password_hash = Some(hash.clone());
            late.expires_at = Some(NOW);
        });
        world
    }

    pub(super) fn add(&self, name: &str, change: impl FnOnce(&mut Person)) {
        let mut person = person(name);
        change(&mut person);
        self.memory.put(person);
    }

    pub(super) fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub(super) fn code(&self) -> String {
        let step = self.clock.load(Ordering::SeqCst) / 30_000;
        let totp = totp_rs::TOTP::new_unchecked(
            totp_rs::Algorithm::SHA1,
            6,
            1,
            30,
            SECRET.to_vec(),
            None,
            String::new(),
        );
        totp.generate(step as u64 * 30)
    }

    async fn try_in(&self, user: &str, credentials: Credentials) -> Outcome {
        self.gate.sign_in(attempt(user, credentials)).await
    }

    pub(super) async fn password(&self, user: &str, password: &str) -> Outcome {
        self.try_in(user, with_password(password)).await
    }

    pub(super) fn refused(&self, reason: Reason) -> u64 {
        self.gate.0.stats.refused(reason)
    }
}

pub(super) fn at(text: &str) -> Source {
    Source::Address(text.parse().unwrap())
}

pub(super) fn attempt(user: &str, credentials: Credentials) -> Attempt {
    let user = (!user.is_empty()).then(|| user.to_owned());
    Attempt::new(user, credentials, at("192.0.2.1"), Protocol::API)
}

pub(super) fn with_password(password: &str) -> Credentials {
    Credentials { password: Some(Secret::new(password)), ..Credentials::default() }
}

pub(super) fn with_code(code: &str) -> Credentials {
    Credentials { code: Some(Secret::new(code)), ..Credentials::default() }
}

pub(super) fn reason(outcome: Outcome) -> Reason {
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    refusal.reason
}

pub(super) fn ticket(outcome: Outcome) -> Ticket {
    match outcome {
        Outcome::Challenge { ticket, .. } | Outcome::Pending { ticket, .. } => ticket,
        other @ (Outcome::Accepted(_) | Outcome::Refused(_)) => panic!("{other:?}"),
    }
}

fn asked_for(outcome: &Outcome) -> Option<Factor> {
    let Outcome::Challenge { prompt, .. } = outcome else { return None };
    Some(prompt.factor)
}

pub(super) fn accepted(outcome: Outcome) -> Identity {
    let Outcome::Accepted(identity) = outcome else { panic!("{outcome:?}") };
    identity
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_password_alone_or_with_a_code_lets_in() {
    run(async {
        let world = World::new(settings());
        let ann = accepted(world.password("Ann", RIGHT).await);
        assert_eq!((ann.name.as_str(), ann.factors.as_slice()), ("ann", &[Factor::Password][..]));
        // At once, and one after the other.
        let both = Credentials { code: Some(Secret::new(world.code())), ..with_password(RIGHT) };
        assert_eq!(accepted(world.try_in("bob", both).await).factors.len(), 2);
        world.pass(30_000);
        let asked = world.password("bob", RIGHT).await;
        assert!(
            matches!(&asked, Outcome::Challenge { prompt, .. } if prompt.factor == Factor::Totp)
        );
        let again =
            Attempt { ticket: Some(ticket(asked)), ..attempt("bob", with_code(&world.code())) };
        accepted(world.gate.sign_in(again.clone()).await);
        assert_eq!(reason(world.gate.sign_in(again).await), Reason::ChallengeUnknown);
        // Who presents nothing is asked for the password, whoever that is.
        for user in ["ann", "bob", "nobody"] {
            let asked = world.try_in(user, Credentials::default()).await;
            assert_eq!(asked_for(&asked), Some(Factor::Password), "{user}");
        }
        let stats = world.gate.stats();
        assert_eq!((stats.accepted, stats.challenged, stats.attempts), (3, 4, 8));
    });
}

#[test]
fn who_may_not_come_in_does_the_same_work_and_hears_the_same() {
    run(async {
        for (password, users) in [
            ("wrong wrong wrong", ["ann", "bare", "off", "out", "late", "nobody", "a/b"]),
            (RIGHT, ["bare", "off", "out", "late", "nobody", "?", "a/b"]),
        ] {
            for user in users {
                let world = World::new(settings());
                let asked = world.gate.0.stats.snapshot().latency;
                let outcome = world.password(user, password).await;
                let Outcome::Refused(refusal) = outcome else { panic!("{user}: {outcome:?}") };
                assert_eq!(refusal.told, Told::Wrong, "{user}");
                assert_eq!(refusal.retry_after, None);
                // One look-up, one look at the password.
                assert_eq!(world.memory.look_ups(), 1, "{user}");
                let looked = world.gate.0.stats.snapshot().latency;
                let count = |latency: &[super::super::stats::Latency]| {
                    latency.iter().flat_map(|one| &one.buckets).sum::<u64>()
                };
                assert_eq!(count(&looked) - count(&asked), 1, "{user}");
            }
        }
    });
}

#[test]
fn a_user_who_is_locked_out_hears_the_same_with_the_right_password() {
    run(async {
        let world = World::new(settings());
        for number in 0..10 {
            let source = at(&format!("10.0.{number}.1"));
            let wrong =
                Attempt { source, ..attempt("ann", with_password(&format!("wrong {number}"))) };
            assert_eq!(reason(world.gate.sign_in(wrong).await), Reason::PasswordWrong);
        }
        for _ in 0..3 {
            // Each time the work is done: nothing is remembered now.
            assert_eq!(reason(world.password("ann", RIGHT).await), Reason::UserLockedOut);
            assert_eq!(reason(world.password("ann", "wrong 1").await), Reason::UserLockedOut);
        }
        assert_eq!(world.gate.stats().cached, 0);
        let local = Attempt { source: Source::Local(0), ..attempt("ann", with_password(RIGHT)) };
        accepted(world.gate.sign_in(local).await);
        tokio::task::yield_now().await;
        let kept: Vec<String> =
            world.memory.kept_bans().into_iter().map(|ban| ban.subject).collect();
        assert_eq!(kept, ["user:ann"]);
    });
}

#[test]
fn a_banned_source_hears_when_it_may_try_again_and_a_restart_remembers() {
    run(async {
        let world = World::new(settings());
        for number in 0..8 {
            let user = format!("user{number}");
            assert_eq!(reason(world.password(&user, "wrong").await), Reason::UserUnknown);
        }
        let Outcome::Refused(refusal) = world.password("ann", RIGHT).await else { panic!() };
        assert_eq!((refusal.reason, refusal.told), (Reason::SourceBanned, Told::Later));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(300)));
        let elsewhere = Attempt { source: at("192.0.2.2"), ..attempt("ann", with_password(RIGHT)) };
        accepted(world.gate.sign_in(elsewhere.clone()).await);
        tokio::task::yield_now().await;
        let restarted = Gate::builder(settings(), Arc::new(world.memory.clone())).unwrap();
        let restarted = restarted.clock(Arc::new(|| NOW)).build();
        restarted.restore().await.unwrap();
        let again = restarted.sign_in(attempt("ann", with_password(RIGHT))).await;
        assert_eq!(reason(again), Reason::SourceBanned);
        assert!(restarted.lift("192.0.2.1/32").await.unwrap());
        accepted(restarted.sign_in(attempt("ann", with_password(RIGHT))).await);
        assert!(world.memory.kept_bans().is_empty());
        world.pass(300_000);
        accepted(world.password("ann", RIGHT).await);
    });
}

#[test]
fn a_refusal_is_remembered_until_the_user_changes() {
    run(async {
        let world = World::new(patient());
        for user in ["bare", "nobody"] {
            for _ in 0..5 {
                assert_eq!(reason(world.password(user, RIGHT).await).told(), Told::Wrong);
            }
        }
        assert_eq!(world.gate.stats().cached, 8);
        let hash = world.gate.hasher().hash(&Secret::new(RIGHT)).unwrap();
        world.memory.change("bare", |bare| bare.secrets.password_hash = Some(hash));
        assert_eq!(reason(world.password("bare", RIGHT).await), Reason::PasswordMissing);
        world.gate.changed("bare");
        accepted(world.password("bare", RIGHT).await);
    });
}

/// A back end that answers what it is told, or never.
struct Scripted(Box<dyn Fn(Request) -> Work + Send + Sync>);

impl BackEnd for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn begin(&self, request: Request) -> Work {
        (self.0)(request)
    }
}

pub(super) fn scripted(
    script: impl Fn(Request) -> Work + Send + Sync + 'static,
) -> Arc<dyn BackEnd> {
    Arc::new(Scripted(Box::new(script)))
}

#[test]
fn a_back_end_may_ask_back_and_may_wait_for_somebody_else() {
    run(async {
        let polls = AtomicUsize::new(0);
        let back_end = scripted(move |request| {
            let prompt =
                |text: &str| Prompt { factor: Factor::Token, text: text.to_owned(), echo: true };
            Work::Done(match request.state.as_deref() {
                None => Answer::Challenge { prompt: prompt("Colour?"), state: b"colour".to_vec() },
                Some(b"colour") if request.credentials.password.is_some() => Answer::Pending {
                    prompt: prompt("Look at your phone"),
                    poll_after: Duration::from_secs(2),
                    state: b"phone".to_vec(),
                },
                Some(b"phone") if polls.fetch_add(1, Ordering::SeqCst) == 0 => Answer::Pending {
                    prompt: prompt("Still waiting"),
                    poll_after: Duration::from_secs(2),
                    state: b"phone".to_vec(),
                },
                Some(b"phone") => {
                    Answer::Accepted(Proof { user: Some("ann".to_owned()), ..Proof::default() })
                }
                Some(_) => Answer::Refused(Reason::TokenClaims),
            })
        });
        let world = World::with(settings(), |b| {
            b.back_end(Factor::Token, back_end, LaneSettings::default())
        });
        world.memory.change("ann", |ann| ann.factors = vec![Factor::Token, Factor::Password]);
        // Without a name: the token says at last who it is.
        let token = Credentials { token: Some(Secret::new("x")), ..Credentials::default() };
        let go_on = |outcome, credentials| Attempt {
            ticket: Some(ticket(outcome)),
            ..attempt("", credentials)
        };
        let asked = world.try_in("", token).await;
        let waiting = world.gate.sign_in(go_on(asked, with_password("blue"))).await;
        let waiting = world.gate.sign_in(go_on(waiting, Credentials::default())).await;
        assert!(
            matches!(&waiting, Outcome::Pending { poll_after, .. } if poll_after.as_secs() == 2)
        );
        let password = world.gate.sign_in(go_on(waiting, Credentials::default())).await;
        assert_eq!(asked_for(&password), Some(Factor::Password));
        let ann = accepted(world.gate.sign_in(go_on(password, with_password(RIGHT))).await);
        assert_eq!(
            (ann.name.as_str(), ann.factors),
            ("ann", vec![Factor::Token, Factor::Password])
        );
    });
}

#[test]
fn a_back_end_that_hangs_without_a_thread_is_left_at_the_deadline() {
    run(async {
        let back_end = scripted(|_| Work::waiting(std::future::pending()));
        let lane = LaneSettings::default();
        let world = World::with(patient(), |b| b.back_end(Factor::Token, back_end, lane));
        world.memory.change("bare", |bare| bare.factors = vec![Factor::Token]);
        let token = Credentials { token: Some(Secret::new("x")), ..Credentials::default() };
        let short = Attempt { patience: Some(Duration::from_millis(50)), ..attempt("bare", token) };
        let all =
            futures_util::future::join_all((0..40).map(|_| world.gate.sign_in(short.clone())));
        let password = world.password("ann", RIGHT);
        let (hung, password) = tokio::join!(all, password);
        accepted(password);
        let reasons: Vec<Reason> = hung.into_iter().map(reason).collect();
        let count = |wanted| reasons.iter().filter(|reason| **reason == wanted).count();
        assert_eq!((count(Reason::BackEndTimeout), count(Reason::SourceQueueFull)), (16, 24));
        // Sixteen in a row are an outage.
        assert_eq!(reason(world.gate.sign_in(short).await), Reason::BackEndDown);
        assert_eq!(
            world.gate.stats().lanes.iter().map(|(_, lane)| lane.in_flight).sum::<usize>(),
            0
        );
    });
}

#[test]
fn a_back_end_that_hangs_on_its_threads_does_not_delay_passwords() {
    run(async {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let back_end = scripted(move |_| {
            let gate = Arc::clone(&gate);
            Work::blocking(move |_: &Abort| {
                let _ = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
                Answer::Refused(Reason::BackEndFailed)
            })
        });
        let lane = LaneSettings::default();
        let world = World::with(patient(), |b| b.back_end(Factor::Token, back_end, lane));
        world.memory.change("bare", |bare| bare.factors = vec![Factor::Token]);
        let token = Credentials { token: Some(Secret::new("x")), ..Credentials::default() };
        let source = |number: usize| at(&format!("10.1.{number}.1"));
        let hung = (0..50).map(|number| {
            let patience = Some(Duration::from_millis(1500));
            world.gate.sign_in(Attempt {
                source: source(number),
                patience,
                ..attempt("bare", token.clone())
            })
        });
        let logins = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..100 {
                let begun = Instant::now();
                accepted(world.password("ann", RIGHT).await);
                slowest = slowest.max(begun.elapsed());
            }
            slowest
        };
        let (hung, slowest) = tokio::join!(futures_util::future::join_all(hung), logins);
        assert!(hung.into_iter().all(|outcome| reason(outcome).is_trouble()));
        assert!(
            slowest < Duration::from_millis(1000),
            "{slowest:?} with 50 logins hanging for 1.5 s"
        );
        drop(open);
    });
}

/// Provokes what can be provoked with these settings and says which reasons were given.
async fn provoke_at_the_door(seen: &mut BTreeSet<Reason>) {
    let lists = Lists { allow: Vec::new(), deny: vec!["203.0.113.0/24".parse().unwrap()] };
    let challenges = ChallengeSettings { per_source_max: 1, ..ChallengeSettings::default() };
    let world = World::new(Settings { lists, challenges, ..patient() });
    let mut note = |outcome: Outcome| seen.insert(reason(outcome));
    let denied = Attempt { source: at("203.0.113.9"), ..attempt("ann", with_password(RIGHT)) };
    note(world.gate.sign_in(denied).await);
    note(world.try_in(&"a".repeat(300), with_password(RIGHT)).await);
    note(world.try_in("", with_password(RIGHT)).await);
    note(world.try_in("", Credentials::default()).await);
    for (user, password) in
        [("nobody", "x"), ("off", "x"), ("out", "x"), ("late", "x"), ("bare", "x"), ("ann", "x")]
    {
        note(world.password(user, password).await);
    }
    let long = Credentials { token: Some(Secret::new("x".repeat(9000))), ..Credentials::default() };
    note(world.try_in("ann", long).await);
    // The second factor.
    let both = |code: &str| Credentials { code: Some(Secret::new(code)), ..with_password(RIGHT) };
    note(world.try_in("bob", both("000000")).await);
    accepted(world.try_in("bob", both(&world.code())).await);
    note(world.try_in("bob", both(&world.code())).await);
    world.memory.change("ann", |ann| ann.factors = vec![Factor::Password, Factor::Totp]);
    note(world.try_in("ann", both("000000")).await);
    // Tickets.
    let asked = ticket(world.password("bob", RIGHT).await);
    note(world.password("bob", RIGHT).await);
    let elsewhere =
        Attempt { source: at("192.0.2.9"), ticket: Some(asked), ..attempt("bob", with_code("1")) };
    note(world.gate.sign_in(elsewhere).await);
    note(
        world.gate.sign_in(Attempt { ticket: Some(asked), ..attempt("bob", with_code("1")) }).await,
    );
    let asked = ticket(world.password("bob", RIGHT).await);
    let silent = Attempt { ticket: Some(asked), ..attempt("bob", Credentials::default()) };
    note(world.gate.sign_in(silent).await);
    world.memory.change("bare", |bare| bare.factors = vec![Factor::Token]);
    let token = Credentials { token: Some(Secret::new("x")), ..Credentials::default() };
    note(world.try_in("bare", token).await);
    world.memory.break_down(true);
    note(world.password("ann", RIGHT).await);
    assert_eq!(world.refused(Reason::ChallengesFull), 1);
}

async fn provoke_bans(seen: &mut BTreeSet<Reason>) {
    let bans =
        BanSettings { source_burst: 12, source_rate: 1, user_points: 20, ..BanSettings::default() };
    let world = World::new(Settings { bans, ..settings() });
    for number in 0..20 {
        let outcome = world.password("ann", &format!("wrong {number}")).await;
        seen.insert(reason(outcome));
    }
    let world = World::new(Settings { bans, ..settings() });
    for _ in 0..20 {
        if let Outcome::Refused(refusal) = world.password("ann", RIGHT).await {
            seen.insert(refusal.reason);
        }
    }
}

/// What back ends, lanes and verifiers say passes the door as it is.
async fn provoke_back_ends(seen: &mut BTreeSet<Reason>) {
    for wanted in Reason::ALL {
        let refuse = scripted(move |_| Work::Done(Answer::Refused(*wanted)));
        let lane = LaneSettings::default();
        let world = World::with(patient(), |b| b.back_end(Factor::Token, refuse, lane));
        world.memory.change("bare", |bare| bare.factors = vec![Factor::Token]);
        let token = Credentials { token: Some(Secret::new("x")), ..Credentials::default() };
        let given = reason(world.try_in("bare", token).await);
        assert_eq!((given, world.refused(given)), (*wanted, 1));
    }
    let named = scripted(|_| {
        Work::Done(Answer::Accepted(Proof { user: Some("bob".to_owned()), ..Proof::default() }))
    });
    let lane = LaneSettings::default();
    let world = World::with(patient(), |b| b.back_end(Factor::Token, named, lane));
    world.memory.change("ann", |ann| ann.factors = vec![Factor::Token]);
    let token = Credentials { token: Some(Secret::new("x")), ..Credentials::default() };
    seen.insert(reason(world.try_in("ann", token).await));
}

#[test]
fn every_reason_of_the_door_is_given_once() {
    run(async {
        let mut seen = BTreeSet::new();
        provoke_at_the_door(&mut seen).await;
        provoke_bans(&mut seen).await;
        provoke_back_ends(&mut seen).await;
        // These are provoked where they are found: in the tests of lanes, tokens and certificates.
        let elsewhere = |reason: &Reason| {
            let code = reason.code();
            let is_lane = [
                "back_end_timeout",
                "back_end_down",
                "back_end_failed",
                "queue_full",
                "source_queue_full",
            ];
            is_lane.contains(&code)
                || code.starts_with("token_")
                || code.starts_with("certificate_")
        };
        let missing: Vec<&Reason> = Reason::ALL
            .iter()
            .filter(|reason| !seen.contains(reason) && !elsewhere(reason))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    });
}

#[test]
fn somebody_without_a_name_is_the_guest_if_that_is_configured() {
    run(async {
        let world = World::new(Settings { anonymous: Some("guest".to_owned()), ..settings() });
        let guest = accepted(world.try_in("", Credentials::default()).await);
        assert_eq!((guest.name.as_str(), guest.factors), ("guest", vec![Factor::Anonymous]));
        world.memory.change("guest", |guest| guest.state = UserState::Disabled);
        assert_eq!(reason(world.try_in("", Credentials::default()).await), Reason::UserDisabled);
    });
}

#[test]
fn a_certificate_that_names_somebody_unknown_or_disabled_lets_nobody_in() {
    run(async {
        let named = |name: &'static str| {
            scripted(move |_| {
                Work::Done(Answer::Accepted(Proof {
                    user: Some(name.to_owned()),
                    ..Proof::default()
                }))
            })
        };
        let chain = Credentials {
            certificates: vec![CertificateDer::from(vec![1])],
            ..Credentials::default()
        };
        for name in ["off", "nobody", "ann"] {
            let lane = LaneSettings::default();
            let world =
                World::with(settings(), |b| b.back_end(Factor::Certificate, named(name), lane));
            for user in ["ann", "off"] {
                world.memory.change(user, |user| user.factors = vec![Factor::Certificate]);
            }
            let outcome = world.try_in("", chain.clone()).await;
            if name == "ann" {
                assert_eq!(accepted(outcome).name, name);
                continue;
            }
            // They are asked for what the default policy asks for, like any name.
            assert_eq!(asked_for(&outcome), Some(Factor::Password), "{name}");
            let go_on =
                Attempt { ticket: Some(ticket(outcome)), ..attempt("", with_password(RIGHT)) };
            let Outcome::Refused(refusal) = world.gate.sign_in(go_on).await else { panic!() };
            assert_eq!(refusal.told, Told::Wrong, "{name}");
        }
    });
}

#[test]
fn nothing_is_remembered_if_that_is_switched_off() {
    run(async {
        let cache = CacheSettings { entries_max: 0, ..CacheSettings::default() };
        let world = World::new(Settings { cache, ..patient() });
        for _ in 0..3 {
            assert_eq!(reason(world.password("ann", "wrong").await), Reason::PasswordWrong);
        }
        assert_eq!(world.gate.stats().cached, 0);
    });
}
