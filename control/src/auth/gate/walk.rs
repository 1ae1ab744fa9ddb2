//! The walk of one attempt along the factors of a policy.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout_at;

use super::first;
use super::{Attempt, Door, Identity, Inner, Outcome, Refusal};
use crate::auth::backend::{Answer, Attributes, Prompt, Request, Work};
use crate::auth::challenges::Ticket;
use crate::auth::flow::{Flow, Next};
use crate::auth::lane::Place;
use crate::auth::name;
use crate::auth::password;
use crate::auth::people::{Found, Person};
use crate::auth::reason::{Reason, Told};
use crate::store::records::{Factor, Timestamp, UserState};

/// What a name that cannot be one is looked up as. No user can have it.
const NO_NAME: &str = "?";
/// What a back end is remembered as when it looked for nobody.
const FOR_NOBODY: &str = "?";

/// One attempt on its way.
pub(super) struct Walker<'a> {
    pub(super) inner: &'a Inner,
    pub(super) attempt: &'a Attempt,
    pub(super) now: Timestamp,
    pub(super) deadline: Instant,
}

/// What a failure is counted as.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Whom it is counted for.
    pub(super) user: Option<String>,
    /// What adds to scores, if that is not the reason of the refusal: everything that was wrong.
    pub(super) wrong: Vec<Reason>,
}

/// What is known of who comes.
enum Start {
    /// The name; from a credential if it was proved by one.
    Named { name: String, proved: Option<(Factor, Attributes)> },
    /// It is not over yet who it is.
    Ended(Outcome),
}

impl Walker<'_> {
    /// From the ticket or the name to the end. Fills in what a failure is counted as.
    pub(super) async fn walk(&self, trail: &mut Trail) -> Result<Outcome, Refusal> {
        let Self { inner, attempt, now, .. } = *self;
        let given = attempt.user.as_deref().map(name::checked);
        trail.user = given.clone().flatten();
        let given = given.map(|given| given.unwrap_or_else(|| NO_NAME.to_owned()));
        let held = match attempt.ticket {
            None => None,
            Some(ticket) => {
                let taken = inner.challenges().take(ticket, attempt.source, given.as_deref(), now);
                Some(taken?)
            }
        };
        let (mut flow, found) = match (held, given) {
            (Some(flow), _) if !flow.name().is_empty() => {
                let found = self.find(flow.name()).await?;
                (flow, found)
            }
            (None, Some(name)) => self.begin(name, None).await?,
            (held, _) => match self.identify(held).await? {
                Start::Ended(outcome) => return Ok(outcome),
                Start::Named { name, proved } => self.begin(name, proved).await?,
            },
        };
        trail.user = Some(flow.name().to_owned()).filter(|name| name != NO_NAME);
        let question = first::question(&found.default_factors);
        let person = found.person.map(Arc::new);
        if flow.is_at_first()
            && let Some(outcome) = self.first(&mut flow, person.as_ref(), question, trail).await?
        {
            return Ok(outcome);
        }
        loop {
            let factor = match flow.next(&attempt.credentials) {
                Next::Try(factor) => factor,
                Next::Refuse(reason) => return Err(reason.into()),
                Next::Through => return self.through(flow).await,
                Next::Ask(factor) => return self.ask(flow, prompt(factor)),
            };
            let state = flow.take_state();
            match self.look(factor, flow.name(), person.clone(), state).await.0 {
                Answer::Accepted(proof) => flow.accepted(proof)?,
                Answer::Refused(reason) => return Err(reason.into()),
                Answer::Challenge { prompt, state } => {
                    flow.waits(state);
                    return self.ask(flow, prompt);
                }
                Answer::Pending { prompt, poll_after, state } => {
                    flow.waits(state);
                    let ticket = self.hold(flow)?;
                    return Ok(Outcome::Pending { prompt, poll_after, ticket });
                }
            }
        }
    }

    async fn begin(
        &self,
        name: String,
        proved: Option<(Factor, Attributes)>,
    ) -> Result<(Flow, Found), Refusal> {
        let found = self.find(&name).await?;
        let factors = match &found.person {
            Some(person) => person.factors.clone(),
            None => found.default_factors.clone(),
        };
        let mut flow = Flow::new(name, factors, self.now)?;
        if let Some((factor, attributes)) = proved {
            flow.identified(factor, attributes);
        }
        Ok((flow, found))
    }

    /// Finds out who comes without a name, by what was presented.
    async fn identify(&self, held: Option<Flow>) -> Result<Start, Refusal> {
        let mut flow = match held {
            Some(flow) => flow,
            None => match (self.identifying(), &self.inner.settings.anonymous) {
                (Ok(factor), _) => Flow::new(String::new(), vec![factor], self.now)?,
                (Err(_), Some(name)) => {
                    return Ok(Start::Named { name: name.clone(), proved: None });
                }
                (Err(reason), None) => return Err(reason.into()),
            },
        };
        let factor = flow.current().ok_or(Reason::UserMissing)?;
        let state = flow.take_state();
        match self.ask_back_end(factor, "", None, state).await {
            Answer::Accepted(proof) => {
                let name = proof.user.ok_or(Reason::UserMissing)?;
                Ok(Start::Named { name, proved: Some((factor, proof.attributes)) })
            }
            Answer::Refused(reason) => Err(reason.into()),
            Answer::Challenge { prompt, state } => {
                flow.waits(state);
                self.ask(flow, prompt).map(Start::Ended)
            }
            Answer::Pending { prompt, poll_after, state } => {
                flow.waits(state);
                let ticket = self.hold(flow)?;
                Ok(Start::Ended(Outcome::Pending { prompt, poll_after, ticket }))
            }
        }
    }

    /// Which of the credentials may say who comes, or why none does.
    fn identifying(&self) -> Result<Factor, Reason> {
        let credentials = &self.attempt.credentials;
        let is_looked_at = |factor| self.inner.door(factor).is_some();
        if !credentials.certificates.is_empty() && is_looked_at(Factor::Certificate) {
            Ok(Factor::Certificate)
        } else if credentials.token.is_some() {
            // That nobody issues tokens here is no outage: the client chose to send one.
            if is_looked_at(Factor::Token) { Ok(Factor::Token) } else { Err(Reason::TokenIssuer) }
        } else if credentials.password.is_some() || credentials.code.is_some() {
            Err(Reason::UserMissing)
        } else if self.inner.certificates.is_some() {
            Err(Reason::CertificateNone)
        } else {
            Err(Reason::AnonymousOff)
        }
    }

    async fn find(&self, name: &str) -> Result<Found, Refusal> {
        let finding = self.inner.people.find(name.to_owned());
        match timeout_at(self.deadline.into(), finding).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store does not say who signs in");
                Err(Reason::StoreUnavailable.into())
            }
            Err(_) => Err(Reason::StoreUnavailable.into()),
        }
    }

    /// Has a factor looked at for a user, and refuses whoever may not come in whatever was found.
    /// Says too whether the back end had nothing against it.
    pub(super) async fn look(
        &self,
        factor: Factor,
        name: &str,
        person: Option<Arc<Person>>,
        state: Option<Vec<u8>>,
    ) -> (Answer, bool) {
        let Self { inner, attempt, now, .. } = *self;
        let is_locked_out = inner.bans().is_locked_out(name, attempt.source, now);
        let Some(door) = inner.door(factor) else {
            return (Answer::Refused(missing(factor)), false);
        };
        // While somebody is locked out nothing is remembered: a right password, which must not be,
        // would stand out among the wrong ones.
        let may_remember = door.back_end.refusals_last() && !is_locked_out && state.is_none();
        // What is looked at for nobody may be right for somebody.
        let whose = if person.is_some() { "" } else { FOR_NOBODY };
        let key = may_remember.then(|| {
            let back_end = format!("{}{whose}", door.back_end.name());
            inner.cache().key(&back_end, name, &attempt.credentials)
        });
        let known = key.and_then(|key| inner.cache().get(&key, now));
        if let Some(reason) = known {
            inner.stats.cached();
            return (Answer::Refused(reason), false);
        }
        let answer = self.ask_back_end(factor, name, person.clone(), state).await;
        // Trouble says nothing about the user; nor does what a certificate or a token is worth by
        // itself, and that must sound the same whether or not there is such a user.
        if matches!(&answer, Answer::Refused(reason)
            if reason.is_trouble() || reason.told() != Told::Wrong)
        {
            return (answer, false);
        }
        // Whom a credential names is looked at first: that must sound and count the same whether
        // or not there is such a user.
        if matches!(&answer, Answer::Accepted(proof)
            if proof.user.as_ref().is_some_and(|user| user != name))
        {
            return (Answer::Refused(Reason::UserMismatch), false);
        }
        let is_proved = matches!(answer, Answer::Accepted(_));
        let standing = standing(person.as_deref(), is_locked_out, now);
        let answer = standing.map_or(answer, Answer::Refused);
        if let (Some(key), Answer::Refused(reason)) = (key, &answer) {
            inner.cache().put(key, *reason, now);
        }
        (answer, is_proved)
    }

    /// Has a back end look, on its threads or without.
    async fn ask_back_end(
        &self,
        factor: Factor,
        name: &str,
        person: Option<Arc<Person>>,
        state: Option<Vec<u8>>,
    ) -> Answer {
        let Self { inner, attempt, now, deadline } = *self;
        let Some(door) = inner.door(factor) else {
            return Answer::Refused(missing(factor));
        };
        let request = Request {
            name: name.to_owned(),
            person,
            credentials: Arc::new(attempt.credentials.clone()),
            source: attempt.source,
            protocol: attempt.protocol,
            state,
            now,
            deadline,
        };
        let place = Place { priority: attempt.priority, source: attempt.source.prefix(), deadline };
        let begun = Instant::now();
        let mut work = door.back_end.begin(request);
        let answer = loop {
            work = match work {
                Work::Done(answer) => break answer,
                Work::Blocking(run) => break door.lane.run(place, run).await,
                Work::Stage(run) => door.lane.stage(place, run).await,
                Work::Waiting(waiting) => match door.lane.wait(place, waiting).await {
                    Ok(work) => work,
                    Err(reason) => break Answer::Refused(reason),
                },
            };
        };
        inner.stats.took(factor, begun.elapsed());
        answer
    }

    pub(super) fn ask(&self, flow: Flow, prompt: Prompt) -> Result<Outcome, Refusal> {
        let ticket = self.hold(flow)?;
        Ok(Outcome::Challenge { prompt, ticket })
    }

    pub(super) fn hold(&self, flow: Flow) -> Result<Ticket, Reason> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|_| Reason::BackEndFailed)?;
        let ticket = Ticket(bits);
        self.inner.challenges().put(ticket, self.attempt.source, flow, self.now)?;
        Ok(ticket)
    }

    /// All is proved. Looks once more whether the user may come in: a credential that said who
    /// comes was looked at before that was known, and since the first factor the password may have
    /// been changed by somebody who had reason to.
    async fn through(&self, flow: Flow) -> Result<Outcome, Refusal> {
        let Self { inner, attempt, now, .. } = *self;
        let found = self.find(flow.name()).await?;
        let person = found.person.as_ref();
        let is_locked_out = inner.bans().is_locked_out(flow.name(), attempt.source, now);
        if let Some(reason) = standing(person, is_locked_out, now) {
            return Err(reason.into());
        }
        let person = person.ok_or(Reason::UserUnknown)?;
        let password_print = flow.password_print();
        let stored = password::print(person.secrets.password_hash.as_deref());
        if password_print.is_some_and(|proved| proved != stored) {
            return Err(Reason::PasswordWrong.into());
        }
        let (factors, attributes) = flow.finish().ok_or(Reason::CredentialMissing)?;
        if person.factors.iter().any(|factor| !factors.contains(factor)) {
            // The policy has come to ask for more while this was half done.
            return Err(Reason::ChallengeUnknown.into());
        }
        let (user, name) = (person.id, person.name.clone());
        Ok(Outcome::Accepted(Identity { user, name, factors, attributes, password_print }))
    }
}

impl Inner {
    pub(super) fn door(&self, factor: Factor) -> Option<&Door> {
        self.doors.iter().find(|door| door.factor == factor)
    }
}

/// Why somebody may not come in whatever is proved.
pub(super) fn standing(
    person: Option<&Person>,
    is_locked_out: bool,
    now: Timestamp,
) -> Option<Reason> {
    let Some(person) = person else { return Some(Reason::UserUnknown) };
    match person.state {
        UserState::Disabled => return Some(Reason::UserDisabled),
        UserState::Banned => return Some(Reason::UserBanned),
        UserState::Active => {}
    }
    if person.expires_at.is_some_and(|end| end <= now) {
        return Some(Reason::UserExpired);
    }
    is_locked_out.then_some(Reason::UserLockedOut)
}

/// What it means that nobody looks at a factor.
pub(super) const fn missing(factor: Factor) -> Reason {
    match factor {
        Factor::Anonymous => Reason::AnonymousOff,
        Factor::Password | Factor::Totp | Factor::Token | Factor::Certificate => {
            Reason::BackEndMissing
        }
    }
}

pub(super) fn prompt(factor: Factor) -> Prompt {
    let text = match factor {
        Factor::Password => "Password",
        Factor::Totp => "One-time password",
        Factor::Token => "Access token",
        Factor::Certificate => "Client certificate",
        Factor::Anonymous => "",
    };
    Prompt { factor, text: text.to_owned(), echo: false }
}
