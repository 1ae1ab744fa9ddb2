//! Which factor comes next: a policy's list, walked in order, and nobody is in before its end.
//!
//! Pure and without IO: the gate asks [`Flow::next`], has the back end look, and tells what came of
//! it. A credential that had to say who comes (a certificate or token without a user name) is
//! looked at first and counts when its turn comes. All credentials must name the same user. A wrong
//! credential ends the flow, whichever factor it was for, with the same answer. This module must
//! not know back ends.

use super::backend::{Attributes, Credentials, Proof};
use super::reason::Reason;
use crate::store::records::{Factor, Timestamp};

/// Most factors of a policy: each there is, twice.
pub const FACTORS_MAX: usize = 10;

/// A sign-in under way.
#[derive(Clone, Debug)]
pub struct Flow {
    name: String,
    factors: Vec<Factor>,
    done: usize,
    /// Proved before its turn.
    early: Option<(Factor, Attributes)>,
    attributes: Attributes,
    /// What the password that was proved is stored as.
    password_print: Option<[u8; 32]>,
    /// What the back end of the current factor remembers.
    state: Option<Vec<u8>>,
    /// The current factor was asked for.
    is_asked: bool,
    /// When it began.
    pub(super) began_at: Timestamp,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Have the back end of this factor look at what was presented.
    Try(Factor),
    /// Ask the client for this factor.
    Ask(Factor),
    /// All factors are proved.
    Through,
    /// Refuse.
    Refuse(Reason),
}

impl Flow {
    /// The flow of `name`, which must prove `factors` in this order.
    ///
    /// # Errors
    ///
    /// [`Reason::BackEndMissing`] if the list is empty or too long: nothing proves nobody.
    pub fn new(name: String, factors: Vec<Factor>, now: Timestamp) -> Result<Self, Reason> {
        if factors.is_empty() || factors.len() > FACTORS_MAX {
            return Err(Reason::BackEndMissing);
        }
        Ok(Self {
            name,
            factors,
            done: 0,
            early: None,
            attributes: Attributes::default(),
            password_print: None,
            state: None,
            is_asked: false,
            began_at: now,
        })
    }

    /// Who signs in, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Factors proved in their turn so far.
    #[must_use]
    pub fn proved(&self) -> &[Factor] {
        self.factors.get(..self.done).unwrap_or_default()
    }

    /// The factor whose turn it is.
    #[must_use]
    pub fn current(&self) -> Option<Factor> {
        self.factors.get(self.done).copied()
    }

    /// Whether nothing was proved yet, and no back end waits for an answer.
    #[must_use]
    pub const fn is_at_first(&self) -> bool {
        self.done == 0 && self.state.is_none()
    }

    /// Which credential said who comes, and has not had its turn.
    #[must_use]
    pub fn early(&self) -> Option<Factor> {
        self.early.as_ref().map(|early| early.0)
    }

    /// Notes that the client is asked for the current factor, in whatever words. False if it was
    /// before.
    #[must_use]
    pub const fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.is_asked, true)
    }

    /// Counts a credential that said who comes.
    pub fn identified(&mut self, factor: Factor, attributes: Attributes) {
        self.early = Some((factor, attributes));
    }

    /// What to do with what was presented.
    pub fn next(&mut self, credentials: &Credentials) -> Next {
        loop {
            let Some(&factor) = self.factors.get(self.done) else { return Next::Through };
            if let Some((_, attributes)) = self.early.take_if(|early| early.0 == factor) {
                self.advance(attributes);
                continue;
            }
            if self.state.is_some() || offers(credentials, factor) {
                return Next::Try(factor);
            }
            if factor == Factor::Certificate {
                // TLS brings it or does not: nobody can type one into the answer to a question.
                return Next::Refuse(Reason::CertificateNone);
            }
            if !self.ask() {
                return Next::Refuse(Reason::CredentialMissing);
            }
            return Next::Ask(factor);
        }
    }

    /// What the back end of the current factor remembered; it is handed over once.
    pub fn take_state(&mut self) -> Option<Vec<u8>> {
        self.state.take()
    }

    /// The back end of the current factor wants to be asked again, with this.
    pub fn waits(&mut self, state: Vec<u8>) {
        self.state = Some(state);
    }

    /// The current factor is proved.
    ///
    /// # Errors
    ///
    /// [`Reason::UserMismatch`] if it names somebody else.
    pub fn accepted(&mut self, proof: Proof) -> Result<(), Reason> {
        if proof.user.is_some_and(|user| user != self.name) {
            return Err(Reason::UserMismatch);
        }
        self.password_print = proof.password_print.or(self.password_print);
        self.advance(proof.attributes);
        Ok(())
    }

    /// The print of what the password that was proved is stored as, if one was.
    #[must_use]
    pub const fn password_print(&self) -> Option<[u8; 32]> {
        self.password_print
    }

    /// What all factors said together; none before all are proved.
    #[must_use]
    pub fn finish(self) -> Option<(Vec<Factor>, Attributes)> {
        (self.done == self.factors.len()).then_some((self.factors, self.attributes))
    }

    fn advance(&mut self, attributes: Attributes) {
        self.attributes.add(attributes);
        self.done += 1;
        self.state = None;
        self.is_asked = false;
    }
}

/// Whether something for `factor` was presented. What cannot be asked for later is always there: a
/// missing certificate is an answer, because TLS asks only once.
pub(super) fn offers(credentials: &Credentials, factor: Factor) -> bool {
    match factor {
        Factor::Password => credentials.password.is_some(),
        Factor::Totp => credentials.code.is_some(),
        Factor::Token => credentials.token.is_some(),
        Factor::Certificate | Factor::Anonymous => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::backend::Secret;
    use super::*;

    const NOW: Timestamp = Timestamp(1);

    fn all() -> Credentials {
        let secret = || Some(Secret::new("x"));
        Credentials {
            password: secret(),
            code: secret(),
            token: secret(),
            certificates: Vec::new(),
        }
    }

    fn flow(factors: &[Factor]) -> Flow {
        Flow::new("ann".to_owned(), factors.to_vec(), NOW).unwrap()
    }

    #[test]
    fn a_list_without_factors_lets_nobody_in() {
        let empty = Flow::new("ann".to_owned(), Vec::new(), NOW);
        assert_eq!(empty.map(|_| ()).unwrap_err(), Reason::BackEndMissing);
        let many = Flow::new("ann".to_owned(), vec![Factor::Password; FACTORS_MAX + 1], NOW);
        assert!(many.is_err());
    }

    #[test]
    fn what_is_not_presented_is_asked_for_once() {
        let mut flow = flow(&[Factor::Password, Factor::Totp]);
        let only = |password: bool, code: bool| Credentials {
            password: password.then(|| Secret::new("x")),
            code: code.then(|| Secret::new("x")),
            ..Credentials::default()
        };
        assert_eq!(flow.next(&only(false, true)), Next::Ask(Factor::Password));
        assert_eq!(flow.next(&only(true, false)), Next::Try(Factor::Password));
        flow.accepted(Proof::default()).unwrap();
        assert_eq!(flow.next(&only(true, false)), Next::Ask(Factor::Totp));
        let mut stubborn = flow.clone();
        let refused = Next::Refuse(Reason::CredentialMissing);
        assert_eq!(stubborn.next(&only(true, false)), refused);
        assert_eq!(flow.next(&only(false, true)), Next::Try(Factor::Totp));
        flow.accepted(Proof::default()).unwrap();
        assert_eq!(flow.next(&only(false, false)), Next::Through);
    }

    #[test]
    fn a_back_end_that_waits_is_asked_again_without_a_credential() {
        let mut flow = flow(&[Factor::Token]);
        assert_eq!(flow.next(&all()), Next::Try(Factor::Token));
        flow.waits(vec![1, 2]);
        assert_eq!(flow.next(&Credentials::default()), Next::Try(Factor::Token));
        assert_eq!(flow.take_state(), Some(vec![1, 2]));
        assert_eq!(flow.take_state(), None);
    }

    #[test]
    fn a_credential_of_another_user_ends_it() {
        let mut flow = flow(&[Factor::Password, Factor::Token]);
        flow.accepted(Proof { user: Some("ann".to_owned()), ..Proof::default() }).unwrap();
        let other = Proof { user: Some("bob".to_owned()), ..Proof::default() };
        assert_eq!(flow.accepted(other), Err(Reason::UserMismatch));
        assert!(flow.finish().is_none());
    }

    fn factors() -> impl Strategy<Value = Vec<Factor>> {
        prop::collection::vec(prop::sample::select(Factor::ALL), 1..=FACTORS_MAX)
    }

    proptest! {
        /// However calls and credentials come: who is through has proved all factors, in order.
        #[test]
        fn nobody_is_through_before_all_factors_in_order(
            list in factors(),
            early in prop::option::of(prop::sample::select(Factor::ALL)),
            calls in prop::collection::vec(any::<[bool; 4]>(), 1..40),
        ) {
            let mut flow = flow(&list);
            let mut proved = Vec::new();
            if let Some(early) = early {
                flow.identified(early, Attributes::default());
            }
            for [password, code, token, right] in calls {
                let secret = |is_there: bool| is_there.then(|| Secret::new("x"));
                let credentials = Credentials {
                    password: secret(password),
                    code: secret(code),
                    token: secret(token),
                    certificates: Vec::new(),
                };
                prop_assert_eq!(flow.clone().finish().is_some(), flow.proved().len() == list.len());
                match flow.next(&credentials) {
                    Next::Try(factor) => {
                        prop_assert_eq!(Some(&factor), list.get(flow.proved().len()));
                        if !right {
                            break;
                        }
                        flow.accepted(Proof::default()).unwrap();
                        proved.push(factor);
                    }
                    Next::Ask(factor) => {
                        prop_assert_eq!(Some(&factor), list.get(flow.proved().len()));
                    }
                    Next::Refuse(_) => break,
                    Next::Through => {
                        let mut expected = list.clone();
                        let place = |early| list.iter().position(|factor| *factor == early);
                        if let Some(at) = early.and_then(place) {
                            expected.remove(at);
                        }
                        prop_assert_eq!(&proved, &expected);
                        prop_assert!(flow.clone().finish().is_some());
                        break;
                    }
                }
            }
        }
    }
}
