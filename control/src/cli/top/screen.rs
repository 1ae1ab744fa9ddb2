//! The terminal of `top`: taken, drawn on, and given back however it ends.
//!
//! One thread looks at the gateway, one waits for signals, this one draws and reads keys. A panic,
//! a signal and the end of the program all leave the terminal as it was.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use crossterm::event::{Event, poll, read};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};

use super::draw;
use super::fetch::Fetcher;
use super::model::{Model, Reading};
use super::view::{Next, View};
use crate::failure::{Failure, Status};

/// How long a key is waited for before news are looked at.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// What the other threads tell.
enum News {
    /// A look at the gateway.
    Looked(Box<Result<Reading, Failure>>),
    /// A signal asks for the end.
    Stop,
}

/// Gives the terminal back.
struct Given;

impl Drop for Given {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Watches until somebody ends it.
pub(super) fn run(mut fetcher: Fetcher, view: View, interval: Duration) -> Result<Status, Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let message = "There is no terminal to draw on: \"ringway top --once\" prints one screen";
        return Err(Failure::new(Status::Usage, message));
    }
    // Whoever cannot be reached at all is told so in plain words; later it is waited for.
    let mut model = Model::default();
    model.take(fetcher.look()?);
    let (tell, news) = mpsc::sync_channel(1);
    watch_signals(tell.clone())?;
    spawn("top-look", move || look_on(&mut fetcher, &tell, interval))?;
    let broken = |error: io::Error| {
        Failure::new(Status::State, format!("Cannot draw on the terminal ({error})"))
    };
    let mut terminal = ratatui::try_init().map_err(broken)?;
    let given = Given;
    let ended = draw_on(&mut terminal, &news, model, view);
    drop(given);
    ended.map(|()| Status::Done).map_err(broken)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let made = thread::Builder::new().name(name.to_owned()).spawn(work);
    made.map(|_| ()).map_err(|error| {
        Failure::new(Status::Unsupported, format!("Cannot start a thread ({error})"))
    })
}

fn look_on(fetcher: &mut Fetcher, tell: &SyncSender<News>, interval: Duration) {
    loop {
        thread::sleep(interval);
        if tell.send(News::Looked(Box::new(fetcher.look()))).is_err() {
            return;
        }
    }
}

/// Tells of the first signal that asks for the end. From here on none ends the program by itself.
fn watch_signals(tell: SyncSender<News>) -> Result<(), Failure> {
    let broken = |error: io::Error| {
        Failure::new(Status::Unsupported, format!("Cannot wait for signals ({error})"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(broken)?;
    let inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(broken)?;
    drop(inside);
    spawn("top-signals", move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
                _ = hang_up.recv() => (),
            }
        });
        let _ = tell.send(News::Stop);
    })
}

fn draw_on(
    terminal: &mut DefaultTerminal,
    news: &Receiver<News>,
    mut model: Model,
    mut view: View,
) -> io::Result<()> {
    // What came during a pause is shown after it.
    let mut waiting: Option<Result<Reading, Failure>> = None;
    let mut changed = true;
    loop {
        if changed {
            view.fit(model.sessions(&view).len());
            terminal.draw(|frame| draw::draw(&model, &view, frame.area(), frame.buffer_mut()))?;
        }
        changed = poll(KEY_WAIT)?;
        if changed {
            match read()? {
                Event::Key(key) => {
                    if view.press(key) == Next::Quit {
                        return Ok(());
                    }
                }
                // The next picture has the new size.
                Event::Resize(..)
                | Event::FocusGained
                | Event::FocusLost
                | Event::Mouse(_)
                | Event::Paste(_) => (),
            }
        }
        while let Ok(one) = news.try_recv() {
            match one {
                News::Stop => return Ok(()),
                News::Looked(look) => waiting = Some(*look),
            }
        }
        if view.paused {
            continue;
        }
        if let Some(look) = waiting.take() {
            changed = true;
            match look {
                Ok(reading) => model.take(reading),
                Err(failure) => model.lose(failure.message),
            }
        }
    }
}
