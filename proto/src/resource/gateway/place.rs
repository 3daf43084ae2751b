//! Places in a document, for words about what is wrong there.

use std::fmt;

use crate::resource::document::FieldError;

/// A field of a document: the way to it from the top.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    above: Option<&'a Place<'a>>,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Field(&'static str),
    Item(usize),
}

impl<'a> Place<'a> {
    /// The field `spec` at the top.
    pub(super) const SPEC: Place<'static> = Place { above: None, step: Step::Field("spec") };
    /// The field `metadata` at the top.
    pub(super) const METADATA: Place<'static> = Place { above: None, step: Step::Field("metadata") };

    /// A field below.
    pub(super) fn field(&'a self, name: &'static str) -> Self {
        Place { above: Some(self), step: Step::Field(name) }
    }

    /// A member of the list that is here.
    pub(super) fn item(&'a self, at: usize) -> Self {
        Place { above: Some(self), step: Step::Item(at) }
    }

    /// The words for what is wrong here.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> FieldError {
        FieldError { path: self.to_string(), reason: reason.into() }
    }

    /// Checks that the list of this length, which is here, has at most so many members.
    pub(super) fn at_most(&self, most: usize, length: usize) -> Result<(), FieldError> {
        if length <= most {
            return Ok(());
        }
        Err(self.wrong(format!("{length} are too many; at most {most} are allowed")))
    }

    /// Checks that no two members of the list that is here are the same by `key`, which is `field` of a member.
    pub(super) fn distinct<'b, T, K: PartialEq + fmt::Display>(
        &self,
        list: &'b [T],
        field: Option<&'static str>,
        key: impl Fn(&'b T) -> Option<K>,
    ) -> Result<(), FieldError> {
        for (at, member) in list.iter().enumerate() {
            let Some(name) = key(member) else { continue };
            let Some(first) = list[..at].iter().position(|other| key(other).as_ref() == Some(&name)) else {
                continue;
            };
            let item = self.item(at);
            let place = field.map_or(item, |field| item.field(field));
            return Err(place
                .wrong(format!("{name} is there already, as {}; leave one of them out", self.item(first))));
        }
        Ok(())
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.above.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Item(at) => write!(f, "[{at}]"),
        }
    }
}
