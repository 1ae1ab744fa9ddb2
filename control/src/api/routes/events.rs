//! What happens, while it happens: server-sent events.
//!
//! A reader is handed on from the hub's ring at its own speed. One that does not keep up gets one
//! `lagged` and goes on with what is still there; one that comes back after a restart gets one
//! `restarted` and all that is there since; one that takes nothing is cut by the server's
//! limit for writing. Whoever has lost the right to listen hears nothing [`TRUSTED`] later: before
//! an event is handed on it is asked again who that is. A stream ends after [`LIFE`] all the same,
//! and with the gateway; a browser comes back by itself, with `Last-Event-ID`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::ending::Ending;
use crate::api::gatekeeper::{Via, still_may};
use crate::api::places::Place;
use crate::api::problem::FieldError;
use crate::api::query::bounded;
use crate::api::{ApiState, Caller, Need, Part, Problem, Reason, StrictQuery, Who};
use crate::events::{Event, Heard, Kind, Listener};
use crate::store::ids::UserId;
use crate::store::records::Role;

const NEEDS: &[Need] =
    &[Need::new("GET", "/api/v1/events", Who::Role(Role::Viewer), "events:read")];

/// How long a stream lives.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// How long it is believed who listens.
const TRUSTED: Duration = Duration::from_secs(1);

/// How often a comment is sent on a quiet stream: below the timeouts of proxies on the way.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn part() -> Part {
    Part { router: OpenApiRouter::new().routes(routes!(listen)), needs: NEEDS }
}

/// Which events
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListenQuery {
    /// Only these kinds, separated by commas.
    #[param(max_length = 2048, example = "session.started,session.ended")]
    kind: Option<String>,
}

/// Listen to events
///
/// A stream of server-sent events. `Last-Event-ID` brings what came since, as far as it is kept;
/// an event `lagged` says how many were missed, and `restarted` that the gateway was started anew
/// meanwhile, so that nobody knows how many: all it has since then follows. The stream ends after a
/// quarter of an hour, with the right to listen, and with the gateway: listen again. One user may
/// have eight streams.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "listenToEvents", tag = "events",
    params(ListenQuery, ("Last-Event-ID" = Option<u64>, Header,
        description = "The last event that was heard")),
    responses((status = 200, description = "Events as they come", body = Event,
        content_type = "text/event-stream")))]
async fn listen(
    State(state): State<ApiState>,
    caller: Caller,
    Extension(via): Extension<Via>,
    ending: Option<Extension<Ending>>,
    StrictQuery(query): StrictQuery<ListenQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    bounded("kind", query.kind.as_ref(), 2048)?;
    let kinds = query.kind.as_deref().map(read_kinds).transpose()?;
    let Some(place) = state.take_listener(&caller) else {
        let detail = "You, or all together, listen to events as often as may be: try again later";
        return Err(Problem::new(Reason::Overloaded, detail).retry_after(30));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let listener = match last {
        Some(last) => state.hub().listen_after(last),
        None => state.hub().listen(),
    };
    let now = Instant::now();
    let right = Right { state, headers, via, looked_at: now };
    let ending = ending.map(|Extension(ending)| ending);
    if let Some(ending) = &ending {
        ending.will_be_heard();
    }
    let reader = Reader { listener, kinds, ends_at: now + LIFE, ending, right, _place: place };
    let stream = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(axum::response::Sse::new(stream).keep_alive(keep_alive).into_response())
}

fn read_kinds(given: &str) -> Result<BTreeSet<Kind>, Problem> {
    let read = |word: &str| {
        Kind::from_word(word.trim()).ok_or_else(|| {
            let message = format!("has {word:?}, which is no kind of event");
            let errors = vec![FieldError::new("?kind", message.as_str())];
            Problem { errors, ..Problem::new(Reason::BadQuery, format!("kind {message}")) }
        })
    };
    given.split(',').map(read).collect()
}

/// By what right somebody listens.
struct Right {
    state: ApiState,
    headers: HeaderMap,
    via: Via,
    looked_at: Instant,
}

impl Right {
    async fn lasts(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.looked_at) < TRUSTED {
            return true;
        }
        self.looked_at = now;
        // Nor while nobody can tell: the listener comes back by itself.
        still_may(&self.state, &self.headers, self.via, NEEDS[0]).await
    }
}

struct Reader {
    listener: Listener,
    right: Right,
    /// None for all.
    kinds: Option<BTreeSet<Kind>>,
    ends_at: Instant,
    /// None for a test without a server.
    ending: Option<Ending>,
    /// Gives the place back when the reader goes.
    _place: Place<Option<UserId>>,
}

/// Returns when the server ends.
async fn end_of(ending: Option<&mut Ending>) {
    match ending {
        Some(ending) => ending.comes().await,
        None => std::future::pending().await,
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Sse> {
        loop {
            let heard = tokio::select! {
                // What happened before the end is told first.
                biased;
                heard = self.listener.next() => heard?,
                () = tokio::time::sleep_until(self.ends_at) => return None,
                () = end_of(self.ending.as_mut()) => return None,
            };
            if !self.right.lasts().await {
                return None;
            }
            match heard {
                Heard::Lagged(missed) => {
                    let data = format!("{{\"missed\":{missed}}}");
                    return Some(Sse::default().event("lagged").data(data));
                }
                Heard::Restarted => {
                    let sse = Sse::default().event("restarted");
                    return Some(sse.data("{\"missed\":null}"));
                }
                Heard::Event(event) => {
                    if self.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&event.kind)) {
                        continue;
                    }
                    let data = serde_json::to_string(&*event).unwrap_or_default();
                    let sse = Sse::default().id(event.id.to_string()).event(event.kind.word());
                    return Some(sse.data(data));
                }
            }
        }
    }
}
