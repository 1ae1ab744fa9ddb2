//! `ringway top` without and with a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::gateway::{Gateway, is_password, program, session, split};

/// How long a test looks for something on the screen before it gives up.
const LOOK_MAX: Duration = Duration::from_secs(20);

#[test]
fn one_screen_is_printed_as_text() {
    let gateway = Gateway::new("top_once");
    *gateway.live.sessions.lock().unwrap() =
        vec![session(1, "ada"), session(2, "grace"), session(3, "alan")];
    gateway.live.ill.store(true, Ordering::SeqCst);
    let screen = gateway.ok("top --once --sort user --filter a");
    for part in [
        "ringway rw0 0.1.0  running  up 1h 1m  sessions 3 of 1000",
        "CORE",
        "quota_exceeded",
        "store: UNHEALTHY, it does not answer",
        "Sessions by user, with \"a\": 3",
        "q quit",
    ] {
        assert!(screen.contains(part), "lacks {part}:\n{screen}");
    }
    let at = |name: &str| screen.find(name).unwrap();
    assert!(at("ada") < at("alan") && at("alan") < at("grace"), "{screen}");
    // A second went by between the two looks: rates are near what the metrics grow by.
    let core = screen.lines().find(|line| line.starts_with("│0")).unwrap();
    assert!(core.contains(" %") && core.contains("Mbit/s") | core.contains("Gbit/s"), "{core}");
    gateway.live.away.store(true, Ordering::SeqCst);
    gateway.fails("top --once", 14, &["(gateway-unavailable)"]);
    gateway.live.away.store(false, Ordering::SeqCst);
    gateway.fails("top", 2, &["ringway top --once"]);
}

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    shown: std::sync::mpsc::Receiver<Vec<u8>>,
    /// All that was written.
    seen: String,
    /// How much of it was looked at.
    looked: usize,
}

impl Terminal {
    fn new(gateway: &Gateway, line: &str) -> Self {
        let size = nix::pty::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let mut arguments = split(line);
        arguments.extend(["--socket".to_owned(), gateway.socket().display().to_string()]);
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = program(&arguments, &[("TERM", "xterm")])
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave))
            .spawn()
            .unwrap();
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().unwrap();
        let (tell, shown) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The other end of a terminal without a program is an error, not an end.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let _ = tell.send(bytes[..count].to_vec());
            }
        });
        Self { child, keys, shown, seen: String::new(), looked: 0 }
    }

    /// Waits until `there` holds of what was written.
    #[track_caller]
    fn wait(&mut self, what: &str, there: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !there(self) {
            let left = LOOK_MAX.saturating_sub(start.elapsed());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{what:?} never came:\n{}", screen(&self.seen)),
            }
        }
    }

    /// Waits until `text` is written, after what was waited for before.
    #[track_caller]
    fn until(&mut self, text: &str) {
        self.wait(text, |terminal| terminal.seen[terminal.looked..].contains(text));
        let after = self.seen[self.looked..].find(text).unwrap() + text.len();
        self.looked += after;
    }

    /// Waits until `text` stands on the screen.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        self.wait(text, |terminal| screen(&terminal.seen).contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

/// What a terminal of 120 by 40 shows after `written`: text at the places that the cursor is sent
/// to.
fn screen(written: &str) -> String {
    let mut cells = vec![vec![' '; 120]; 40];
    let (mut row, mut column) = (0, 0);
    let mut rest = written.chars();
    while let Some(c) = rest.next() {
        if c != '\x1b' {
            if let Some(cell) =
                cells.get_mut(row).and_then(|line: &mut Vec<char>| line.get_mut(column))
            {
                *cell = c;
            }
            column += 1;
            continue;
        }
        // Behind the bracket, up to the letter that says what it does.
        let mut sequence = String::new();
        for c in rest.by_ref().skip(1) {
            sequence.push(c);
            if c.is_ascii_alphabetic() {
                break;
            }
        }
        let Some(place) = sequence.strip_suffix('H') else { continue };
        let mut numbers = place.split(';').map(|number| number.parse::<usize>().unwrap_or(1) - 1);
        (row, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    }
    cells.into_iter().map(|line| line.into_iter().collect::<String>() + "\n").collect()
}

/// What gives the terminal back: out of the second screen.
const BACK: &str = "\x1b[?1049l";

#[test]
fn keys_work_the_gateway_may_restart_and_the_terminal_is_given_back() {
    let mut gateway = Gateway::new("top_live");
    *gateway.live.sessions.lock().unwrap() = vec![session(1, "ada"), session(2, "grace")];
    let mut terminal = Terminal::new(&gateway, "top --interval 1s");
    terminal.shows("Sessions by rate: 2");
    terminal.press("s");
    terminal.shows("Sessions by user: 2");
    terminal.press("/grace\r");
    terminal.shows("Sessions by user, with \"grace\": 1");
    terminal.press("\x1b");
    gateway.stop();
    terminal.shows("AWAY: No gateway answers");
    gateway.start();
    *gateway.live.sessions.lock().unwrap() = vec![session(3, "linus")];
    terminal.shows("linus");
    terminal.press("q");
    terminal.until(BACK);
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let gateway = Gateway::new("top_signal");
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut terminal = Terminal::new(&gateway, "top");
        terminal.shows("Sessions by rate: 0");
        kill(Pid::from_raw(terminal.child.id().cast_signed()), signal).unwrap();
        terminal.until(BACK);
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_password_is_typed_twice_and_not_shown() {
    let gateway = Gateway::new("typed");
    gateway.ok("user add ada");
    let mut terminal = Terminal::new(&gateway, "user passwd ada");
    terminal.until("New password of ada:");
    terminal.press("correct horsee\x7f battery\r");
    terminal.until("once more:");
    terminal.press("correct horse battery\r");
    let start = Instant::now();
    while terminal.child.try_wait().unwrap().is_none() && start.elapsed() < LOOK_MAX {
        let wait = Duration::from_millis(50);
        if let Ok(bytes) = terminal.shown.recv_timeout(wait) {
            terminal.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0), "{}", terminal.seen);
    assert!(!terminal.seen.contains("horse"), "{}", terminal.seen);
    let id = gateway.json("user show ada")["user"]["id"].as_str().unwrap().parse().unwrap();
    let hash = gateway.write(move |db| db.user_secrets(id).unwrap().password_hash);
    assert!(is_password(&hash.unwrap(), "correct horse battery"));
}

#[test]
fn a_password_that_is_typed_differently_or_given_up_changes_nothing() {
    let gateway = Gateway::new("mistyped");
    gateway.ok("user add ada");
    for (second, code, part) in
        [("correct horse stapler\r", 2, "not the same"), ("\x03", 1, "Nothing was typed")]
    {
        let mut terminal = Terminal::new(&gateway, "user passwd ada");
        terminal.until("New password of ada:");
        terminal.press("correct horse battery\r");
        terminal.until("once more:");
        terminal.press(second);
        terminal.until(part);
        assert_eq!(terminal.child.wait().unwrap().code(), Some(code));
        assert_eq!(gateway.json("user show ada")["user"]["has_password"], false);
    }
}

#[test]
fn what_cannot_be_undone_is_asked_about_at_a_terminal() {
    let gateway = Gateway::new("asked");
    gateway.ok("user add ada");
    for (answer, code, left) in [("n\r", 1, "ada\n"), ("y\r", 0, "")] {
        let mut terminal = Terminal::new(&gateway, "user rm ada");
        terminal.until("Go on? [y/N]");
        terminal.press(answer);
        assert_eq!(terminal.child.wait().unwrap().code(), Some(code));
        assert_eq!(gateway.ok("user list -q"), left);
    }
}
