//! The first factor of a sign-in and the question for it, of which nobody learns who exists.
//!
//! What a policy begins with must not show before it is proved: a name that nobody has could only
//! be asked for something made up, and what is made up shows sooner or later, as policies and users
//! change. So the first question is one and the same for every name, the one that the default
//! policy begins with, and whoever's policy begins with something else presents that unasked.
//!
//! What is presented is looked at whatever the policy says: first what it begins with, and if that
//! does not hold all the rest, as for nobody. So the answer, the work and what is counted depend on
//! what was presented and on nothing about the name. This module must not know a particular back
//! end.

use std::sync::Arc;

use super::walk::{Trail, Walker, missing, prompt, standing};
use super::{Outcome, Refusal};
use crate::auth::backend::{Answer, Proof};
use crate::auth::flow::{Flow, offers};
use crate::auth::people::Person;
use crate::auth::reason::{Reason, Told};
use crate::store::records::Factor;

/// What can be presented. What comes first must not matter: only sums are seen outside.
const PRESENTED: [Factor; 4] = [Factor::Certificate, Factor::Token, Factor::Password, Factor::Totp];

/// What everybody is asked for at first, where nobody has a policy but the default one.
pub(super) fn question(default: &[Factor]) -> Factor {
    // Nothing can be asked of whoever needs to prove nothing; the others are asked for something.
    let first = default.first().copied().unwrap_or(Factor::Password);
    if first == Factor::Anonymous { Factor::Password } else { first }
}

/// What came of looking at everything that was presented.
#[derive(Debug, Default)]
struct Looked {
    /// Why the factor of the policy does not hold, if it was there.
    why: Option<Reason>,
    /// What is wrong by itself, or as far as anybody may know.
    wrong: Vec<Reason>,
}

impl Looked {
    /// A certificate or token that is valid and names this name is no wrong guess, whether or not
    /// there is such a user: whoever has one is asked on. That holds for nothing that the store
    /// alone knows to be right.
    fn add(&mut self, factor: Factor, reason: Reason, is_proved: bool) {
        match factor {
            Factor::Certificate | Factor::Token if is_proved => {}
            Factor::Anonymous => {}
            // That nobody issues tokens here is no outage: the client chose to send one.
            Factor::Token if reason == Reason::BackEndMissing => {
                self.wrong.push(Reason::TokenIssuer);
            }
            Factor::Certificate | Factor::Token | Factor::Password | Factor::Totp => {
                self.wrong.push(reason);
            }
        }
    }

    /// What the client hears: of all that is wrong the one that says most, which is the same for
    /// every name.
    fn told(&self) -> Told {
        let told = self.wrong.iter().map(|reason| reason.told());
        told.max_by_key(|told| loudness(*told)).unwrap_or(Told::Wrong)
    }
}

impl Walker<'_> {
    /// The first factor of a policy: none if it is proved and the walk goes on.
    pub(super) async fn first(
        &self,
        flow: &mut Flow,
        person: Option<&Arc<Person>>,
        question: Factor,
        trail: &mut Trail,
    ) -> Result<Option<Outcome>, Refusal> {
        let mut looked = Looked::default();
        let due = flow.current().filter(|due| self.is_there(flow, *due));
        if let Some(due) = due {
            let (answer, is_proved) = self.look_early(flow, due, person).await;
            match answer {
                Answer::Accepted(_) if flow.early() == Some(due) => return Ok(None),
                Answer::Accepted(proof) => {
                    return flow.accepted(proof).map(|()| None).map_err(Refusal::from);
                }
                Answer::Refused(reason) if self.is_guest(due) => return Err(reason.into()),
                Answer::Refused(reason) => {
                    looked.why = Some(reason);
                    looked.add(due, reason, is_proved);
                }
                Answer::Challenge { prompt, state } => {
                    flow.waits(state);
                    return self.ask(flow.clone(), prompt).map(Some);
                }
                Answer::Pending { prompt, poll_after, state } => {
                    flow.waits(state);
                    let ticket = self.hold(flow.clone())?;
                    return Ok(Some(Outcome::Pending { prompt, poll_after, ticket }));
                }
            }
        }
        // From here on nothing may tell who that is, nor what the policy is.
        for factor in PRESENTED {
            if Some(factor) == due || !self.is_there(flow, factor) {
                continue;
            }
            let (answer, is_proved) = self.look_early(flow, factor, None).await;
            let reason = match answer {
                Answer::Refused(reason) => reason,
                // Nobody is in no good standing; a back end that asks back has not said yes.
                Answer::Accepted(_) | Answer::Challenge { .. } | Answer::Pending { .. } => {
                    Reason::UserUnknown
                }
            };
            looked.add(factor, reason, is_proved);
        }
        let is_known = person.is_some();
        self.end_of_first(flow, is_known, question, looked, trail).map(Some)
    }

    /// Asks, or refuses. Of `is_known` and of why the policy's own factor does not hold only log
    /// and counters hear.
    fn end_of_first(
        &self,
        flow: &mut Flow,
        is_known: bool,
        question: Factor,
        looked: Looked,
        trail: &mut Trail,
    ) -> Result<Outcome, Refusal> {
        let reason = looked.why.unwrap_or_else(|| match flow.current() {
            _ if !is_known => Reason::UserUnknown,
            Some(due) if self.inner.door(due).is_none() => missing(due),
            Some(_) | None => Reason::CredentialMissing,
        });
        if !looked.wrong.is_empty() {
            let told = looked.told();
            trail.wrong = looked.wrong;
            return Err(Refusal { told, ..reason.into() });
        }
        if self.is_there(flow, question) {
            // It is valid and not enough, and nothing else is asked for.
            trail.wrong = vec![Reason::UserUnknown];
            return Err(Refusal { told: Told::Wrong, ..reason.into() });
        }
        if question == Factor::Certificate {
            // TLS brings it or does not: nobody can type one into the answer to a question.
            return Err(Reason::CertificateNone.into());
        }
        if !flow.ask() {
            return Err(Reason::CredentialMissing.into());
        }
        self.ask(flow.clone(), prompt(question))
    }

    /// Looks at a factor; at what said who comes only as far as that was not done.
    async fn look_early(
        &self,
        flow: &Flow,
        factor: Factor,
        person: Option<&Arc<Person>>,
    ) -> (Answer, bool) {
        if flow.early() != Some(factor) {
            return self.look(factor, flow.name(), person.cloned(), None).await;
        }
        let (source, now) = (self.attempt.source, self.now);
        let is_locked_out = self.inner.bans().is_locked_out(flow.name(), source, now);
        let standing = standing(person.map(AsRef::as_ref), is_locked_out, now);
        (standing.map_or_else(|| Answer::Accepted(Proof::default()), Answer::Refused), true)
    }

    /// Whether somebody came without a name, as the one for whom that is configured: there is
    /// nothing to hide from whoever names nobody.
    const fn is_guest(&self, due: Factor) -> bool {
        self.attempt.user.is_none() && matches!(due, Factor::Anonymous)
    }

    /// Whether something was presented that can be looked at for `factor`.
    fn is_there(&self, flow: &Flow, factor: Factor) -> bool {
        let credentials = &self.attempt.credentials;
        let offered = match factor {
            // A browser may present one by itself, also where nobody looks at any.
            Factor::Certificate => {
                !credentials.certificates.is_empty() && self.inner.door(factor).is_some()
            }
            Factor::Password | Factor::Totp | Factor::Token | Factor::Anonymous => {
                offers(credentials, factor)
            }
        };
        offered || flow.early() == Some(factor)
    }
}

/// How much an answer says about what was presented.
const fn loudness(told: Told) -> u8 {
    match told {
        Told::Wrong => 0,
        Told::Token => 1,
        Told::NoCertificate => 2,
        Told::BadCertificate => 3,
        Told::RevokedCertificate => 4,
        Told::StartAnew => 5,
        Told::Denied => 6,
        Told::Unavailable => 7,
        Told::Later => 8,
    }
}
