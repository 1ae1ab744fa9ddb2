//! The picture of `top`: a pure function from model and view to a buffer.
//!
//! From the top: the gateway in one line, its cores, drops beside limits and health, sessions,
//! keys. What does not fit is left out from the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Widget};

use super::model::{CoreRates, Model, Session};
use super::view::View;
use crate::cli::show::{age, bps, count, plain, word};
use crate::store::ids::Timestamp;

/// Most lines of cores: more cores than that are summed only.
const CORES_MAX: usize = 16;
/// Lines of drops, limits and health, frame included.
const MIDDLE_LINES: u16 = 9;

/// Lines that a picture with `sessions` sessions has.
pub(super) fn height(model: &Model, sessions: usize) -> u16 {
    let sessions = u16::try_from(sessions).unwrap_or(u16::MAX - 100);
    2 + cores_height(model) + MIDDLE_LINES + sessions + 3
}

/// The picture as text.
pub(super) fn text(model: &Model, view: &View, columns: u16, lines: u16) -> String {
    let area = Rect::new(0, 0, columns, lines);
    let mut buffer = Buffer::empty(area);
    draw(model, view, area, &mut buffer);
    let mut out = String::new();
    for y in 0..area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // The cell behind a wide character is its own.
            x += u16::try_from(Line::raw(symbol).width().max(1)).unwrap_or(1);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Draws everything.
pub(super) fn draw(model: &Model, view: &View, area: Rect, buffer: &mut Buffer) {
    let [head, cores, middle, sessions, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(cores_height(model)),
        Constraint::Length(MIDDLE_LINES),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    title(model, view).render(head, buffer);
    draw_cores(model, cores, buffer);
    let [left, centre, right] = Layout::horizontal([
        Constraint::Percentage(36),
        Constraint::Percentage(30),
        Constraint::Percentage(34),
    ])
    .areas(middle);
    draw_drops(model, left, buffer);
    draw_limits(model, centre, buffer);
    draw_health(model, right, buffer);
    draw_sessions(model, view, sessions, buffer);
    keys(view).render(foot, buffer);
}

fn cores_height(model: &Model) -> u16 {
    let count = model.last.metrics.cores.len();
    let shown = if count > CORES_MAX { 0 } else { count };
    // Frame, heading, sum.
    u16::try_from(shown).unwrap_or(0) + 4
}

fn strong() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn title<'a>(model: &Model, view: &View) -> Line<'a> {
    let status = &model.last.status;
    if let (Some(why), true) = (&model.away, status.is_null()) {
        return Line::styled(format!("ringway: {}", first_line(why)), strong());
    }
    let whole = model.whole();
    let uptime = status["uptime_s"].as_u64().map_or_else(|| "-".to_owned(), age);
    let mut line = format!(
        "ringway {} {}  {}  up {uptime}  sessions {} of {}  {} up  {} down",
        word(status, "/interface"),
        word(status, "/version"),
        word(status, "/state"),
        word(status, "/sessions"),
        word(status, "/max_clients"),
        bps(whole.up_bps),
        bps(whole.down_bps),
    );
    if view.paused {
        line.push_str("  PAUSED");
    }
    if let Some(why) = &model.away {
        line.push_str(&format!("  AWAY: {}", first_line(why)));
    }
    Line::styled(line, strong())
}

fn first_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default())
}

fn framed(title: String) -> Block<'static> {
    Block::default().borders(Borders::ALL).title(title)
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::raw(text).right_aligned())
}

fn heading(words: &[&'static str], to_the_right: usize) -> Row<'static> {
    let cells = words.iter().enumerate().map(|(at, word)| {
        let line = Line::raw(*word);
        Cell::from(if at >= to_the_right { line.right_aligned() } else { line })
    });
    Row::new(cells.collect::<Vec<_>>()).style(strong())
}

fn draw_cores(model: &Model, area: Rect, buffer: &mut Buffer) {
    let row = |name: String, core: CoreRates, share: f64| {
        Row::new(vec![
            Cell::from(name),
            right(format!("{:.0} %", core.busy / share.max(1.0) * 100.0)),
            right(count(core.up_packets)),
            right(count(core.down_packets)),
            right(bps(core.up_bps)),
            right(bps(core.down_bps)),
            right(count(core.drops)),
        ])
    };
    let known = model.last.metrics.cores.keys();
    let mut rows = Vec::new();
    if known.len() <= CORES_MAX {
        for number in known.clone() {
            let core = model.cores.get(number).copied().unwrap_or_default();
            rows.push(row(number.to_string(), core, 1.0));
        }
    }
    rows.push(row("all".to_owned(), model.whole(), known.len() as f64));
    let widths = [4, 7, 10, 10, 12, 12, 9].map(Constraint::Length);
    let head = ["CORE", "BUSY", "UP PKT/S", "DOWN PKT/S", "UP", "DOWN", "DROPS/S"];
    let table = Table::new(rows, widths).header(heading(&head, 1)).block(framed("Cores".into()));
    Widget::render(table, area, buffer);
}

fn draw_drops(model: &Model, area: Rect, buffer: &mut Buffer) {
    let rows = model.drops.iter().map(|(reason, rate, total)| {
        Row::new(vec![Cell::from(plain(reason)), right(count(*rate)), right(count(*total))])
    });
    let widths = [Constraint::Min(10), Constraint::Length(7), Constraint::Length(7)];
    let table = Table::new(rows, widths)
        .header(heading(&["REASON", "DROPS/S", "EVER"], 1))
        .block(framed("Drops".into()));
    Widget::render(table, area, buffer);
}

fn draw_limits(model: &Model, area: Rect, buffer: &mut Buffer) {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (reason, rate, total) in model.limit_drops() {
        lines.push(Line::raw(format!(
            "{}: {}/s, {} ever",
            plain(reason),
            count(*rate),
            count(*total)
        )));
    }
    if lines.is_empty() {
        lines.push(Line::raw("No packet was over a limit"));
    }
    for (user, action) in &model.last.used_up {
        lines.push(Line::raw(format!("{}: quota used up, {}", plain(user), plain(action))));
    }
    Paragraph::new(lines).block(framed("Limits".into())).render(area, buffer);
}

fn draw_health(model: &Model, area: Rect, buffer: &mut Buffer) {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for part in &model.last.health {
        let healthy = part["healthy"] == serde_json::json!(true);
        let name = word(part, "/name");
        lines.push(if healthy {
            Line::raw(format!("{name}: healthy"))
        } else {
            Line::styled(format!("{name}: UNHEALTHY, {}", word(part, "/why")), strong())
        });
    }
    lines.extend(model.last.notes.iter().map(|note| Line::raw(first_line(note))));
    Paragraph::new(lines).block(framed("Health".into())).render(area, buffer);
}

fn draw_sessions(model: &Model, view: &View, area: Rect, buffer: &mut Buffer) {
    let shown = model.sessions(view);
    let now = model.last.now;
    let rows = shown.iter().skip(view.above).map(|session| session_row(session, now));
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Length(4),
    ];
    let head = ["ID", "USER", "DEVICE", "CLIENT", "STATE", "UP", "DOWN", "SINCE", "CORE"];
    let mut title = format!("Sessions by {}", view.sort.word());
    if view.reverse {
        title.push_str(", the other way round");
    }
    if !view.filter.is_empty() {
        title.push_str(&format!(", with \"{}\"", plain(&view.filter)));
    }
    title.push_str(&format!(": {}", shown.len()));
    let table = Table::new(rows, widths).header(heading(&head, 5)).block(framed(title));
    Widget::render(table, area, buffer);
}

fn session_row(session: &Session, now: Timestamp) -> Row<'static> {
    let seconds = u64::try_from(now.since(session.connected_at) / 1000).unwrap_or(0);
    Row::new(vec![
        Cell::from(session.id.to_string()),
        Cell::from(session.user.clone()),
        Cell::from(session.device.clone()),
        Cell::from(session.client.clone()),
        Cell::from(session.state.clone()),
        right(bps(session.up_bps)),
        right(bps(session.down_bps)),
        right(age(seconds)),
        right(session.core.to_string()),
    ])
}

fn keys(view: &View) -> Line<'static> {
    if view.typing {
        return Line::raw(format!(
            "Filter: {}_  (Enter keeps it, Esc drops it)",
            plain(&view.filter)
        ));
    }
    Line::raw("q quit  s sort  r other way  / filter  p pause  up/down scroll")
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::reading;
    use super::*;
    use crate::cli::top::view::Sort;
    use proptest::prelude::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn model() -> Model {
        let mut model = Model::default();
        model.take(reading(10));
        model.take(reading(12));
        model
    }

    fn picture(model: &Model, view: &View, columns: u16, lines: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| draw(model, view, frame.area(), frame.buffer_mut())).unwrap();
        let shown = terminal.backend().to_string();
        // The backend quotes its lines.
        let lines = shown.lines().map(|line| line.trim_matches('"').trim_end().to_owned() + "\n");
        lines.collect()
    }

    #[test]
    fn a_picture_has_everything_in_its_place() {
        let shown = picture(&model(), &View::default(), 120, 24);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[0].starts_with(
                "ringway ringway0 0.1.0  running  up 1h 1m  sessions 3 of 1000  3 Mbit/s up  6 Gbit/s down"
            ),
            "{shown}"
        );
        let row = |words: &[&str]| {
            let found = lines.iter().any(|line| {
                let mut rest = *line;
                words.iter().all(|word| match rest.split_once(word) {
                    Some((_, after)) => {
                        rest = after;
                        true
                    }
                    None => false,
                })
            });
            assert!(found, "{words:?} are in no line of\n{shown}");
        };
        row(&["CORE", "BUSY", "UP PKT/S", "DOWN PKT/S", "UP", "DOWN", "DROPS/S"]);
        row(&["0", "25 %", "1 k", "2 k", "1 Mbit/s", "2 Gbit/s", "7"]);
        row(&["1", "50 %", "2 k", "4 k", "2 Mbit/s", "4 Gbit/s", "14"]);
        row(&["all", "38 %", "3 k", "6 k", "3 Mbit/s", "6 Gbit/s", "21"]);
        row(&["rate_exceeded_to_client", "20", "240"]);
        row(&["alan: quota used up, throttle", "sign-in: healthy"]);
        row(&["store: UNHEALTHY, it does not answer"]);
        row(&["Sessions by rate: 3"]);
        row(&["2", "grace", "phone", "192.0.2.2", "active", "1 kbit/s", "90 Mbit/s", "2m 0s", "0"]);
        let at = |name: &str| lines.iter().position(|line| line.contains(name)).unwrap();
        assert!(at("grace") < at("desk") && at("desk") < at("laptop"), "{shown}");
        assert!(lines[23].starts_with("q quit"), "{shown}");
    }

    #[test]
    fn text_is_what_a_terminal_shows() {
        let (model, view) = (model(), View { sort: Sort::User, ..View::default() });
        assert_eq!(text(&model, &view, 100, 30), picture(&model, &view, 100, 30));
    }

    #[test]
    fn an_absent_gateway_and_a_pause_are_said() {
        let mut model = Model::default();
        model.lose("No gateway answers at /run/ringway/x.api: start it".to_owned());
        let shown = text(&model, &View::default(), 80, 24);
        assert!(shown.starts_with("ringway: No gateway answers at"), "{shown}");
        model.take(reading(10));
        let view = View { paused: true, filter: "zz".to_owned(), typing: true, ..View::default() };
        let shown = text(&model, &view, 140, 24);
        assert!(shown.contains("PAUSED") && shown.contains("Filter: zz_"), "{shown}");
        assert!(shown.contains("with \"zz\": 0"), "{shown}");
        model.lose("gone".to_owned());
        assert!(text(&model, &View::default(), 140, 24).contains("AWAY: gone"));
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        let mut model = model();
        model.last.used_up = vec![("\x1b[2Jx".to_owned(), "none".to_owned())];
        model.drops = vec![("\x07reason".to_owned(), 1, 1)];
        let shown = text(&model, &View::default(), 120, 24);
        assert!(!shown.contains(['\x1b', '\x07']), "{shown}");
    }

    #[test]
    fn a_screen_for_all_sessions_has_room_for_them() {
        let model = model();
        let shown = text(&model, &View::default(), 120, height(&model, 3));
        assert!(["ada", "grace", "alan"].iter().all(|name| shown.contains(name)), "{shown}");
        assert!(shown.lines().last().unwrap().starts_with("q quit"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_size_of_a_terminal_can_be_drawn_on(
            columns in 1_u16..200, lines in 1_u16..80, above in 0_usize..9
        ) {
            let view = View { above, ..View::default() };
            let drawn = text(&model(), &view, columns, lines);
            prop_assert_eq!(drawn.lines().count(), usize::from(lines));
        }
    }
}
