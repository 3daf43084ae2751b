//! Further names of a workload.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// A name of a workload in its network besides its own, which other workloads may have as well: a DNS label of lower-case
/// letters, digits, and inner hyphens and underscores, as container runtimes give them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias(Box<str>);

/// The aliases of one workload in one network: sorted, each once, at most [`Aliases::MOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Aliases {
    all: Box<[Alias]>,
    called: Option<Alias>,
    group: Option<Alias>,
}

/// Reasons for which something is no alias, or too many aliases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// No DNS label (RFC 1035, section 2.3.4, and underscores).
    #[error(
        "alias {0:?} must have 1 to 63 lower-case letters, digits, and hyphens or underscores that are neither first nor last"
    )]
    Label(String),
    /// More than are kept.
    #[error("{0} aliases are too many: a workload has at most {most} in a network", most = Aliases::MOST)]
    Many(usize),
}

impl Alias {
    /// The alias as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = AliasError;
    fn from_str(text: &str) -> Result<Self, AliasError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = [text.bytes().next(), text.bytes().next_back()];
        let good = text.len() <= 63
            && ends.into_iter().all(|end| end.is_some_and(plain))
            && text.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b'_'));
        if good { Ok(Self(text.into())) } else { Err(AliasError::Label(text.to_owned())) }
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Aliases {
    /// The number that a workload may have in a network.
    pub const MOST: usize = 16;

    /// Collects these aliases, each once.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(aliases: impl IntoIterator<Item = Alias>) -> Result<Self, AliasError> {
        let mut aliases: Vec<Alias> = aliases.into_iter().collect();
        aliases.sort();
        aliases.dedup();
        if aliases.len() > Self::MOST {
            Err(AliasError::Many(aliases.len()))
        } else {
            Ok(Self { all: aliases.into(), called: None, group: None })
        }
    }

    /// Parses the aliases that these texts name.
    ///
    /// # Errors
    /// When one is no alias, or there are too many.
    pub fn parse(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, AliasError> {
        let aliases = texts.into_iter().map(|text| text.as_ref().parse());
        Self::new(aliases.collect::<Result<Vec<_>, _>>()?)
    }

    /// The same of a workload that was renamed: it answers to `called` and no more to its name, which is another's to have.
    #[must_use]
    pub fn with_called(self, called: Option<Alias>) -> Self {
        Self { called, ..self }
    }

    /// The same of a workload in a group, as containers of a project are: each alias is answered as `ALIAS.GROUP` too.
    #[must_use]
    pub fn with_group(self, group: Option<Alias>) -> Self {
        Self { group, ..self }
    }

    /// The name that the workload is called in place of its own.
    #[must_use]
    pub fn called(&self) -> Option<&Alias> {
        self.called.as_ref()
    }

    /// The group in which the aliases are its own.
    #[must_use]
    pub fn group(&self) -> Option<&Alias> {
        self.group.as_ref()
    }
}

impl Deref for Aliases {
    type Target = [Alias];
    fn deref(&self) -> &[Alias] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_label_as_container_runtimes_give_them() {
        for good in ["db", "demo_api_1", "a-b_c", "0", &"a".repeat(63)] {
            assert_eq!(good.parse::<Alias>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a_", "_tcp", "Db", "db.internal", "ä", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Alias>(), Err(AliasError::Label(bad.to_owned())));
        }
    }

    #[test]
    fn aliases_are_a_bounded_set() {
        let two = Aliases::parse(["db", "cache", "db"]).unwrap();
        assert_eq!(two.iter().map(Alias::as_str).collect::<Vec<_>>(), ["cache", "db"]);
        let many = (0..17).map(|number| format!("a{number}"));
        assert_eq!(Aliases::parse(many), Err(AliasError::Many(17)));
    }
}
