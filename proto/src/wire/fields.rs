//! Fields of messages, read and written.

use std::fmt;
use std::str::FromStr;

use sealane_base::text::one_line;

/// Length to which the fault of a field is told: it may repeat all of the field.
const LONGEST_REASON: usize = 512;

/// A message whose field does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The field is missing.
    #[error("{message}.{field} is missing")]
    Missing {
        /// The message's type.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The field does not parse.
    #[error("{message}.{field}: {reason}")]
    Invalid {
        /// The message's type.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// Fault, in the words of the type.
        reason: String,
    },
}

/// The fields of a message of this type, for the errors of those that do not say what they should.
pub(crate) struct Fields(pub(crate) &'static str);

impl Fields {
    pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(
        &self,
        field: &'static str,
        text: &str,
    ) -> Result<T, WireError> {
        text.parse().map_err(|error: T::Err| self.invalid(field, &error))
    }

    pub(crate) fn parse_option<T: FromStr<Err: fmt::Display>>(
        &self,
        field: &'static str,
        text: &str,
    ) -> Result<Option<T>, WireError> {
        if text.is_empty() { Ok(None) } else { self.parse(field, text).map(Some) }
    }

    pub(crate) fn names<T: FromStr<Err: fmt::Display>, A: FromIterator<T>>(
        &self,
        field: &'static str,
        texts: &[String],
    ) -> Result<A, WireError> {
        texts.iter().map(|text| self.parse(field, text)).collect()
    }

    pub(crate) fn invalid(&self, field: &'static str, reason: &dyn fmt::Display) -> WireError {
        let reason = one_line(&reason.to_string(), LONGEST_REASON).into_owned();
        WireError::Invalid { message: self.0, field, reason }
    }

    pub(crate) fn required<T>(&self, field: &'static str, value: Option<T>) -> Result<T, WireError> {
        value.ok_or(WireError::Missing { message: self.0, field })
    }
}

/// Reads a list of messages.
pub(crate) fn all<T, M: TryInto<T, Error = WireError>>(messages: Vec<M>) -> Result<Vec<T>, WireError> {
    messages.into_iter().map(TryInto::try_into).collect()
}

/// Writes a list of messages.
pub(crate) fn each<'a, M, T: 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<M>
where
    &'a T: Into<M>,
{
    values.into_iter().map(Into::into).collect()
}

/// Writes what may be absent, which is empty then.
pub(crate) fn text(value: &Option<impl fmt::Display>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Writes a list of texts.
pub(crate) fn texts(values: impl IntoIterator<Item = impl fmt::Display>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}
