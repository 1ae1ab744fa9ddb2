//! Every reason for which the API refuses a request: a closed list.
//!
//! Each has a code that clients may rely on (`urn:ringway:problem:CODE`), a status, a title, a
//! counter and a line in `control/manual/api_reasons.md` (a test compares the two). What exactly is
//! wrong with one request is the `detail` of its problem. This module must not know requests.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

macro_rules! reasons {
    ($($variant:ident $status:literal $code:literal $title:literal,)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $title] $variant,)* }

        impl Reason {
            /// All reasons, in the order of the manual.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name in problems, metrics and the manual.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The status of the answer.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let number = match self { $(Self::$variant => $status,)* };
                // The table below has valid numbers only; a test reads all of them.
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// One sentence that is the same for all requests refused for this reason.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

reasons! {
    // What was sent cannot be read.
    BadRequest 400 "bad-request" "The request is malformed.",
    BadJson 400 "bad-json" "The body is not valid JSON.",
    DuplicateKey 400 "duplicate-key" "A key is given twice.",
    TooDeep 400 "too-deep" "The body is nested too deep.",
    BadQuery 400 "bad-query" "A parameter of the query is unknown, repeated or malformed.",
    // Who asks.
    Unauthenticated 401 "unauthenticated" "This needs credentials, and none were accepted.",
    SignInRefused 401 "sign-in-refused" "Name or credentials are wrong, or this user may not sign in.",
    CertificateMissing 401 "certificate-missing" "no certificate provided",
    CertificateInvalid 401 "certificate-invalid" "certificate validation failed",
    CertificateRevoked 401 "certificate-revoked" "certificate revoked",
    SetupSecretWrong 401 "setup-secret-wrong" "This is not the one-time secret of the first start.",
    Forbidden 403 "forbidden" "The caller may not do this.",
    ScopeMissing 403 "scope-missing" "The token was not made for this.",
    CsrfRefused 403 "csrf-refused" "The request does not prove that it comes from the page itself.",
    // What is asked for.
    NotFound 404 "not-found" "There is no such thing.",
    MethodNotAllowed 405 "method-not-allowed" "This address does not take this method.",
    NotAcceptable 406 "not-acceptable" "It cannot be written in a form that is asked for.",
    RequestTimeout 408 "request-timeout" "The request did not arrive in time.",
    Conflict 409 "conflict" "It does not fit the present state.",
    NameTaken 409 "name-taken" "Another one has this name or key.",
    InUse 409 "in-use" "Something else still needs it.",
    LimitReached 409 "limit-reached" "There are as many as there may be.",
    NeedsRestart 409 "needs-restart" "This cannot change while the gateway runs.",
    Gone 410 "gone" "It was used already, or its time is over.",
    LengthRequired 411 "length-required" "The length of the body must be told beforehand.",
    StaleVersion 412 "stale-version" "It was changed by somebody else in between.",
    BodyTooLarge 413 "body-too-large" "The body is larger than is taken.",
    UnsupportedMediaType 415 "unsupported-media-type" "The body is of a type that is not taken here.",
    Misdirected 421 "misdirected" "The request was meant for another host.",
    Invalid 422 "invalid" "A value is missing, unknown, of the wrong type or out of range.",
    ConfigInvalid 422 "config-invalid" "The configuration is wrong; nothing was changed.",
    PreconditionRequired 428 "precondition-required" "A change needs the version it starts from.",
    TooManyRequests 429 "too-many-requests" "Too many requests in a short time.",
    HeadersTooLarge 431 "headers-too-large" "The headers are larger than is taken.",
    // What fails here.
    Internal 500 "internal" "The gateway failed at this; its log says why.",
    StoreCorrupt 500 "store-corrupt" "The records cannot be read; the log says what to do.",
    StoreBusy 503 "store-busy" "The records are busy.",
    StoreTimeout 503 "store-timeout" "The records did not answer in time.",
    StoreUnavailable 503 "store-unavailable" "The records cannot be reached.",
    GatewayUnavailable 503 "gateway-unavailable" "The running gateway does not answer.",
    Overloaded 503 "overloaded" "Too many requests at the same time.",
    HandlerTimeout 504 "handler-timeout" "The answer took too long.",
    StorageFull 507 "storage-full" "There is no room on the disk; nothing was changed.",
}

/// How often each reason was given since the start.
#[derive(Debug)]
pub struct Counters([AtomicU64; Reason::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    /// Counts one refusal.
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Refusals for `reason` so far.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}
