//! What the program says (`tracing`) becomes lines: filtered, bounded, without addresses where none
//! may be kept, and not repeated for ever.
//!
//! This is the one way to the log, so what holds here holds for every line, also for those of
//! libraries. This module must not know where lines go.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::line::{Dress, Line, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX, Value};
use super::privacy::{Mode, Scrub};
use super::repeats::{Key, Repeats, Verdict};
use super::writer::{Tick, Writer, lock};
use crate::store::ids::Timestamp;

/// Targets of this program begin with this.
const OWN: &str = "ringway";

/// The target of what the log says about itself.
const TARGET: &str = "ringway_control::logs";

/// What both the layer and the thread of the writer need.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) repeats: Mutex<Repeats>,
    pub(super) dress: Dress,
    pub(super) begun: Instant,
}

/// The layer.
pub(super) struct ToLines {
    pub(super) shared: Arc<Shared>,
    pub(super) level: LevelFilter,
    pub(super) scrub: Scrub,
    pub(super) writer: Writer,
}

impl<S: Subscriber> Layer<S> for ToLines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // What libraries say in detail may hold an address in a form that nobody would recognise.
        let foreign = !metadata.target().starts_with(OWN) && *metadata.level() > Level::WARN;
        metadata.is_event()
            && *metadata.level() <= self.level
            && !(foreign && self.scrub.mode() == Mode::NoLog)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line {
            at: now(),
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            message: String::new(),
            reason: None,
            fields: Vec::new(),
        };
        event.record(&mut Fields { line: &mut line, scrub: &self.scrub });
        // Whoever asked for details wants all of them; the queue is bounded anyway.
        if line.level <= Level::INFO {
            let place = (metadata.file().unwrap_or(TARGET), metadata.line().unwrap_or(0));
            let key = Key { place, reason: line.reason.clone() };
            match lock(&self.shared.repeats).judge(key, self.shared.begun.elapsed()) {
                Verdict::LeaveOut => return,
                Verdict::Say { left_out: 0 } => {}
                Verdict::Say { left_out } => {
                    line.add("left_out_before", Value::Number(left_out.into()));
                }
            }
        }
        self.writer.write(line.render(self.shared.dress));
    }
}

/// Says counts when nobody else says anything.
pub(super) struct Counting(pub(super) Arc<Shared>);

impl Tick for Counting {
    fn tick(&mut self) -> Vec<String> {
        let over = lock(&self.0.repeats).take_over(self.0.begun.elapsed());
        over.into_iter().map(|(key, count)| self.left_out(key, count)).collect()
    }

    fn lost(&mut self, lines: u64) -> String {
        let text = "Lines were lost: they came faster than they can be written, or could not be \
                    written at all";
        let mut line = own(text);
        line.add("lost", Value::Number(lines.into()));
        line.render(self.0.dress)
    }
}

impl Counting {
    fn left_out(&self, key: Key, count: u64) -> String {
        let mut line = own("Lines like one that was said before were left out");
        line.add("left_out", Value::Number(count.into()));
        line.add("place", Value::Text(format!("{}:{}", key.place.0, key.place.1)));
        if let Some(reason) = key.reason {
            line.add("reason", Value::Text(reason));
        }
        line.render(self.0.dress)
    }
}

fn own(message: &str) -> Line {
    Line {
        at: now(),
        level: Level::WARN,
        target: TARGET.to_owned(),
        message: message.to_owned(),
        reason: None,
        fields: Vec::new(),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Takes the fields of an event into its line.
struct Fields<'a> {
    line: &'a mut Line,
    scrub: &'a Scrub,
}

impl Fields<'_> {
    fn text(&mut self, field: &Field, text: &str) {
        let text = self.scrub.text(text).into_owned();
        self.line.add(field.name(), Value::Text(text));
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let bytes_max = if field.name() == "message" { MESSAGE_BYTES_MAX } else { VALUE_BYTES_MAX };
        let mut text = Bounded { text: String::new(), bytes_max: bytes_max + 1 };
        // What does not fit ends the writing of it.
        let _ = write!(text, "{value:?}");
        self.text(field, &text.text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.line.add(field.name(), Value::Number(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.line.add(field.name(), Value::Number(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.line.add(field.name(), Value::Number(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.line.add(field.name(), Value::Number(value.try_into().unwrap_or(i128::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.line.add(field.name(), Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.line.add(field.name(), Value::Bool(value));
    }
}

/// Text up to a length; the rest is not even formatted.
struct Bounded {
    text: String,
    bytes_max: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.bytes_max.saturating_sub(self.text.len());
        let fits = more.floor_char_boundary(room.min(more.len()));
        self.text.push_str(&more[..fits]);
        if fits < more.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
