//! The door for other threads: a call is carried to the control thread and its answer back.
//!
//! What may wait is bounded, and nobody waits longer than a few seconds: whoever calls is told that
//! the gateway does not answer, and the gateway never waits for whoever calls.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Service;

/// Calls that may wait.
const CALLS_MAX: usize = 256;

/// Calls that are answered at the same time.
const TOGETHER_MAX: usize = 64;

/// The longest that a caller waits.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Pin<Box<dyn Future<Output = ()>>>;
type Call = Box<dyn FnOnce(Rc<Service>) -> Answer + Send>;

/// Calls the service from any thread. Clones are the same door.
#[derive(Clone)]
pub struct Door(mpsc::Sender<Call>);

/// Where calls arrive.
pub struct Calls(mpsc::Receiver<Call>);

/// Nobody answers at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Too many wait before.
    #[error("the control thread has too much to do")]
    Busy,
    /// No answer came in time.
    #[error("the control thread did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Gone,
}

/// A door and where its calls arrive.
#[must_use]
pub fn door() -> (Door, Calls) {
    let (sender, receiver) = mpsc::channel(CALLS_MAX);
    (Door(sender), Calls(receiver))
}

impl Door {
    /// Runs `work` on the control thread and brings back what it gives.
    ///
    /// # Errors
    /// [`Closed`]; the work may be done all the same.
    pub async fn call<T, F>(
        &self,
        work: impl FnOnce(Rc<Service>) -> F + Send + 'static,
    ) -> Result<T, Closed>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let call: Call = Box::new(move |service| {
            let work = work(service);
            Box::pin(async move {
                // Whoever called may have lost patience.
                let _ = sender.send(work.await);
            })
        });
        self.0.try_send(call).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Closed::Busy,
            mpsc::error::TrySendError::Closed(_) => Closed::Gone,
        })?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Closed::Gone),
            Err(_) => Err(Closed::Silent),
        }
    }
}

impl Service {
    /// Answers calls until dropped.
    pub(super) async fn answer(self: Rc<Self>, mut calls: Calls) {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                call = calls.0.recv(), if answers.len() < TOGETHER_MAX => match call {
                    Some(call) => {
                        answers.spawn_local(call(Rc::clone(&self)));
                    }
                    // Nobody has the door any more.
                    None => std::future::pending().await,
                },
                Some(_) = answers.join_next() => {}
            }
        }
    }
}
