//! Changes of a head's fields.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that frame a message or belong to one connection, or that have a place of their own: no rule changes them.
const KEPT: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Changes of fields, each name in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldEdits {
    set: Vec<Field>,
    add: Vec<Field>,
    remove: Vec<HeaderName>,
}

/// A field, spelled for HTTP/1, and as HTTP/2 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    spelled: Box<str>,
    name: HeaderName,
    value: HeaderValue,
}

/// A line of a head of HTTP/1.
enum Line<'a> {
    Kept(&'a [u8]),
    Made(&'a Field),
}

impl Field {
    /// A field; `None` where it is none that a rule may change.
    fn new(name: &str, value: &str) -> Option<Self> {
        let (spelled, name) = (name.into(), editable(name)?);
        let value = HeaderValue::from_str(value.trim()).ok()?;
        Some(Self { spelled, name, value })
    }
}

/// The name of a field, unless it must stay as it is.
fn editable(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !KEPT.contains(&name.as_str()))
}

impl FieldEdits {
    /// Edits that set, add and remove these fields, in this order; those that frame a message are left alone.
    pub(crate) fn new(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> Self {
        let fields = |named: &[(&str, &str)]| {
            let fields = named.iter().enumerate().filter(|(at, (name, _))| {
                !named[..*at].iter().any(|(before, _)| before.eq_ignore_ascii_case(name))
            });
            fields.filter_map(|(_, (name, value))| Field::new(name, value)).collect()
        };
        let remove = remove.iter().filter_map(|name| editable(name)).collect();
        Self { set: fields(set), add: fields(add), remove }
    }

    /// Returns true if they change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Sets one more field.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.set.extend(Field::new(name, value));
    }

    /// Adds one more field.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.add.extend(Field::new(name, value));
    }

    /// Removes one more field.
    pub(super) fn remove(&mut self, name: &str) {
        self.remove.extend(editable(name));
    }

    /// Changes the fields of a head of HTTP/2.
    pub(crate) fn change(&self, fields: &mut HeaderMap) {
        for Field { name, value, .. } in &self.set {
            fields.insert(name.clone(), value.clone());
        }
        for Field { name, value, .. } in &self.add {
            fields.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            fields.remove(name);
        }
    }

    fn change_lines<'a>(&'a self, lines: &mut Vec<Line<'a>>) {
        for field in &self.set {
            let mut is_first = true;
            lines.retain_mut(|line| {
                if !line.is(&field.name) {
                    return true;
                }
                if is_first {
                    *line = Line::Made(field);
                }
                std::mem::take(&mut is_first)
            });
            if is_first {
                lines.push(Line::Made(field));
            }
        }
        lines.extend(self.add.iter().map(Line::Made));
        lines.retain(|line| !self.remove.iter().any(|name| line.is(name)));
    }
}

impl Line<'_> {
    fn is(&self, name: &HeaderName) -> bool {
        match self {
            Self::Kept(line) => is_named(line, name.as_str()),
            Self::Made(field) => field.name == *name,
        }
    }
}

/// Returns true if a line of a head is a field of this name.
pub(super) fn is_named(line: &[u8], name: &str) -> bool {
    let (start, end) = (line.get(..name.len()), line.get(name.len()));
    end == Some(&b':') && start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}

/// The lines of a head of HTTP/1 that ends with an empty one, without that and without their ends.
pub(super) fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end()).filter(|line| !line.is_empty())
}

/// Writes a head of HTTP/1 with another first line, where there is one, and changed fields; other lines stay as they are.
pub(crate) fn changed<'a>(head: &'a [u8], first: Option<&[u8]>, edits: &[&'a FieldEdits]) -> Vec<u8> {
    let mut kept = head.split_inclusive(|&byte| byte == b'\n');
    let first_line = kept.next().unwrap_or_default();
    let mut lines: Vec<Line<'a>> = kept.filter(|line| *line != b"\r\n").map(Line::Kept).collect();
    edits.iter().for_each(|edits| edits.change_lines(&mut lines));
    let mut out = Vec::with_capacity(head.len() + 256);
    match first {
        Some(line) => out.extend([line, b"\r\n"].concat()),
        None => out.extend_from_slice(first_line),
    }
    for line in lines {
        match line {
            Line::Kept(line) => out.extend_from_slice(line),
            Line::Made(Field { spelled, value, .. }) => {
                out.extend([spelled.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits() -> FieldEdits {
        FieldEdits::new(
            &[
                ("X-Set", "new"),
                ("x-set", "ignored"),
                ("X-More", " m "),
                ("Content-Length", "0"),
                ("Host", "evil"),
            ],
            &[("X-Add", "2"), ("Transfer-Encoding", "chunked")],
            &["x-gone", "Connection"],
        )
    }

    #[test]
    fn fields_are_set_added_and_removed_and_the_rest_stays_as_it_was() {
        let head = b"GET / HTTP/1.1\r\nhoSt: a\r\nx-SET:  old \r\nx-add:1\r\nX-Gone: 1\r\nX-Set: older\r\nx-gone: 2\r\n\
            X-Gone-Not: 3\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nhoSt: a\r\nX-Set: new\r\nx-add:1\r\nX-Gone-Not: 3\r\nconnection: close\r\n\
            content-length: 5\r\nX-More: m\r\nX-Add: 2\r\n\r\n";
        assert_eq!(String::from_utf8(changed(head, None, &[&edits()])).unwrap(), expected);
        let other = changed(b"HTTP/1.1 200 OK\r\n\r\n", Some(b"HTTP/1.1 201 Made"), &[]);
        assert_eq!(other, b"HTTP/1.1 201 Made\r\n\r\n");
    }

    #[test]
    fn the_same_is_done_in_http2() {
        let mut fields = HeaderMap::new();
        for (name, value) in
            [("x-set", "old"), ("x-set", "older"), ("x-add", "1"), ("x-gone", "1"), ("host", "a")]
        {
            fields.append(name, HeaderValue::from_static(value));
        }
        edits().change(&mut fields);
        let mut seen: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        seen.sort_unstable();
        assert_eq!(seen, [("host", "a"), ("x-add", "1"), ("x-add", "2"), ("x-more", "m"), ("x-set", "new")]);
    }

    #[test]
    fn later_edits_see_what_earlier_ones_did() {
        let first = FieldEdits::new(&[("a", "1")], &[], &[]);
        let second = FieldEdits::new(&[], &[("A", "2")], &["b"]);
        let head = changed(b"GET / HTTP/1.1\r\nb: 1\r\n\r\n", None, &[&first, &second]);
        assert_eq!(head, b"GET / HTTP/1.1\r\na: 1\r\nA: 2\r\n\r\n");
        assert!(!first.is_empty() && FieldEdits::default().is_empty());
    }
}
