//! Has the running gateway read its file again, for the API.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::configs::{self, ReloadError, Reloader};
use crate::stats::serve::ReloadRequest;

/// How long a reload may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Has the running gateway read its file again.
pub(super) struct ReloadByDesk(mpsc::Sender<ReloadRequest>);

impl ReloadByDesk {
    pub(super) const fn new(reloads: mpsc::Sender<ReloadRequest>) -> Self {
        Self(reloads)
    }
}

impl Reloader for ReloadByDesk {
    fn reload(&self) -> configs::Later<Result<String, ReloadError>> {
        let reloads = self.0.clone();
        Box::pin(async move {
            let unavailable = |why: &str| ReloadError::Unavailable(why.to_owned());
            let (answer, answered) = oneshot::channel();
            reloads.send(answer).await.map_err(|_| unavailable("it is stopping"))?;
            match tokio::time::timeout(RELOAD_TIMEOUT, answered).await {
                Ok(Ok(outcome)) => outcome.map_err(ReloadError::Refused),
                Ok(Err(_)) => Err(unavailable("it is stopping")),
                Err(_) => Err(unavailable("it takes too long")),
            }
        })
    }
}
