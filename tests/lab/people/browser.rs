//! A real browser in a namespace: Chromium without a window, driven as its own tools drive it.
//!
//! Commands and events are JSON objects with a zero byte behind each, on two pipes (the DevTools
//! protocol): no port is open, and the browser ends when its pipe does. Clicks are those of a
//! mouse, so that the page is used as a person uses it. What the page asked the network for, said
//! on its console and broke of its policy is kept as events, for tests to judge. This module must
//! not know which page it is.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ringway_perf::netns::Netns;
use ringway_perf::process::{Launch, Process, scratch};
use ringway_perf::wait::{wait_for, wait_until};
use serde_json::{Value, json};

use crate::setup::LATER;

/// Where Debian has the program; the one in `PATH` is a script that would outlive a kill.
const PROGRAM: &str = "/usr/lib/chromium/chromium-headless-shell";

/// A fresh machine reads 200 MB from its disk first.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a person's browser has, and a test in a namespace has not: a window, a sandbox for a user
/// that is not root, a graphics processor, a keyring, and a maker that it talks to.
const FLAGS: &str = "--remote-debugging-pipe --no-sandbox --disable-gpu --disable-dev-shm-usage \
                     --no-first-run --disable-background-networking --disable-component-update \
                     --disable-sync --password-store=basic --disable-crash-reporter";

/// A running browser with a profile of its own; ended, and its profile removed, when dropped.
pub(crate) struct Browser {
    process: Process,
    commands: File,
    answers: Receiver<Value>,
    events: Vec<Value>,
    number: u64,
    folder: PathBuf,
}

/// A page that is open in it.
pub(crate) struct Page {
    session: String,
}

impl Browser {
    /// Starts one that takes the certificate with this print of its key, and no other that nobody
    /// has signed.
    pub(crate) fn start(netns: &Netns, key_print: &str) -> Self {
        let folder = scratch().unwrap().join(format!("{}-browser", netns.name()));
        fs::create_dir_all(folder.join("saved")).unwrap();
        let pipes = ["commands", "answers"].map(|name| folder.join(name));
        Launch::new("mkfifo").args(&pipes).run().unwrap();
        let takes = format!("--ignore-certificate-errors-spki-list={key_print}");
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let connect = "in=$1; out=$2; shift 2; exec \"$@\" 3<\"$in\" 4>\"$out\"";
        let launch = netns.launch("sh").args(["-c", connect, "sh"]).args(&pipes).arg(PROGRAM);
        // To be read and written, so that opening it waits for nobody.
        let commands = OpenOptions::new().read(true).write(true).open(&pipes[0]).unwrap();
        let (sender, answers) = channel();
        let pipe = pipes[1].clone();
        thread::spawn(move || hear(&pipe, &sender));
        let process = launch.words(FLAGS).args([takes, profile]).spawn().unwrap();
        let mut browser =
            Self { process, commands, answers, events: Vec::new(), number: 0, folder };
        let saved = browser.folder.join("saved");
        let saves = json!({ "behavior": "allow", "downloadPath": saved, "eventsEnabled": true });
        browser.tell(None, "Browser.setDownloadBehavior", &saves);
        browser
    }

    /// Opens an empty page; what it does from now on is kept.
    pub(crate) fn page(&mut self) -> Page {
        let made = self.tell(None, "Target.createTarget", &json!({ "url": "about:blank" }));
        let form = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = self.tell(None, "Target.attachToTarget", &form);
        let page = Page { session: attached["sessionId"].as_str().unwrap().to_owned() };
        for part in ["Page", "Runtime", "Log", "Network"] {
            let form =
                if part == "Network" { json!({ "maxPostDataSize": 1 << 20 }) } else { json!({}) };
            self.tell(Some(&page), &format!("{part}.enable"), &form);
        }
        page
    }

    /// Runs a script in every document that the page opens, before its own.
    pub(crate) fn before(&mut self, page: &Page, script: &str) {
        let form = json!({ "source": script });
        self.tell(Some(page), "Page.addScriptToEvaluateOnNewDocument", &form);
    }

    /// Goes to an address.
    pub(crate) fn open(&mut self, page: &Page, address: &str) {
        let gone = self.tell(Some(page), "Page.navigate", &json!({ "url": address }));
        assert!(gone["errorText"].is_null(), "{gone}\n{}", self.process.errors());
    }

    /// The value of an expression in the page; of a promise what it becomes.
    pub(crate) fn value(&mut self, page: &Page, expression: &str) -> Value {
        let form = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
            "allowUnsafeEvalBlockedByCSP": false,
        });
        let answer = self.tell(Some(page), "Runtime.evaluate", &form);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true; in a page that is not there yet it is not.
    pub(crate) fn until(&mut self, page: &Page, expression: &str) {
        let tried = format!("(() => {{ try {{ return {expression} }} catch {{ }} }})()");
        wait_for(expression, LATER, || self.value(page, &tried) == true).unwrap_or_else(|error| {
            let shown = self.value(page, "document.body.innerText");
            panic!("{error}: {shown}\n{:#?}\n{}", self.events, self.process.errors())
        });
    }

    /// Presses the mouse on the middle of an element.
    pub(crate) fn click(&mut self, page: &Page, id: &str) {
        let place = format!(
            "(() => {{ const at = document.getElementById({id:?}); at.scrollIntoView(); \
             const box = at.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2, box.width]; }})()"
        );
        let place = self.value(page, &place);
        assert!(place[2].as_f64().unwrap() > 0.0, "{id} is not to be seen");
        for kind in ["mousePressed", "mouseReleased"] {
            let form = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.tell(Some(page), "Input.dispatchMouseEvent", &form);
        }
    }

    /// Types a text where the cursor is.
    pub(crate) fn enter(&mut self, page: &Page, text: &str) {
        self.tell(Some(page), "Input.insertText", &json!({ "text": text }));
    }

    /// Waits for a file to be saved; its name and what is in it.
    pub(crate) fn saved(&mut self) -> (String, Vec<u8>) {
        let is = |event: &Value, method: &str| event["method"] == method;
        let done = self.event("a file to be saved", |event| {
            is(event, "Browser.downloadProgress") && event["params"]["state"] != "inProgress"
        });
        assert_eq!(done["params"]["state"], "completed", "{done}");
        let begun = self.event("its name", |event| is(event, "Browser.downloadWillBegin"));
        let name = begun["params"]["suggestedFilename"].as_str().unwrap().to_owned();
        (name.clone(), fs::read(self.folder.join("saved").join(name)).unwrap())
    }

    /// What a page did, by the names of events such as `Network.requestWillBeSent`.
    pub(crate) fn events(&mut self, page: &Page, methods: &[&str]) -> Vec<Value> {
        self.events.extend(self.answers.try_iter());
        let theirs = |event: &&Value| {
            event["sessionId"] == page.session.as_str()
                && methods.iter().any(|method| event["method"] == *method)
        };
        self.events.iter().filter(theirs).map(|event| event["params"].clone()).collect()
    }

    /// What a page said on its console, threw, or was kept from by its policy.
    pub(crate) fn complaints(&mut self, page: &Page) -> Vec<Value> {
        let all = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        self.events(page, &all)
    }

    /// Waits for an event, of now or before.
    fn event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, LATER, || {
            self.events.extend(self.answers.try_iter());
            self.events.iter().find(|event| wanted(event)).cloned()
        })
        .unwrap_or_else(|error| panic!("{error}: {:#?}", self.events))
    }

    /// Gives a command and takes its answer.
    fn tell(&mut self, page: Option<&Page>, method: &str, params: &Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": params });
        if let Some(page) = page {
            command["sessionId"] = page.session.clone().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("{method}: {error}; is {PROGRAM} there? {}", self.process.errors())
            });
            if answer["id"] != self.number {
                self.events.push(answer);
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {answer}");
            return answer["result"].clone();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Reads answers and events until the browser ends.
fn hear(pipe: &Path, to: &Sender<Value>) {
    let Ok(pipe) = File::open(pipe) else { return };
    for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
        let Ok(message) = serde_json::from_slice(&message) else { return };
        if to.send(message).is_err() {
            return;
        }
    }
}
