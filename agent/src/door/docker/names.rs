//! The names that a container answers to. Pure.

use sealane_proto::types::{Alias, Aliases};

use crate::engine::{Container, End};

/// How much of a container's id people use.
const SHORT: usize = 12;
/// The labels by which Compose says whose container one is.
pub(super) const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// A text as a name in DNS, which knows no capitals; `None` for one that is none there.
fn alias(text: &str) -> Option<Alias> {
    text.to_ascii_lowercase().parse().ok()
}

/// What `container` answers to at `end` beside its workload's name: its own name, which may have what a workload's cannot, the
/// short form of its id, its Compose service, and what it was given for that network; all of them within its Compose project
/// too. `began` is the name that its workload was made from: one of another name was renamed.
pub(super) fn names(container: &Container, end: &End, began: &str) -> Aliases {
    let short: String = container.id.chars().take(SHORT).collect();
    let label = |name: &str| container.labels.get(name).map(String::as_str);
    let own = [Some(container.name.as_str()), Some(short.as_str()), label(COMPOSE_SERVICE)];
    let given = end.aliases.iter().map(String::as_str);
    let mut all: Vec<Alias> = Vec::new();
    for alias in own.into_iter().flatten().chain(given).filter_map(alias) {
        if !all.contains(&alias) {
            all.push(alias);
        }
    }
    all.truncate(Aliases::MOST);
    let renamed = !began.is_empty() && began != container.name;
    let called = alias(&container.name).filter(|_| renamed);
    // No more than there may be.
    Aliases::new(all)
        .unwrap_or_default()
        .with_called(called)
        .with_group(label(COMPOSE_PROJECT).and_then(alias))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> (Container, End) {
        let labels = [(COMPOSE_SERVICE, "web"), (COMPOSE_PROJECT, "demo")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let container = Container {
            id: "4f1c4f1c4f1c4f1c".to_owned(),
            name: "demo_web_1".to_owned(),
            labels,
            ..Container::default()
        };
        let aliases = ["web", "4f1c4f1c4f1c", "Front", "no.label"].map(str::to_owned).into();
        (container, End { aliases, ..End::default() })
    }

    fn said(aliases: &Aliases) -> Vec<String> {
        aliases.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_container_answers_to_its_name_id_service_and_aliases_within_its_project_too() {
        let (container, end) = web();
        let aliases = names(&container, &end, "demo_web_1");
        assert_eq!(said(&aliases), ["4f1c4f1c4f1c", "demo_web_1", "front", "web"]);
        assert_eq!(aliases.group().unwrap().as_str(), "demo");
        assert_eq!(aliases.called(), None);
    }

    #[test]
    fn a_container_that_was_renamed_is_called_by_its_new_name() {
        let (container, end) = web();
        let aliases = names(&container, &end, "before");
        assert_eq!(aliases.called().unwrap().as_str(), "demo_web_1");
        assert_eq!(names(&container, &end, "").called(), None, "nobody knows what it was");
    }

    #[test]
    fn its_own_names_come_before_too_many_given_ones() {
        let (container, end) = web();
        let aliases = (0..40).map(|number| format!("a{number}")).collect();
        let aliases = names(&container, &End { aliases, ..end }, "demo_web_1");
        assert_eq!(aliases.len(), Aliases::MOST);
        assert!(
            ["demo_web_1", "4f1c4f1c4f1c", "web"]
                .iter()
                .all(|own| said(&aliases).contains(&(*own).to_owned()))
        );
    }
}
