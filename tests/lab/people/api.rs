//! The API as tests ask it: what is not answered with success is a failed test.
//!
//! The connection itself is [`ringway_perf::api`], which `tools/perf people` measures with.

use std::path::Path;

use ringway_perf::api::Api as Client;
pub(crate) use ringway_perf::api::{Answer, Wire};
use serde_json::Value;

/// Asks one gateway.
pub(crate) struct Api(Client);

impl Api {
    /// By the Unix socket at `path`.
    pub(crate) fn at(path: &Path) -> Self {
        Self(Client::at(path))
    }

    /// By whatever `dial` makes.
    pub(crate) fn by(
        dial: impl Fn() -> std::io::Result<Box<dyn Wire>> + Send + Sync + 'static,
    ) -> Self {
        Self(Client::by(dial))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.call("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, Some(body))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Value {
        self.call("PUT", path, Some(body))
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Value {
        self.call("PATCH", path, Some(body))
    }

    pub(crate) fn delete(&self, path: &str) {
        self.call("DELETE", path, None);
    }

    /// Asks, and takes whatever the answer is.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.0.request(method, path, body).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Asks with headers and a body of any kind; fails if there is nobody.
    pub(crate) fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        self.0.try_ask(method, path, headers, body)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.0.call(method, path, body).unwrap_or_else(|failure| panic!("{failure}"))
    }
}
