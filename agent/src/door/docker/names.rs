//! The names that a container answers to. Pure.

use sealane_proto::types::{Alias, Aliases, Misread};

use crate::engine::{Container, ContainerEnd};

/// Number of characters of a container's id that people use.
const SHORT: usize = 12;
/// The labels by which Compose says whose container one is.
pub(super) const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// And those by which Swarm does, whose services are called after their stack as well: `demo_web`.
const SWARM_SERVICE: &str = "com.docker.swarm.service.name";
const STACK: &str = "com.docker.stack.namespace";

/// A text as a name in DNS, which knows no capitals; `None` for one that is none there, or that nobody would ask for.
fn alias(text: &str) -> Option<Alias> {
    let text = text.to_ascii_lowercase();
    text.parse().ok().filter(|_| Misread::of(&text).is_none())
}

fn label<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    container.labels.get(name).map(String::as_str)
}

/// The service of Compose or Swarm that a container is of, as its file calls it.
pub(super) fn service(container: &Container) -> Option<&str> {
    let in_swarm = || {
        let whole = label(container, SWARM_SERVICE)?;
        let stack = label(container, STACK).and_then(|stack| whole.strip_prefix(stack)?.strip_prefix('_'));
        Some(stack.unwrap_or(whole))
    };
    label(container, COMPOSE_SERVICE).or_else(in_swarm)
}

/// Collects the names that `container` answers to at `end` beside its workload's name: its own name, which may have what a
/// workload's cannot, the short form of its id, its service of Compose or Swarm, and what it was given for that network; all of
/// them within its project or stack too. `began` is the name that its workload was made from: one of another name was renamed.
pub(super) fn names(container: &Container, end: &ContainerEnd, began: &str) -> Aliases {
    let short: String = container.id.chars().take(SHORT).collect();
    let in_swarm = label(container, SWARM_SERVICE);
    let own = [Some(container.name.as_str()), Some(short.as_str()), service(container), in_swarm];
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
        .with_group(label(container, COMPOSE_PROJECT).or(label(container, STACK)).and_then(alias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    fn web() -> (Container, ContainerEnd) {
        let container = Container {
            id: "4f1c4f1c4f1c4f1c".to_owned(),
            name: "demo_web_1".to_owned(),
            labels: labels(&[(COMPOSE_SERVICE, "web"), (COMPOSE_PROJECT, "demo")]),
            ..Container::default()
        };
        let aliases =
            ["web", "4f1c4f1c4f1c", "Front", "no.label", "localhost", "10"].map(str::to_owned).into();
        (container, ContainerEnd { aliases, ..ContainerEnd::default() })
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
    fn a_task_of_a_swarm_answers_to_its_service_within_its_stack_too() {
        let task = |of: &[(&str, &str)]| Container { labels: labels(of), ..Container::default() };
        let of_stack = task(&[(SWARM_SERVICE, "demo_web"), (STACK, "demo")]);
        assert_eq!(service(&of_stack), Some("web"));
        let aliases = names(&of_stack, &ContainerEnd::default(), "");
        assert_eq!(said(&aliases), ["demo_web", "web"]);
        assert_eq!(aliases.group().unwrap().as_str(), "demo");
        assert_eq!(service(&task(&[(SWARM_SERVICE, "web")])), Some("web"));
        assert_eq!(service(&task(&[(SWARM_SERVICE, "other_web"), (STACK, "demo")])), Some("other_web"));
        assert_eq!(service(&task(&[])), None);
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
        let aliases = names(&container, &ContainerEnd { aliases, ..end }, "demo_web_1");
        assert_eq!(aliases.len(), Aliases::MOST);
        assert!(
            ["demo_web_1", "4f1c4f1c4f1c", "web"]
                .iter()
                .all(|own| said(&aliases).contains(&(*own).to_owned()))
        );
    }
}
