//! Which accounts there are: the difference to what the cores were told.
//!
//! Accounts exist while somebody draws on them. One that is given up keeps its number until its
//! last bytes have been counted: whoever counts says so with [`Projection::retired`].

use ringway_proto::crypto::PublicKey;

use super::{Client, PeerPlan, Person, Projection, Step};
use crate::access::chain::{AccountPlan, Exhausted, Number, Subject, Volume, tag};
use crate::store::records::{GroupId, Quota, QuotaAction, Rate, UserId};

impl Projection {
    /// What all sessions of the gateway share.
    pub fn set_gateway_rate(&mut self, rate: Rate) {
        self.gateway = rate;
        let known = self.numbers.get(Subject::Gateway).is_some();
        if rate == Rate::default() && !known {
            return;
        }
        // Once there, it stays.
        let (number, _) = self.take(Subject::Gateway);
        self.tell(AccountPlan::of(number, None, rate, 0));
        if !known {
            self.hang_all();
        }
    }

    /// What the users of a group share.
    pub fn put_group(&mut self, id: GroupId, rate: Rate) {
        self.groups.insert(id, rate);
        let known = self.numbers.get(Subject::Group(id)).is_some();
        if !known && rate == Rate::default() {
            return;
        }
        self.tell_group_account(id);
        if !known {
            self.hang_all();
        }
    }

    /// Everybody's chain has become longer: groups first, then users.
    fn hang_all(&mut self) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            if self.numbers.get(Subject::Group(group)).is_some() {
                self.tell_group_account(group);
            }
        }
        let users: Vec<UserId> = self.users.keys().copied().collect();
        for user in users {
            self.tell_user_account(user, false);
        }
        self.retire_orphans();
    }

    /// Forgets a group. Its users have been put without it before.
    pub fn remove_group(&mut self, id: GroupId) {
        self.groups.remove(&id);
        self.retire(Subject::Group(id));
    }

    /// Another process told the cores of this account before: the subject keeps it. To be called
    /// before anybody is put. Returns whether the number was free.
    pub fn adopt(&mut self, subject: Subject, number: Number) -> bool {
        self.numbers.adopt(subject, number)
    }

    /// Whether anybody has this number, also to be counted.
    #[must_use]
    pub fn knows(&self, number: Number) -> bool {
        self.told.contains_key(&number) || self.retiring.contains(&number)
    }

    /// Whether this key is a peer that the plane was told of.
    #[must_use]
    pub fn is_peer(&self, public: &PublicKey) -> bool {
        self.peers.contains_key(public)
    }

    /// The accounts whose last bytes wait to be counted.
    pub fn retiring(&self) -> impl Iterator<Item = Number> + '_ {
        self.retiring.iter().copied()
    }

    /// The last bytes of an account that was given up have been counted: its number may be used
    /// again, unless its owner has come back.
    pub fn retired(&mut self, number: Number) {
        if !self.retiring.remove(&number) {
            return;
        }
        let subject = self.numbers.subject(number);
        self.numbers.release(number);
        // One that was replaced has left its owner another one, under which it goes on.
        if let Some(Subject::Device(device)) = subject
            && self.numbers.get(Subject::Device(device)).is_none()
            && let Some(entry) = self.owners.get(&device).and_then(|id| self.users.get(id))
            && let Some(client) = entry.client(device)
        {
            self.sessions.forget(&client.public);
        }
    }

    /// Whether an account was given up, and nobody has come back to it.
    #[must_use]
    pub fn is_retiring(&self, number: Number) -> bool {
        self.retiring.contains(&number)
    }

    /// Whose account this is, or was until its last bytes are entered.
    #[must_use]
    pub fn subject(&self, number: Number) -> Option<Subject> {
        self.numbers.subject(number)
    }

    /// Makes a device a peer, with all accounts that it draws on.
    pub(super) fn admit(&mut self, client: &Client, person: &Person, used: u64) {
        self.need_user_account(person, used);
        self.stay(client, person);
    }

    /// Makes sure that a peer is as its record says.
    pub(super) fn stay(&mut self, client: &Client, person: &Person) {
        let parent = self.numbers.get(Subject::User(person.id));
        let (account, _) = self.take(Subject::Device(client.id));
        let rate = person.rules.session_rate;
        self.tell(AccountPlan::of(account, parent, rate, tag(client.id.0)));
        let plan = PeerPlan {
            public: client.public,
            preshared: client.preshared.clone(),
            addresses: client.addresses.clone(),
            account,
        };
        if self.peers.get(&client.public) != Some(&plan) {
            self.peers.insert(client.public, plan.clone());
            self.steps.push(Step::PutPeer(plan));
        }
    }

    /// A device is no peer any more.
    pub(super) fn expel(&mut self, client: &Client) {
        self.forget_peer(client.public);
        self.retire(Subject::Device(client.id));
    }

    fn forget_peer(&mut self, public: PublicKey) {
        if self.peers.remove(&public).is_some() {
            self.steps.push(Step::RemovePeer(public));
        }
    }

    /// Tells the cores of a user's limits, if anybody draws on them; `volume` says whether also how
    /// much is left.
    pub(super) fn tell_user_account(&mut self, id: UserId, volume: bool) {
        let Some(number) = self.numbers.get(Subject::User(id)) else { return };
        let Some(entry) = self.users.get(&id) else { return };
        if self.retiring.contains(&number) {
            return;
        }
        let (person, used) = (entry.person.clone(), entry.used);
        let parent = self.parent_of(&person);
        let told = self.told.get(&number).map(|told| told.parent);
        if told.is_some_and(|told| told != parent) {
            self.rehang(&person, used);
            return;
        }
        let mut plan = self.user_plan(number, parent, &person, used);
        if !volume {
            plan.volume = Volume::Keep;
        }
        self.tell(plan);
    }

    /// Puts new accounts below another parent in the place of a user's and its devices'.
    fn rehang(&mut self, person: &Person, used: u64) {
        let (old, number) = self.numbers.replace(Subject::User(person.id));
        let parent = self.parent_of(person);
        let plan = self.user_plan(number, parent, person, used);
        self.tell(plan);
        for client in &person.clients {
            if !self.peers.contains_key(&client.public) {
                continue;
            }
            let (before, _) = self.numbers.replace(Subject::Device(client.id));
            self.stay(client, person);
            before.into_iter().for_each(|number| self.give_up(number));
        }
        old.into_iter().for_each(|number| self.give_up(number));
    }

    fn need_user_account(&mut self, person: &Person, used: u64) {
        let (number, fresh) = self.take(Subject::User(person.id));
        if fresh {
            let parent = self.parent_of(person);
            let plan = self.user_plan(number, parent, person, used);
            self.tell(plan);
        }
    }

    fn user_plan(
        &self,
        number: Number,
        parent: Option<Number>,
        person: &Person,
        used: u64,
    ) -> AccountPlan {
        let rules = &person.rules;
        let mut plan = AccountPlan::of(number, parent, rules.user_rate, 0);
        if let Some(quota) = rules.quota {
            plan.volume = Volume::Left(quota.bytes.saturating_sub(used));
            plan.exhausted = at_end(&quota);
        }
        plan
    }

    /// The account that a user's draws on: its group's if that has one, else the gateway's.
    fn parent_of(&mut self, person: &Person) -> Option<Number> {
        let gateway = self.numbers.get(Subject::Gateway);
        let Some(id) = person.group else { return gateway };
        let rate = self.groups.get(&id).copied().unwrap_or_default();
        if rate == Rate::default() && self.numbers.get(Subject::Group(id)).is_none() {
            return gateway;
        }
        self.tell_group_account(id);
        self.numbers.get(Subject::Group(id))
    }

    /// Tells the cores of a group's limits. If it has to hang elsewhere it gets another account;
    /// its users are moved by whoever called.
    fn tell_group_account(&mut self, id: GroupId) {
        let subject = Subject::Group(id);
        let rate = self.groups.get(&id).copied().unwrap_or_default();
        let parent = self.numbers.get(Subject::Gateway);
        let known = self.numbers.get(subject).and_then(|number| self.told.get(&number));
        let number = if known.is_some_and(|told| told.parent != parent) {
            let (old, number) = self.numbers.replace(subject);
            // Users are below it still: it goes when they have moved.
            self.orphans.extend(old);
            number
        } else {
            self.take(subject).0
        };
        self.tell(AccountPlan::of(number, parent, rate, 0));
    }

    /// Gives up accounts of groups whose users have moved to other ones.
    fn retire_orphans(&mut self) {
        for number in std::mem::take(&mut self.orphans) {
            self.give_up(number);
        }
    }

    /// The subject's number, and whether the cores know nothing of it.
    fn take(&mut self, subject: Subject) -> (Number, bool) {
        let (number, fresh) = self.numbers.take(subject);
        let returns = self.retiring.remove(&number);
        (number, fresh || returns || !self.told.contains_key(&number))
    }

    /// Says what an account should be, unless it was said already.
    fn tell(&mut self, plan: AccountPlan) {
        let bare = AccountPlan { volume: Volume::Keep, ..plan.clone() };
        let known = self.told.get(&plan.number) == Some(&bare);
        let same = match plan.volume {
            Volume::Keep | Volume::Endless => known,
            Volume::Left(_) => false,
        };
        if !same {
            self.told.insert(plan.number, bare);
            self.steps.push(Step::PutAccount(plan));
        }
    }

    /// Nobody draws on the subject's account any more.
    pub(super) fn retire(&mut self, subject: Subject) {
        if let Some(number) = self.numbers.get(subject) {
            self.give_up(number);
        }
    }

    fn give_up(&mut self, number: Number) {
        if self.retiring.insert(number) {
            self.told.remove(&number);
            self.steps.push(Step::RemoveAccount(number));
        }
    }
}

/// What the cores do at the end of a quota.
fn at_end(quota: &Quota) -> Exhausted {
    match quota.action {
        QuotaAction::Disconnect => Exhausted::Drop,
        QuotaAction::Notify => Exhausted::Pass,
        QuotaAction::Throttle => {
            // Without a rate: what still carries a conversation about a larger quota.
            let bits = quota.throttle_bps.unwrap_or(128_000);
            Exhausted::Throttle((bits / 8).max(1))
        }
    }
}
