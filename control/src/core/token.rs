//! Join tokens: made, and forgotten some time after their end.

use std::time::Duration;

use super::{Change, Command, Decision, State, Timestamp, TokenRecord};

/// How long a token may live.
const LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3_600);
/// How long an expired token is remembered, so that who comes with it hears that it has expired.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A new token. Its id and secret are random; control learns the secret's hash alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateToken {
    /// Its public name: 8 lower-case base-32 characters.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// How long it admits hosts.
    pub ttl: Duration,
}

/// Why a token cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTokenRefusal {
    /// Too short or too long a life.
    #[error("ttl of {} s for the token must be from 1 second to 1 year", .0.as_secs())]
    Lifetime(Duration),
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
        if state.tokens.contains_key(&self.id) {
            return Err(CreateTokenRefusal::Exists(self.id));
        }
        let token = TokenRecord { id: self.id, hash: self.hash, created: now, expires: now.after(self.ttl) };
        Ok(Decision { changes: vec![Change::PutToken(token.clone())], outcome: token })
    }
}

/// Forgets tokens that expired long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeTokens;

impl Command for PurgeTokens {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let stale = state.tokens.values().filter(|token| token.expires.after(REMEMBERED) <= now);
        let changes = stale.map(|token| Change::RemoveToken(token.id.clone())).collect();
        Ok(Decision { changes, outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_live_from_a_second_to_a_year() {
        let create =
            |seconds| CreateToken { id: "abcd2345".into(), hash: [0; 32], ttl: Duration::from_secs(seconds) };
        let now = Timestamp::from_unix(1_000);
        for seconds in [0, 367 * 24 * 3_600] {
            assert!(create(seconds).decide(&State::default(), now).is_err(), "{seconds}");
        }
        let token = create(1).decide(&State::default(), now).unwrap().outcome;
        assert_eq!((token.created, token.expires), (now, Timestamp::from_unix(1_001)));
    }

    #[test]
    fn an_expired_token_is_remembered_for_a_week() {
        let mut state = State::default();
        let expires = Timestamp::from_unix(1_000);
        state.apply(&Change::PutToken(TokenRecord {
            id: "abcd2345".into(),
            hash: [0; 32],
            created: Timestamp::default(),
            expires,
        }));
        assert!(PurgeTokens.decide(&state, expires).unwrap().changes.is_empty());
        let later = expires.after(REMEMBERED);
        assert_eq!(
            PurgeTokens.decide(&state, later).unwrap().changes,
            [Change::RemoveToken("abcd2345".into())]
        );
    }
}
