//! What the program asks a person: whether it is meant, and for secrets.
//!
//! A secret is typed without being shown, or comes from a file or standard input; it is never an
//! argument, because everybody on the host can read those. Where nobody can be asked, nothing is
//! assumed.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use clap::Args;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use zeroize::{Zeroize as _, Zeroizing};

use super::say;
use crate::failure::{Failure, Status};

/// Longest secret, in bytes; the API takes as much.
const SECRET_BYTES_MAX: usize = 1024;

/// Whether it is meant.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct SureArgs {
    /// Do not ask whether it is meant
    #[arg(long, short = 'y')]
    yes: bool,
}

impl SureArgs {
    /// Goes on if the person at the terminal says so.
    pub(crate) fn confirm(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            let message =
                format!("{what}: nobody is there to be asked, so say --yes if you mean it");
            return Err(Failure::new(Status::Usage, message));
        }
        say(&format!("{what}. Go on? [y/N]"));
        let mut answer = String::new();
        let _ = io::stdin().lock().take(64).read_line(&mut answer);
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new(Status::Findings, "Nothing was changed")),
        }
    }
}

/// Reads a secret: from `file` (`-` is standard input), else from the terminal, typed twice if it
/// is new.
pub(crate) fn secret(
    what: &str,
    file: Option<&Path>,
    is_new: bool,
) -> Result<Zeroizing<String>, Failure> {
    let text = match file {
        Some(file) if file.as_os_str() == "-" => bounded(&mut io::stdin().lock())
            .map_err(|error| Failure::file("read", Path::new("standard input"), &error))?,
        Some(file) => fs::File::open(file)
            .and_then(|mut file| bounded(&mut file))
            .map_err(|error| Failure::file("read", file, &error))?,
        None => return typed(what, is_new),
    };
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(Failure::new(Status::Usage, format!("{what}: there is nothing to read")));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn bounded(from: &mut dyn io::Read) -> io::Result<Zeroizing<String>> {
    // Room for all of it, so that no secret is left behind by a growing buffer.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX + 3));
    from.take(SECRET_BYTES_MAX as u64 + 3).read_to_string(&mut text)?;
    if text.len() > SECRET_BYTES_MAX + 2 {
        return Err(io::Error::other(format!("it has more than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn typed(what: &str, is_new: bool) -> Result<Zeroizing<String>, Failure> {
    if !io::stdin().is_terminal() {
        let message = format!(
            "{what}: nobody is there to type it, so name a file that has it (- for standard input)"
        );
        return Err(Failure::new(Status::Usage, message));
    }
    // Before the question is put, so that nothing of the answer is shown however fast it comes.
    let raw = Raw::begin()?;
    let first = type_once(what);
    let same = match (&first, is_new) {
        (Ok(first), true) => {
            type_once(&format!("{what}, once more")).map(|again| **first == *again)
        }
        (Ok(_), false) | (Err(_), _) => Ok(true),
    };
    drop(raw);
    if !same? {
        let message = "The two are not the same: nothing was changed";
        return Err(Failure::new(Status::Usage, message));
    }
    first
}

/// A terminal that shows nothing of what is typed; put back however this ends.
struct Raw;

impl Raw {
    fn begin() -> Result<Self, Failure> {
        enable_raw_mode().map_err(|error| broken(&error))?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Status::State, format!("Cannot read from the terminal ({error})"))
}

/// Puts a question and reads the answer, on a terminal that shows none of it.
fn type_once(what: &str) -> Result<Zeroizing<String>, Failure> {
    let mut terminal = io::stderr();
    // Nothing sensible can be done if the terminal is gone.
    let _ = write!(terminal, "{what}: ").and_then(|()| terminal.flush());
    let typed = read_keys();
    // A line feed alone stays in its column here.
    let _ = write!(terminal, "\r\n").and_then(|()| terminal.flush());
    typed
}

fn read_keys() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX + 4));
    let done = loop {
        match read().map_err(|error| broken(&error))? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match press(&mut text, key) {
                Typing::On => (),
                Typing::Done => break true,
                Typing::Stopped => break false,
            },
            Event::Paste(mut pasted) => {
                if text.len() + pasted.len() <= SECRET_BYTES_MAX {
                    text.push_str(&pasted);
                }
                pasted.zeroize();
            }
            Event::Key(_)
            | Event::Mouse(_)
            | Event::Resize(..)
            | Event::FocusGained
            | Event::FocusLost => (),
        }
    };
    if done && !text.is_empty() {
        return Ok(text);
    }
    Err(Failure::new(Status::Findings, "Nothing was typed: nothing was changed"))
}

/// What a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Typing {
    /// More may come.
    On,
    /// It is complete.
    Done,
    /// It is not wanted any more.
    Stopped,
}

/// Does what a key says to what was typed so far.
fn press(text: &mut String, key: KeyEvent) -> Typing {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    #[allow(clippy::wildcard_enum_match_arm, reason = "other keys write nothing")]
    match key.code {
        KeyCode::Enter => return Typing::Done,
        KeyCode::Esc => return Typing::Stopped,
        KeyCode::Char('c' | 'd') if control => return Typing::Stopped,
        KeyCode::Char('u') if control => text.zeroize(),
        KeyCode::Char('j' | 'm') if control => return Typing::Done,
        KeyCode::Char(c) if !control && text.len() + c.len_utf8() <= SECRET_BYTES_MAX => {
            text.push(c);
        }
        KeyCode::Backspace => {
            text.pop();
        }
        _ => (),
    }
    Typing::On
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn keys_write_correct_and_end_a_secret() {
        let none = KeyModifiers::NONE;
        let mut text = String::new();
        for c in "hunter3".chars() {
            assert_eq!(press(&mut text, key(KeyCode::Char(c), none)), Typing::On);
        }
        press(&mut text, key(KeyCode::Backspace, none));
        press(&mut text, key(KeyCode::Char('É'), KeyModifiers::SHIFT));
        press(&mut text, key(KeyCode::Left, none));
        assert_eq!(text, "hunterÉ");
        assert_eq!(press(&mut text, key(KeyCode::Enter, none)), Typing::Done);
        let control = KeyModifiers::CONTROL;
        assert_eq!(press(&mut text, key(KeyCode::Char('c'), control)), Typing::Stopped);
        press(&mut text, key(KeyCode::Char('u'), control));
        assert_eq!(text, "");
    }

    #[test]
    fn a_secret_of_a_file_is_its_line_and_has_a_bound() {
        let folder = crate::scratch::Scratch::new("cli_secret");
        let file = folder.path().join("password");
        for (text, expected) in [("correct horse\n", "correct horse"), (" a b \r\n", " a b ")] {
            fs::write(&file, text).unwrap();
            assert_eq!(*secret("Password", Some(&file), true).unwrap(), expected);
        }
        fs::write(&file, "x".repeat(2000)).unwrap();
        let failure = secret("Password", Some(&file), true).unwrap_err();
        assert!(failure.message.contains("more than 1024 bytes"), "{failure}");
        fs::write(&file, "\n").unwrap();
        assert_eq!(secret("Password", Some(&file), true).unwrap_err().status, Status::Usage);
    }
}
