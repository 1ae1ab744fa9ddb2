//! How a question travels: HTTP as RFC 5019 has it, with bounds.
//!
//! Short questions are part of the address, so that caches on the way may answer; long ones are
//! posted, and so are those for which a responder knows no other way. No redirect is followed, no
//! proxy asked, and what comes is bounded in bytes and time. This module must not know what an
//! answer says.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, StatusCode};

use super::answer::ANSWER_BYTES_MAX;
use super::question::Question;

/// The longest that asking may take: a third of the patience of a client, and responders that are
/// well need tens of milliseconds.
pub(super) const FETCH_MAX: Duration = Duration::from_secs(3);

/// A client of responders.
pub(super) fn client() -> Result<Client, String> {
    // Fails if there is a provider already, which is then as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(FETCH_MAX)
        .no_proxy()
        .build()
        .map_err(|error| format!("no client for responders (OCSP): {error}"))
}

/// Brings the answer. The caller has a limit of [`FETCH_MAX`] for all of it.
pub(super) async fn fetch(client: &Client, question: &Question) -> Result<Vec<u8>, String> {
    let encoded = question.encoded().ok_or("the issuer's key is none")?;
    if let Some(address) = question.address(&encoded)
        && let Ok(answer) = send(client.get(address)).await?
    {
        return Ok(answer);
    }
    let posted = client
        .post(&question.responder)
        .header(CONTENT_TYPE, "application/ocsp-request")
        .body(encoded);
    send(posted).await?.map_err(|status| format!("the responder answers {status}"))
}

/// The body, or the status if that is not 200.
async fn send(request: RequestBuilder) -> Result<Result<Vec<u8>, StatusCode>, String> {
    let failed = |error: reqwest::Error| error.without_url().to_string();
    let request = request.header(ACCEPT, "application/ocsp-response");
    let mut response = request.send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Ok(Err(response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Ok(bytes))
}
