//! Signing in, and what the credential says of groups: it holds once, when it is presented.
//!
//! A login of a browser lasts, and an operator may move its user meanwhile, so what was presented
//! names no groups any more to whoever comes after this. Here rather than in `auth`, which changes
//! no record. This module must not know how anything is proved, nor who joins what.

use std::sync::Arc;

use super::sign_in::{Later, SignIn, SignInAttempt, SignInOutcome};
use crate::directory::Directory;

/// When to come back if the store takes nothing.
const RETRY_S: u32 = 5;

/// Signs people in as another does, and lets them join the groups that they brought.
pub struct Joining {
    /// Who judges.
    pub inner: Arc<dyn SignIn>,
    /// Where groups are.
    pub directory: Directory,
}

impl SignIn for Joining {
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome> {
        let (judged, directory) = (self.inner.sign_in(attempt), self.directory.clone());
        Box::pin(async move {
            let mut outcome = judged.await;
            if let SignInOutcome::Accepted { user, proved, .. } = &mut outcome {
                if let Err(refusal) = directory.join(*user, proved).await {
                    tracing::warn!("Groups of a credential could not be joined: {refusal}");
                    return SignInOutcome::Unavailable { retry_after_s: RETRY_S };
                }
                proved.groups.clear();
            }
            outcome
        })
    }

    fn lift_unstored(&self, subject: &str) -> bool {
        self.inner.lift_unstored(subject)
    }
}
