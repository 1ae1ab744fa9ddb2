//! How many sign-ins a gateway answers in a second and how long one takes, by what is presented;
//! and whether a name that does not exist takes as long as a wrong password.
//!
//! A refusal is remembered for ten seconds, and whoever guesses is kept out: every wrong password
//! is another one, of one name after the other, and asked as root, whom nobody keeps out.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::asking::{Asked, Until, ask};
use super::house::House;
use super::proofs::{CONFIG, Proofs, https, one_time, step_now};
use crate::api::{Answer, Api};
use crate::outcomes::{Outcome, Size, must};

const PASSWORD: &str = "a quiet harbour at seven";

const THREADS: [u64; 2] = [1, 8];

/// How much longer the median of either may take, the unknown name or the wrong password.
const RATIO_MAX: f64 = 1.3;

const SESSION: &str = "/api/v1/session";

/// Somebody with a one-time password.
struct TwoFactors {
    name: String,
    secret: String,
}

pub(super) fn run(size: Size) -> Result<Vec<Outcome>> {
    let mut proofs = None;
    let house = House::start(CONFIG, |state| {
        proofs = Some(Proofs::make(state)?);
        Ok(())
    })?;
    let proofs = proofs.context("The authority was made")?;
    let people = size.pick(16, 100);
    make_people(&house, people)?;
    let period = Duration::from_millis(size.pick(400, 3_000));
    let mut rows = Vec::new();
    rows.extend(passwords(&house, people, period)?);
    rows.extend(refusals(&house, people, period)?);
    rows.extend(two_factors(&house, size.pick(16, 100))?);
    rows.extend(tokens(&house, &proofs, period)?);
    rows.extend(certificates(&house, &proofs, period)?);
    Ok(rows)
}

fn make_people(house: &House, people: u64) -> Result<()> {
    for (name, factors) in [
        ("with-totp", json!(["password", "totp"])),
        ("with-token", json!(["token"])),
        ("with-certificate", json!(["certificate"])),
    ] {
        let form = json!({ "name": name, "factors": factors });
        house.api.call("POST", "/api/v1/policies", Some(&form))?;
    }
    for number in 0..people {
        let form = json!({ "name": format!("user{number}"), "password": PASSWORD });
        house.api.call("POST", "/api/v1/users", Some(&form))?;
    }
    for number in 0..THREADS[1] {
        for (name, policy) in [("token", "with-token"), ("holder", "with-certificate")] {
            let form = json!({ "name": format!("{name}{number}"), "policy": policy });
            house.api.call("POST", "/api/v1/users", Some(&form))?;
        }
        let path = format!("/api/v1/users/user{number}/devices");
        house.api.call("POST", &path, Some(&json!({ "name": "laptop" })))?;
    }
    Ok(())
}

fn passwords(house: &House, people: u64, period: Duration) -> Result<Vec<Outcome>> {
    let session = |api: &mut Api, thread: u64, turn: u64| {
        let name = format!("user{}", (thread * 13 + turn) % people);
        sign_in(api, SESSION, &json!({ "name": name, "password": PASSWORD }), 200)
    };
    let access = |api: &mut Api, thread: u64, _: u64| {
        let form = json!({ "name": format!("user{thread}"), "password": PASSWORD });
        sign_in(api, "/api/v1/access/sign-in", &form, 200)
    };
    let mut rows = Vec::new();
    for threads in THREADS {
        rows.push(row("password", threads, &by_socket(house, threads, period, session)?));
    }
    for threads in THREADS {
        let asked = by_socket(house, threads, period, access)?;
        rows.push(row("password, for access of a device", threads, &asked));
    }
    Ok(rows)
}

fn refusals(house: &House, people: u64, period: Duration) -> Result<Vec<Outcome>> {
    let mut rows = Vec::new();
    for threads in THREADS {
        let unknown = by_socket(house, threads, period, |api, thread, turn| {
            let name = format!("nobody{threads}-{thread}-{turn}");
            sign_in(api, SESSION, &json!({ "name": name, "password": PASSWORD }), 401)
        })?;
        let wrong = by_socket(house, threads, period, |api, thread, turn| {
            let name = format!("user{}", (thread * 13 + turn) % people);
            let password = format!("a loud harbour {threads} {thread} {turn}");
            sign_in(api, SESSION, &json!({ "name": name, "password": password }), 401)
        })?;
        let ratio = unknown.ms(0.5) / wrong.ms(0.5);
        let says = format!(
            "{threads} at a time: an unknown name takes as long as a wrong password ({ratio:.2} of \
             it; between {:.2} and {RATIO_MAX})",
            RATIO_MAX.recip()
        );
        let holds = ratio < RATIO_MAX && ratio.recip() < RATIO_MAX;
        let mut row_unknown = row("unknown name", threads, &unknown);
        row_unknown.invariants.push(must(holds, says));
        rows.extend([row_unknown, row("wrong password", threads, &wrong)]);
    }
    Ok(rows)
}

/// A one-time password counts once: everybody signs in twice, in two steps that the gateway takes.
fn two_factors(house: &House, people: u64) -> Result<Vec<Outcome>> {
    let all = (0..people).map(|number| enrol(house, number)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    let shares = THREADS.into_iter().zip([people, people / THREADS[1]]);
    // The step of the next sign-in is later than the one before, and at most one ahead.
    for (step, (threads, share)) in (step_now()?..).zip(shares) {
        let codes =
            all.iter().map(|one| one_time(&one.secret, step)).collect::<Result<Vec<_>>>()?;
        let open = |_| Ok(house.dial());
        let asked = ask(threads, Until::Asked(share), open, |api, thread, turn| {
            let number = (thread * share + turn) as usize;
            let (name, totp) = (&all[number].name, &codes[number]);
            let form = json!({ "name": name, "password": PASSWORD, "totp": totp });
            sign_in(api, SESSION, &form, 200)
        })?;
        rows.push(row("password and one-time password", threads, &asked));
    }
    Ok(rows)
}

/// Makes somebody who sets up an authenticator, and whose policy asks for it from then on.
fn enrol(house: &House, number: u64) -> Result<TwoFactors> {
    let name = format!("careful{number}");
    let form = json!({ "name": name, "password": PASSWORD });
    house.api.call("POST", "/api/v1/users", Some(&form))?;
    let signed_in = house.api.request("POST", SESSION, Some(&form))?;
    let cookie = signed_in.header("set-cookie").context("A sign-in sets no cookie")?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let csrf = signed_in.json()["csrf_token"].as_str().unwrap_or_default().to_owned();
    let headers =
        [("cookie", &*cookie), ("x-csrf-token", &*csrf), ("content-type", "application/json")];
    let me = |method: &str, body: &str| -> Result<Value> {
        Ok(house.api.try_ask(method, "/api/v1/me/totp", &headers, body)?.success()?)
    };
    let offer = me("POST", "")?;
    let secret = offer["text"].as_str().context("No secret was offered")?.to_owned();
    let code = one_time(&secret, step_now()? - 1)?;
    me("PUT", &json!({ "secret": offer["secret"], "code": code }).to_string())?;
    let policy = json!({ "policy": "with-totp" });
    house.api.call("PATCH", &format!("/api/v1/users/{name}"), Some(&policy))?;
    Ok(TwoFactors { name, secret })
}

fn tokens(house: &House, proofs: &Proofs, period: Duration) -> Result<Vec<Outcome>> {
    let tokens = (0..THREADS[1])
        .map(|number| proofs.token(&format!("token{number}")))
        .collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for threads in THREADS {
        let asked = by_socket(house, threads, period, |api, thread, _| {
            sign_in(api, SESSION, &json!({ "token": tokens[thread as usize] }), 200)
        })?;
        rows.push(row("access token (Ed25519), the same again", threads, &asked));
    }
    Ok(rows)
}

/// Over HTTPS, each over a connection of its own from an address of its own: that is where a
/// certificate is presented, and no allowance of an address is used up.
fn certificates(house: &House, proofs: &Proofs, period: Duration) -> Result<Vec<Outcome>> {
    let holder = |thread: u64| format!("holder{thread}");
    for thread in 0..THREADS[1] {
        proofs.certificate(&holder(thread))?;
    }
    let netns = house.line.cli.name();
    let mut rows = Vec::new();
    let begun = Instant::now();
    for threads in THREADS {
        let open = |thread| proofs.tls(&holder(thread));
        let asked = ask(threads, Until::Passed(period), open, |tls, thread, turn| {
            let from = Ipv4Addr::from_bits(
                u32::from_be_bytes([10, 200, 0, 1]) + (threads << 18 | thread << 14 | turn) as u32,
            );
            let api = https(netns, from, std::sync::Arc::clone(tls));
            sign_in(&api, SESSION, &json!({}), 200)
        });
        let asked = asked.with_context(|| format!("after {:?}", begun.elapsed()))?;
        rows.push(row("certificate, over a new TLS connection", threads, &asked));
    }
    Ok(rows)
}

fn by_socket(
    house: &House,
    threads: u64,
    period: Duration,
    work: impl Fn(&mut Api, u64, u64) -> Result<()> + Sync,
) -> Result<Asked> {
    ask(threads, Until::Passed(period), |_| Ok(house.dial()), work)
}

fn sign_in(api: &Api, path: &str, form: &Value, expected: u16) -> Result<()> {
    let answer: Answer = api.request("POST", path, Some(form))?;
    ensure!(answer.status == expected, "POST {path}: {} {}", answer.status, answer.text);
    Ok(())
}

fn row(name: &str, threads: u64, asked: &Asked) -> Outcome {
    let variant = format!("{name}, {threads} at a time");
    Outcome { variant, figures: asked.figures(), invariants: Vec::new() }
}
