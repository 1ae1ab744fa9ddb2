//! Everything that can be set about signing in, with defaults, and what happens at the door before
//! any back end is asked. The configuration fills it.

use super::ban::BanSettings;
use super::cache::CacheSettings;
use super::certificate::CertificateSettings;
use super::challenges::ChallengeSettings;
use super::lane::LaneSettings;
use super::password::PasswordSettings;
use super::source::Lists;
use super::token::IssuerSettings;

/// How people sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds that one call may take, 100 to 60,000. Default 10,000: clients of all protocols
    /// wait that long.
    pub deadline_ms: u32,
    /// Who may try at all.
    pub lists: Lists,
    /// Who is kept out for a while.
    pub bans: BanSettings,
    /// Sign-ins that are half done.
    pub challenges: ChallengeSettings,
    /// Refusals that are remembered.
    pub cache: CacheSettings,
    /// What a password's hash costs.
    pub passwords: PasswordSettings,
    /// Threads and queue of each back end.
    pub lane: LaneSettings,
    /// Who may sign access tokens. Default nobody.
    pub issuers: Vec<IssuerSettings>,
    /// Whose client certificates are believed. Default nobody's.
    pub certificates: Option<CertificateSettings>,
    /// Who somebody without a name is; the policy of that user must ask for `anonymous`. Default
    /// nobody.
    pub anonymous: Option<String>,
    /// Whether addresses that are kept out are stored, so that a restart does not let them in.
    /// Default yes; not where nothing may be kept of clients.
    pub keeps_addresses: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline_ms: 10_000,
            lists: Lists::default(),
            bans: BanSettings::default(),
            challenges: ChallengeSettings::default(),
            cache: CacheSettings::default(),
            passwords: PasswordSettings::default(),
            lane: LaneSettings::default(),
            issuers: Vec::new(),
            certificates: None,
            anonymous: None,
            keeps_addresses: true,
        }
    }
}
