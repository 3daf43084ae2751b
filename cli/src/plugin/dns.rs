//! The resolvers of a container, as runtimes are told of them.

use serde_json::{Map, Value};

use super::json::{Object, Wrong, words};

/// The resolvers that a container asks, and how it asks them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dns {
    pub(super) nameservers: Vec<String>,
    pub(super) domain: Option<String>,
    pub(super) search: Vec<String>,
    pub(super) options: Vec<String>,
}

impl Dns {
    /// Our resolver and search list, as the agent has written them down.
    pub(super) fn ours(nameserver: &str, resolv_conf: &str) -> Self {
        // Without the file, the nameserver alone is told.
        let told = std::fs::read_to_string(resolv_conf).unwrap_or_default();
        let nameservers = [nameserver].into_iter().filter(|server| !server.is_empty());
        Self { nameservers: nameservers.map(str::to_owned).collect(), ..Self::of_resolv_conf(&told) }
    }

    /// Reads a section. The kubelet writes its keys with capitals, and other words than the specification.
    pub(super) fn of(key: &str, section: &Object) -> Result<Self, Wrong> {
        let mut dns = Self::default();
        for (name, value) in section {
            let key = format!("{key}.{name}");
            match name.to_ascii_lowercase().as_str() {
                "nameservers" | "servers" => dns.nameservers.extend(words(&key, Some(value))?),
                "search" | "searches" => dns.search.extend(words(&key, Some(value))?),
                "options" => dns.options.extend(words(&key, Some(value))?),
                "domain" => {
                    dns.domain = value.as_str().filter(|domain| !domain.is_empty()).map(str::to_owned)
                }
                _ => {}
            }
        }
        Ok(dns)
    }

    /// The section of another plugin's result; what is wrong there is left out.
    pub(super) fn of_section(section: &Object) -> Self {
        Self::of("dns", section).unwrap_or_default()
    }

    /// Puts another one's words behind the own.
    pub(super) fn extend(&mut self, other: Self) {
        let add = |own: &mut Vec<String>, others: Vec<String>| {
            for word in others {
                if !own.contains(&word) {
                    own.push(word);
                }
            }
        };
        add(&mut self.nameservers, other.nameservers);
        add(&mut self.search, other.search);
        add(&mut self.options, other.options);
        self.domain = self.domain.take().or(other.domain);
    }

    /// The section of a result.
    pub(super) fn section(&self) -> Value {
        let mut section = Map::new();
        for (key, list) in
            [("nameservers", &self.nameservers), ("search", &self.search), ("options", &self.options)]
        {
            if !list.is_empty() {
                section.insert(key.to_owned(), list.clone().into());
            }
        }
        if let Some(domain) = &self.domain {
            section.insert("domain".to_owned(), domain.clone().into());
        }
        Value::Object(section)
    }

    /// Reads a resolv.conf.
    fn of_resolv_conf(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => dns.nameservers.extend(words.map(str::to_owned)),
                Some("search") => dns.search = words.map(str::to_owned).collect(),
                Some("options") => dns.options.extend(words.map(str::to_owned)),
                Some(_) | None => {}
            }
        }
        dns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_says_whom_to_ask_and_how() {
        let dns = Dns::of_resolv_conf("# x\nnameserver 127.0.0.11\nsearch shop a.example\noptions ndots:2\n");
        assert_eq!(
            (dns.nameservers, dns.search),
            (vec!["127.0.0.11".to_owned()], vec!["shop".to_owned(), "a.example".to_owned()])
        );
        assert_eq!(dns.options, ["ndots:2"]);
    }
}
