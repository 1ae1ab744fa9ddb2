//! How `top` is looked at: the order of sessions, the filter, the pause; and what keys do to it.
//!
//! Pure: a key and a view make another view.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 64;

/// The order of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Both rates together, the fastest first.
    #[default]
    Rate,
    /// By user.
    User,
    /// By device.
    Device,
    /// Rate from the client, the fastest first.
    Up,
    /// Rate to the client, the fastest first.
    Down,
    /// The youngest first.
    Since,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Rate => Self::User,
            Self::User => Self::Device,
            Self::Device => Self::Up,
            Self::Up => Self::Down,
            Self::Down => Self::Since,
            Self::Since => Self::Rate,
        }
    }

    /// What it is called.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::User => "user",
            Self::Device => "device",
            Self::Up => "up",
            Self::Down => "down",
            Self::Since => "since",
        }
    }
}

/// How it is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The order of sessions.
    pub(super) sort: Sort,
    /// The other way round.
    pub(super) reverse: bool,
    /// What user, device or address contains.
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) typing: bool,
    /// Whether new readings are not shown.
    pub(super) paused: bool,
    /// Sessions that are above the first one shown.
    pub(super) above: usize,
}

/// What comes after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    On,
    /// End.
    Quit,
}

impl View {
    /// Does what a key says.
    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::On;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Next::Quit;
        }
        if self.typing {
            self.write(key.code);
            return Next::On;
        }
        #[allow(clippy::wildcard_enum_match_arm, reason = "other keys do nothing")]
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('s') => self.order(self.sort.next()),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('j') | KeyCode::Down => self.above = self.above.saturating_add(1),
            KeyCode::Char('k') | KeyCode::Up => self.above = self.above.saturating_sub(1),
            KeyCode::PageDown => self.above = self.above.saturating_add(10),
            KeyCode::PageUp => self.above = self.above.saturating_sub(10),
            KeyCode::Home => self.above = 0,
            _ => (),
        }
        Next::On
    }

    fn order(&mut self, sort: Sort) {
        self.sort = sort;
        self.above = 0;
    }

    fn write(&mut self, key: KeyCode) {
        self.above = 0;
        #[allow(clippy::wildcard_enum_match_arm, reason = "other keys write nothing")]
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_CHARS_MAX => {
                self.filter.push(c);
            }
            _ => (),
        }
    }

    /// Keeps the view inside a list of `count` sessions.
    pub(super) fn fit(&mut self, count: usize) {
        self.above = self.above.min(count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(view: &mut View, keys: &str) -> Next {
        let mut next = Next::On;
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                other => KeyCode::Char(other),
            };
            next = view.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        next
    }

    #[test]
    fn keys_sort_turn_pause_and_quit() {
        let mut view = View::default();
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(view.sort.word());
            type_in(&mut view, "s");
        }
        assert_eq!(seen, ["rate", "user", "device", "up", "down", "since"]);
        assert_eq!(view.sort, Sort::Rate);
        type_in(&mut view, "rp");
        assert!(view.reverse && view.paused);
        assert_eq!(type_in(&mut view, "q"), Next::Quit);
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(control), Next::Quit);
    }

    #[test]
    fn letters_of_a_filter_are_no_commands() {
        let mut view = View::default();
        assert_eq!(type_in(&mut view, "/qsx\x08"), Next::On);
        assert_eq!((view.filter.as_str(), view.typing, view.sort), ("qs", true, Sort::Rate));
        type_in(&mut view, "\n");
        assert_eq!((view.filter.as_str(), view.typing), ("qs", false));
        type_in(&mut view, "\x1b");
        assert_eq!(view.filter, "");
        type_in(&mut view, &format!("/{}", "x".repeat(200)));
        assert_eq!(view.filter.len(), FILTER_CHARS_MAX);
    }

    #[test]
    fn scrolling_stays_inside_the_list() {
        let mut view = View::default();
        type_in(&mut view, "kk");
        assert_eq!(view.above, 0);
        type_in(&mut view, "jjjjj");
        view.fit(3);
        assert_eq!(view.above, 2);
        view.fit(0);
        assert_eq!(view.above, 0);
    }
}
