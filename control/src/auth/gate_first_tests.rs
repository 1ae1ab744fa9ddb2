//! Nobody learns who exists from the first question or the answer to it.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;

use super::super::backend::{Answer, Proof, Request, Work};
use super::super::cache::CacheSettings;
use super::super::password::tests::MEASURING;
use super::tests::{
    NOW, RIGHT, World, accepted, at, attempt, patient, reason, scripted, settings, ticket,
    with_code, with_password,
};
use super::*;
use crate::store::records::UserState;

/// Names that nobody may tell apart, and what each begins with if it is somebody's.
const NAMES: [(&str, &[Factor]); 11] = [
    ("by-password", &[Factor::Password]),
    ("by-both", &[Factor::Password, Factor::Totp]),
    ("by-code", &[Factor::Totp, Factor::Password]),
    ("by-token", &[Factor::Token]),
    ("by-certificate", &[Factor::Certificate, Factor::Totp]),
    ("off-by-token", &[Factor::Token, Factor::Password]),
    ("out-by-code", &[Factor::Totp, Factor::Token]),
    ("late-by-certificate", &[Factor::Certificate]),
    ("off-guest", &[Factor::Anonymous]),
    ("nobody", &[]),
    ("no.body@example.org", &[]),
];

/// What default policies begin with.
const DEFAULTS: [&[Factor]; 5] = [
    &[Factor::Password],
    &[Factor::Token],
    &[Factor::Totp, Factor::Password],
    &[Factor::Certificate],
    &[Factor::Anonymous],
];

/// Good is `good:NAME`; all else is forged.
fn judge(text: &[u8], wrong: Reason) -> Answer {
    let name = text.strip_prefix(b"good:").map(|name| String::from_utf8_lossy(name).into_owned());
    match name {
        Some(name) => Answer::Accepted(Proof { user: Some(name), ..Proof::default() }),
        None => Answer::Refused(wrong),
    }
}

fn by_token(request: Request) -> Work {
    let token = request.credentials.token.as_ref().map_or("", Secret::expose);
    Work::Done(judge(token.as_bytes(), Reason::TokenSignature))
}

fn by_certificate(request: Request) -> Work {
    let own = request.credentials.certificates.first();
    Work::Done(judge(own.map_or(&[][..], AsRef::as_ref), Reason::CertificateExpired))
}

/// Everybody of [`NAMES`] with everything that a policy may ask for.
fn world(default: &[Factor], settings: Settings) -> World {
    let lane = LaneSettings::default();
    let world = World::with(settings, |builder| {
        builder.back_end(Factor::Token, scripted(by_token), lane).back_end(
            Factor::Certificate,
            scripted(by_certificate),
            lane,
        )
    });
    world.memory.ask_by_default(default);
    let hash = world.gate.hasher().hash(&Secret::new(RIGHT)).unwrap();
    for (name, factors) in NAMES.iter().filter(|(_, factors)| !factors.is_empty()) {
        world.add(name, |person| {
            person.factors = factors.to_vec();
            person.secrets.password_hash = Some(hash.clone());
            person.secrets.totp_secret = Some(b"12345678901234567890".to_vec());
            match name.split('-').next() {
                Some("off") => person.state = UserState::Disabled,
                Some("out") => person.state = UserState::Banned,
                Some("late") => person.expires_at = Some(NOW),
                _ => {}
            }
        });
    }
    world
}

/// All ways to present nothing that is right for `name`, but a certificate or token that names it.
fn presented(name: &str) -> Vec<Credentials> {
    let own = format!("good:{name}");
    let texts = |wrong: &[&str]| -> Vec<Option<Secret>> {
        std::iter::once(None).chain(wrong.iter().map(|text| Some(Secret::new(*text)))).collect()
    };
    let mut all = Vec::new();
    for password in texts(&["wrong wrong wrong"]) {
        for code in texts(&["000000", "000000 000000", "abcd efgh jkmn pqrs"]) {
            for token in texts(&["forged", "good:somebody", &own]) {
                for chain in texts(&["expired", "good:somebody", &own]) {
                    let chain = chain.map(|text| text.expose().as_bytes().to_vec());
                    let certificates = chain.map(CertificateDer::from).into_iter().collect();
                    let (password, code) = (password.clone(), code.clone());
                    let token = token.clone();
                    all.push(Credentials { password, code, token, certificates });
                }
            }
        }
    }
    all
}

/// What somebody outside may notice of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Asked(Prompt),
    Refused(Told, Option<Duration>),
}

/// What an attempt does besides its answer: looks by factor, look-ups, what it adds to the scores.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    looks: Vec<u64>,
    look_ups: usize,
    asked_store: usize,
    scores: String,
    held: usize,
}

/// One attempt in a world of its own as far as scores go.
async fn see(world: &World, name: &str, credentials: Credentials) -> Option<(Seen, Done)> {
    let inner = &world.gate.0;
    *inner.bans() = Bans::new(inner.settings.bans);
    *inner.challenges() = Challenges::new(inner.settings.challenges);
    let looks = || -> Vec<u64> {
        let latency = inner.stats.snapshot().latency;
        latency.iter().map(|one| one.buckets.iter().sum()).collect()
    };
    let before = (looks(), world.memory.look_ups(), world.memory.codes_asked());
    let outcome = world.gate.sign_in(attempt(name, credentials)).await;
    let seen = match outcome {
        Outcome::Accepted(_) => return None,
        Outcome::Challenge { prompt, .. } => Seen::Asked(prompt),
        Outcome::Refused(refusal) => Seen::Refused(refusal.told, refusal.retry_after),
        pending @ Outcome::Pending { .. } => panic!("{pending:?}"),
    };
    let looks = looks().into_iter().zip(before.0).map(|(now, then)| now - then).collect();
    let done = Done {
        looks,
        look_ups: world.memory.look_ups() - before.1,
        asked_store: world.memory.codes_asked() - before.2,
        scores: inner.bans().shown().replace(name, "NAME"),
        held: inner.challenges().len(),
    };
    Some((seen, done))
}

/// Whether the first factor of `factors` is among what names `name` itself.
fn is_through(name: &str, factors: &[Factor], credentials: &Credentials) -> bool {
    let own = format!("good:{name}");
    let is_in = matches!(name.split('-').next(), Some("by"));
    is_in
        && match factors.first() {
            Some(Factor::Token) => {
                credentials.token.as_ref().is_some_and(|token| token.expose() == own)
            }
            Some(Factor::Certificate) => {
                credentials.certificates.first().is_some_and(|one| **one == *own.as_bytes())
            }
            _ => false,
        }
}

#[tokio::test]
async fn question_answer_work_and_scores_depend_on_what_is_presented_and_on_nothing_about_the_name()
{
    let cache = CacheSettings { entries_max: 0, ..CacheSettings::default() };
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for default in DEFAULTS {
        let world = world(default, Settings { cache, ..patient() });
        let ways = presented("nobody").len();
        for way in 0..ways {
            let mut first = None;
            // From the back, so that the first is one that nobody has.
            for (name, factors) in NAMES.iter().rev() {
                let credentials = presented(name).swap_remove(way);
                if is_through(name, factors, &credentials) {
                    continue;
                }
                let shown = format!("{default:?} {name} {way}");
                let seen = see(&world, name, credentials).await.expect(&shown);
                *kinds.entry(format!("{:?}", seen.0)).or_default() += 1;
                match &first {
                    None => first = Some(seen),
                    Some(first) => assert_eq!(*first, seen, "{shown}"),
                }
            }
        }
    }
    // All kinds of answers were among them.
    assert!(kinds.len() >= 6, "{kinds:?}");
}

#[tokio::test]
async fn a_second_try_is_remembered_for_every_name_alike() {
    for default in DEFAULTS {
        let world = world(default, patient());
        for (name, _) in NAMES {
            let mut looks = Vec::new();
            for _ in 0..3 {
                let (seen, done) = see(&world, name, with_password("wrong")).await.unwrap();
                assert_eq!(seen, Seen::Refused(Told::Wrong, None), "{name}");
                looks.push(done.looks.iter().sum::<u64>());
            }
            assert_eq!(looks, [1, 0, 0], "{default:?} {name}");
        }
    }
}

#[tokio::test]
async fn a_name_is_asked_the_same_a_hundred_times_and_after_a_restart() {
    for (default, question) in DEFAULTS
        .iter()
        .zip([Factor::Password, Factor::Token, Factor::Totp])
        .chain([(&DEFAULTS[4], Factor::Password)])
    {
        let world = world(default, patient());
        let restarted = Gate::builder(patient(), Arc::new(world.memory.clone())).unwrap();
        let restarted = restarted.clock(Arc::new(|| NOW)).build();
        for (name, _) in NAMES {
            for number in 0..100 {
                let gate = if number % 2 == 0 { &world.gate } else { &restarted };
                *gate.0.challenges() = Challenges::new(gate.0.settings.challenges);
                let asked = gate.sign_in(attempt(name, Credentials::default())).await;
                let Outcome::Challenge { prompt, ticket } = asked else { panic!("{name}") };
                assert_eq!(prompt.factor, question, "{name}");
                // The answer to it holds nothing: asked once is enough, for everybody.
                let silent =
                    Attempt { ticket: Some(ticket), ..attempt(name, Credentials::default()) };
                let refused = gate.sign_in(silent).await;
                assert_eq!(reason(refused), Reason::CredentialMissing, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn whoever_begins_with_something_else_presents_it_unasked_or_instead_of_what_is_asked() {
    let world = world(DEFAULTS[0], patient());
    let token = Credentials { token: Some(Secret::new("good:by-token")), ..Default::default() };
    accepted(world.gate.sign_in(attempt("by-token", token.clone())).await);
    accepted(world.gate.sign_in(attempt("", token.clone())).await);
    // Asked for a password, it answers with the token.
    let asked = world.gate.sign_in(attempt("by-token", Credentials::default())).await;
    let go_on = Attempt { ticket: Some(ticket(asked)), ..attempt("by-token", token) };
    accepted(world.gate.sign_in(go_on).await);
    // A right password is worth nothing to whoever must show a token.
    let refused = world.gate.sign_in(attempt("by-token", with_password(RIGHT))).await;
    assert_eq!(reason(refused), Reason::CredentialMissing);
    // The first factor being proved, the second one is asked for by its name.
    let asked = world.gate.sign_in(attempt("by-code", with_code(&world.code()))).await;
    let Outcome::Challenge { prompt, ticket } = asked else { panic!("{asked:?}") };
    assert_eq!(prompt.factor, Factor::Password);
    let second = Attempt { ticket: Some(ticket), ..attempt("by-code", with_password(RIGHT)) };
    accepted(world.gate.sign_in(second).await);
}

#[tokio::test]
async fn a_password_that_was_not_due_is_right_as_soon_as_it_is() {
    let world = world(DEFAULTS[0], patient());
    for _ in 0..2 {
        let early = world.gate.sign_in(attempt("by-token", with_password(RIGHT))).await;
        assert_eq!(reason(early), Reason::CredentialMissing);
    }
    // What was looked at for nobody is not remembered of somebody.
    world.memory.change("by-token", |person| person.factors = vec![Factor::Password]);
    accepted(world.gate.sign_in(attempt("by-token", with_password(RIGHT))).await);
}

#[tokio::test]
async fn guesses_lock_out_names_that_nobody_has_as_soon_as_others() {
    let settings = settings();
    let mut counts = BTreeMap::new();
    for token in [None, Some("forged")] {
        for (name, _) in NAMES {
            let world = world(DEFAULTS[0], settings.clone());
            let mut count = 0;
            while !world.gate.0.bans().is_locked_out(name, at("192.0.2.1"), NOW) {
                count += 1;
                let credentials = Credentials {
                    token: token.map(Secret::new),
                    ..with_password(&format!("wrong {count}"))
                };
                let source = at(&format!("10.0.{count}.1"));
                let wrong = Attempt { source, ..attempt(name, credentials) };
                assert!(matches!(world.gate.sign_in(wrong).await, Outcome::Refused(_)), "{name}");
            }
            counts.entry(count).or_insert_with(Vec::new).push(name);
        }
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&10], "{counts:?}");
}

/// Beyond this, times tell something: here it is between what copying a person takes (1 %) and what
/// looking at a one-time password does (12 %).
const VISIBLE: f64 = 0.04;

/// By how much the medians of two classes of times differ, in parts of the longer one: the least of
/// some tries. What a look-up that finds somebody copies more than one that does not is a
/// microsecond, which no number of tries makes a guess at a name; a look at a secret is what
/// counts.
fn smallest_gap(mut measure: impl FnMut(usize) -> Duration) -> f64 {
    let mut try_once = || {
        let mut times = [Vec::new(), Vec::new()];
        for number in 0..1500 {
            // Now one first and now the other, as what is around changes with time.
            for class in [number % 2, 1 - number % 2] {
                times[class].push(measure(class).as_secs_f64());
            }
        }
        let [one, other] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        (one - other).abs() / one.max(other)
    };
    (0..5).map(|_| try_once()).fold(f64::INFINITY, f64::min)
}

#[test]
fn time_does_not_tell_a_policy_that_begins_otherwise_from_a_name_that_nobody_has() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = CacheSettings { entries_max: 0, ..CacheSettings::default() };
    let world = world(DEFAULTS[0], Settings { cache, ..patient() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let time = |name: &str, credentials: Credentials| {
        let wrong = attempt(name, credentials);
        let start = Instant::now();
        let outcome = runtime.block_on(world.gate.sign_in(wrong));
        let took = start.elapsed();
        assert!(matches!(outcome, Outcome::Refused(_)));
        took
    };
    let both = || Credentials { code: Some(Secret::new("000000")), ..with_password("wrong") };
    for other in ["by-token", "by-code", "by-password"] {
        let name = |class| if class == 0 { "nobody" } else { other };
        let gap = smallest_gap(|class| time(name(class), both()));
        assert!(gap < VISIBLE, "{gap}: {other}");
    }
    // The method sees whether a second credential is looked at, and whether a password is.
    for less in [with_password("wrong"), with_code("000000")] {
        let gap = smallest_gap(|class| {
            let given = if class == 0 { both() } else { less.clone() };
            time("nobody", given)
        });
        assert!(gap > VISIBLE, "{gap}: {less:?}");
    }
}
