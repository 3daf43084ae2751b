//! Join tokens: made, taken back, and forgotten some time after their end.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use sealane_proto::types::{NetworkName, NodeName};

use super::{Change, Command, Decision, State, Timestamp, TokenRecord};

/// Lifetime of a token.
const LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3_600);
/// Time for which an ended token is remembered, so that who comes with it hears why it is of no use.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A new token. Its id and secret are random; control learns the secret's hash alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateToken {
    /// Public name: 8 lower-case base-32 characters.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Time for which it admits hosts.
    pub ttl: Duration,
    /// Number of hosts that it admits; `None`: any number.
    pub uses: Option<u32>,
    /// The one name that a host may join with by it; `None`: any.
    pub node: Option<NodeName>,
    /// The networks that hosts which join by it may carry; none: any.
    pub networks: BTreeSet<NetworkName>,
}

/// Reasons for which a token cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTokenRefusal {
    /// Too short or too long a life.
    #[error("ttl of {} s for the token must be from 1 second to 1 year", .0.as_secs())]
    Lifetime(Duration),
    /// A token for nobody.
    #[error("uses of the token must be at least 1, or left out")]
    NoUses,
    /// No such network: its name may be wrong.
    #[error("there is no network {0}; see `sealane network ls`")]
    NoNetwork(NetworkName),
    /// The random id is taken.
    #[error("token {0} exists already; try again")]
    Exists(String),
}

impl Command for CreateToken {
    type Outcome = TokenRecord;
    type Refusal = CreateTokenRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<TokenRecord>, CreateTokenRefusal> {
        if !LIFETIME.contains(&self.ttl) {
            return Err(CreateTokenRefusal::Lifetime(self.ttl));
        }
        if self.uses == Some(0) {
            return Err(CreateTokenRefusal::NoUses);
        }
        if let Some(unknown) = self.networks.iter().find(|name| !state.networks.contains_key(*name)) {
            return Err(CreateTokenRefusal::NoNetwork(unknown.clone()));
        }
        if state.tokens.contains_key(&self.id) {
            return Err(CreateTokenRefusal::Exists(self.id));
        }
        let token = TokenRecord {
            id: self.id,
            hash: self.hash,
            created: now,
            expires: now.after(self.ttl),
            uses: self.uses,
            used: 0,
            node: self.node,
            networks: self.networks,
            revoked: None,
        };
        Ok(Decision { changes: vec![Change::put(token.clone())], outcome: token })
    }
}

/// Standing of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStanding {
    /// The token admits hosts.
    Good,
    /// The token has admitted as many hosts as it may.
    UsedUp,
    /// The token's time is over.
    Expired,
    /// Somebody took it back.
    Revoked,
}

impl TokenRecord {
    /// Returns the standing. Taken back counts more than expired, expired more than used up.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> TokenStanding {
        if self.revoked.is_some() {
            TokenStanding::Revoked
        } else if self.expires <= now {
            TokenStanding::Expired
        } else if self.uses.is_some_and(|uses| self.used >= uses) {
            TokenStanding::UsedUp
        } else {
            TokenStanding::Good
        }
    }

    /// The same token, taken back.
    #[must_use]
    pub fn revoked_at(&self, now: Timestamp) -> Self {
        Self { revoked: Some(now), ..self.clone() }
    }

    /// From when on it admits nobody, as far as that is a time.
    fn ended(&self) -> Timestamp {
        self.revoked.map_or(self.expires, |revoked| revoked.min(self.expires))
    }
}

impl fmt::Display for TokenStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::UsedUp => "used up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// Takes a token back: it admits nobody from now on. Hosts that have joined by it stay. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeToken(pub String);

/// Reasons for which a token cannot be taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeTokenRefusal {
    /// There is none.
    #[error("there is no token {0}; see `sealane token ls`")]
    NotFound(String),
}

impl Command for RevokeToken {
    type Outcome = ();
    type Refusal = RevokeTokenRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, RevokeTokenRefusal> {
        let Some(token) = state.tokens.get(&self.0) else {
            return Err(RevokeTokenRefusal::NotFound(self.0));
        };
        let changes = if token.revoked.is_some() { vec![] } else { vec![Change::put(token.revoked_at(now))] };
        Ok(Decision { changes, outcome: () })
    }
}

/// Forgets tokens that ended long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeTokens;

impl Command for PurgeTokens {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let stale = state.tokens.values().filter(|token| token.ended().after(REMEMBERED) <= now);
        let changes = stale.map(|token| Change::remove::<TokenRecord>(token.id.clone())).collect();
        Ok(Decision { changes, outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_live_from_a_second_to_a_year() {
        let create = |seconds| CreateToken {
            id: "abcd2345".into(),
            hash: [0; 32],
            ttl: Duration::from_secs(seconds),
            uses: None,
            node: None,
            networks: BTreeSet::new(),
        };
        let now = Timestamp::from_unix(1_000);
        for seconds in [0, 367 * 24 * 3_600] {
            assert!(create(seconds).decide(&State::default(), now).is_err(), "{seconds}");
        }
        let year = create(366 * 86_400).decide(&State::default(), now).unwrap().outcome;
        assert_eq!(year.expires, Timestamp::from_unix(1_000 + 366 * 86_400));
        let token = create(1).decide(&State::default(), now).unwrap().outcome;
        assert_eq!((token.created, token.expires), (now, Timestamp::from_unix(1_001)));
    }

    fn token(expires: Timestamp) -> TokenRecord {
        TokenRecord {
            id: "abcd2345".into(),
            hash: [0; 32],
            created: Timestamp::default(),
            expires,
            uses: Some(2),
            used: 0,
            node: None,
            networks: BTreeSet::new(),
            revoked: None,
        }
    }

    #[test]
    fn a_standing_says_the_first_reason_that_holds() {
        let good = token(Timestamp::from_unix(1_000));
        let used = TokenRecord { used: 2, ..good.clone() };
        let revoked = TokenRecord { revoked: Some(Timestamp::from_unix(5)), ..used.clone() };
        let table = [
            (&good, 999, TokenStanding::Good),
            (&good, 1_000, TokenStanding::Expired),
            (&used, 999, TokenStanding::UsedUp),
            (&used, 1_000, TokenStanding::Expired),
            (&revoked, 2_000, TokenStanding::Revoked),
        ];
        for (token, now, expected) in table {
            assert_eq!(token.standing(Timestamp::from_unix(now)), expected);
        }
    }

    #[test]
    fn a_revoked_token_is_remembered_and_an_unknown_one_named() {
        let mut state = State::default();
        state.apply(&Change::put(token(Timestamp::from_unix(9_000_000))));
        let now = Timestamp::from_unix(10);
        let revoke = || RevokeToken("abcd2345".into());
        revoke().decide(&state, now).unwrap().changes.iter().for_each(|change| state.apply(change));
        assert_eq!(state.tokens["abcd2345"].revoked, Some(now));
        assert_eq!(revoke().decide(&state, now.after(LIFETIME.start().to_owned())).unwrap().changes, []);
        assert_eq!(PurgeTokens.decide(&state, now).unwrap().changes, []);
        assert_eq!(PurgeTokens.decide(&state, now.after(REMEMBERED)).unwrap().changes.len(), 1);
        let error = RevokeToken("nonenone".into()).decide(&state, now).unwrap_err().to_string();
        assert_eq!(error, "there is no token nonenone; see `sealane token ls`");
    }

    #[test]
    fn an_expired_token_is_remembered_for_a_week() {
        let mut state = State::default();
        let expires = Timestamp::from_unix(1_000);
        state.apply(&Change::put(token(expires)));
        assert!(PurgeTokens.decide(&state, expires).unwrap().changes.is_empty());
        let week = 7 * 86_400;
        assert!(PurgeTokens.decide(&state, Timestamp::from_unix(999 + week)).unwrap().changes.is_empty());
        assert_eq!(
            PurgeTokens.decide(&state, Timestamp::from_unix(1_000 + week)).unwrap().changes,
            [Change::remove::<TokenRecord>("abcd2345".into())]
        );
    }
}
