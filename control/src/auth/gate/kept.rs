//! Which bans the store has, so that one that was lifted there is lifted here.
//!
//! Who lifts a ban says so by an event, but events are news and may be missed. Then the store is
//! asked. A ban that is not written yet, or never will be, is not in it and must stay; so it is
//! remembered which ones were written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::people::Trouble;
use super::Gate;

/// Subjects that are remembered: more than there are bans at a time, but for a flood. Of those
/// beyond it a missed event is not made up for.
const SUBJECTS_MAX: usize = 16_384;

/// Subjects of bans that the store has.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<BTreeSet<String>>>);

impl Kept {
    pub(super) fn add(&self, subject: String) {
        let mut all = self.all();
        if all.len() < SUBJECTS_MAX {
            all.insert(subject);
        }
    }

    pub(super) fn forget(&self, subject: &str) {
        self.all().remove(subject);
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Lets everybody in whose ban was lifted in the store, and says how many: for whoever may have
    /// missed an event about it.
    ///
    /// # Errors
    ///
    /// The store did not say.
    pub async fn reconcile(&self) -> Result<usize, Trouble> {
        let inner = &self.0;
        let now = (inner.clock)();
        // In this order: what is written meanwhile is not among those that are asked about.
        self.forget_ended();
        let here = inner.kept.all().clone();
        let there = inner.people.bans(now).await?;
        let there: BTreeSet<&str> = there.iter().map(|ban| ban.subject.as_str()).collect();
        let mut lifted = 0;
        for subject in here.iter().filter(|subject| !there.contains(subject.as_str())) {
            lifted += usize::from(inner.bans().lift(subject));
            inner.kept.forget(subject);
        }
        Ok(lifted)
    }

    /// Forgets that the store had bans that are over. Whoever is in again keeps its score.
    pub(super) fn forget_ended(&self) {
        let out: BTreeSet<String> = self.bans().into_iter().map(|ban| ban.subject).collect();
        self.0.kept.all().retain(|subject| out.contains(subject));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::super::super::memory::Memory;
    use super::super::super::people::People as _;
    use super::super::super::source::Source;
    use super::super::{Attempt, Credentials, Protocol};
    use super::*;
    use crate::auth::{Secret, Settings};
    use crate::store::records::{Ban, Timestamp};

    struct World {
        gate: Gate,
        memory: Memory,
        now: Arc<AtomicI64>,
        told: Arc<Mutex<Vec<String>>>,
    }

    impl World {
        fn new() -> Self {
            let (memory, now) = (Memory::default(), Arc::new(AtomicI64::new(1_000_000)));
            let told = Arc::new(Mutex::new(Vec::new()));
            let (time, heard) = (Arc::clone(&now), Arc::clone(&told));
            let gate = Gate::builder(Settings::default(), Arc::new(memory.clone()))
                .unwrap()
                .clock(Arc::new(move || Timestamp(time.load(Ordering::SeqCst))))
                .on_ban(move |ban: &Ban| heard.lock().unwrap().push(ban.subject.clone()))
                .build();
            Self { gate, memory, now, told }
        }

        /// Has an address fail until it is kept out.
        async fn ban(&self, address: &str) {
            let source = Source::Address(address.parse().unwrap());
            let before = self.gate.bans().len();
            while self.gate.bans().len() == before {
                let credentials =
                    Credentials { password: Some(Secret::new("wrong")), ..Credentials::default() };
                // Another one each time, so that none is locked out.
                let user = Some(format!("user{}", self.now.load(Ordering::SeqCst)));
                self.gate.sign_in(Attempt::new(user, credentials, source, Protocol::API)).await;
                self.now.fetch_add(1000, Ordering::SeqCst);
            }
            // The store is told beside the answer.
            tokio::task::yield_now().await;
        }

        fn out(&self) -> Vec<String> {
            self.gate.bans().into_iter().map(|ban| ban.subject).collect()
        }
    }

    #[tokio::test]
    async fn a_ban_is_told_once_and_lifted_here_when_it_was_lifted_in_the_store() {
        let world = World::new();
        world.ban("192.0.2.1").await;
        world.ban("192.0.2.2").await;
        assert_eq!(*world.told.lock().unwrap(), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(world.gate.reconcile().await.unwrap(), 0);
        world.memory.remove_ban("192.0.2.1/32".to_owned()).await.unwrap();
        assert_eq!(world.gate.reconcile().await.unwrap(), 1);
        assert_eq!(world.out(), ["192.0.2.2/32"]);
        // One that came from the store at the start is known to be there as well.
        let now = Timestamp(world.now.load(Ordering::SeqCst));
        let subject = "user:ann".to_owned();
        let ban = Ban { subject, until: now.plus_ms(60_000), score: 9, reason: "x".to_owned() };
        world.memory.put_ban(ban).await.unwrap();
        world.gate.restore().await.unwrap();
        world.memory.remove_ban("user:ann".to_owned()).await.unwrap();
        assert_eq!(world.gate.reconcile().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_ban_that_the_store_never_got_stays() {
        let world = World::new();
        world.ban("192.0.2.1").await;
        world.gate.0.kept.forget("192.0.2.1/32");
        world.memory.remove_ban("192.0.2.1/32".to_owned()).await.unwrap();
        assert_eq!(world.gate.reconcile().await.unwrap(), 0);
        assert_eq!(world.out(), ["192.0.2.1/32"]);
    }
}
