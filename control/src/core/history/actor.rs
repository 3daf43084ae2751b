//! Authors of changes.

use std::fmt;

use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;
use v1::actor::Kind;

/// Author of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Control itself.
    Control,
    /// A host, as its certificate or its token says.
    Host(NodeName),
    /// A process at control's socket.
    Operator(Operator),
}

/// A process at control's socket, as the kernel tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// User that the process runs as; `None`: the kernel does not say.
    pub uid: Option<u32>,
    /// Name of that user.
    pub user: Option<String>,
    /// User that has logged in, whoever it has become since.
    pub login_uid: Option<u32>,
    /// Name of that user.
    pub login: Option<String>,
    /// Words of the verb.
    pub verb: String,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.uid) {
            (Some(user), _) => f.write_str(user)?,
            (None, Some(uid)) => write!(f, "uid {uid}")?,
            (None, None) => f.write_str("somebody")?,
        }
        match (&self.login, self.login_uid) {
            (_, login) if login == self.uid => Ok(()),
            (Some(login), _) => write!(f, " (login {login})"),
            (None, Some(uid)) => write!(f, " (login uid {uid})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Host(name) => write!(f, "host {name}"),
            Self::Operator(operator) => operator.fmt(f),
        }
    }
}

impl From<&Actor> for v1::Actor {
    fn from(actor: &Actor) -> Self {
        let words = actor.to_string();
        match actor {
            Actor::Control => Self { kind: Kind::Control.into(), words, ..Self::default() },
            Actor::Host(name) => {
                Self { kind: Kind::Host.into(), words, node: name.to_string(), ..Self::default() }
            }
            Actor::Operator(Operator { uid, user, login_uid, login, verb }) => Self {
                kind: Kind::Operator.into(),
                words,
                node: String::new(),
                uid: *uid,
                user: user.clone().unwrap_or_default(),
                login_uid: *login_uid,
                login: login.clone().unwrap_or_default(),
                verb: verb.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_named_where_the_process_runs_as_somebody_else() {
        let words = |uid, user: &str, login_uid, login: &str| {
            let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
            let verb = "apply".to_owned();
            Operator { uid, user: name(user), login_uid, login: name(login), verb }.to_string()
        };
        assert_eq!(words(Some(0), "root", None, ""), "root");
        assert_eq!(words(Some(0), "root", Some(0), "root"), "root");
        assert_eq!(words(Some(0), "root", Some(1_000), "ada"), "root (login ada)");
        assert_eq!(words(Some(0), "", Some(1_000), ""), "uid 0 (login uid 1000)");
        assert_eq!(words(None, "", None, ""), "somebody");
    }
}
