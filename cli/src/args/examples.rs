//! Examples of every verb, as its help and its manual page show them.

use clap::Command;

/// The words of a verb, and command lines of it.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "up",
        &[
            "sealane up",
            "sealane up --listen 0.0.0.0:7443",
            "sealane up --listen 0.0.0.0:7443 --underlay eth1",
        ],
    ),
    (
        "control",
        &[
            "sealane control",
            "sealane control --listen 192.0.2.11:7443 --trust-domain example.org",
            "sealane control --listen 192.0.2.11:7443 --store etcd --etcd http://192.0.2.31:2379 --key-file /etc/sealane/key",
        ],
    ),
    ("control ls", &["sealane control ls", "sealane control ls -o json"]),
    ("control rm", &["sealane control rm 192.0.2.13:7443"]),
    (
        "agent",
        &[
            "sealane agent --control 192.0.2.11:7443 --token-file /etc/sealane/token",
            "sealane agent --control 192.0.2.11:7443 --name host-2 --underlay 10.0.0.0/8",
        ],
    ),
    (
        "run",
        &[
            "sealane run --network shop --service api --port 8080 -- ./api",
            "sealane run --network shop -- curl http://api:8080/",
            "sealane run --network shop --service api --port 8080 --health http:/health --health-interval 2s -- ./api",
        ],
    ),
    (
        "attach",
        &[
            "sealane attach /run/netns/web --network shop --service web --port 80",
            "sealane attach --container 3f4e5a --network shop",
            "sealane attach --unit api --network shop --service api --port 8080",
        ],
    ),
    ("detach", &["sealane detach web-1 --drain 10s", "sealane detach --unit api"]),
    ("exec", &["sealane exec web-1 -- ip addr", "sealane exec web-1.shop -- sh"]),
    ("cni", &["CNI_COMMAND=VERSION sealane cni"]),
    (
        "docker install",
        &["sealane docker install", "sealane docker install --plugin /run/docker/plugins/mesh.sock"],
    ),
    ("docker uninstall", &["sealane docker uninstall"]),
    ("docker plugin build", &["sealane docker plugin build ./plugin"]),
    ("apply", &["sealane apply -f shop.yaml", "sealane apply -f shop/ --wait --timeout 30s"]),
    ("get", &["sealane get network", "sealane get service api.shop -o yaml"]),
    (
        "diff",
        &["sealane diff -f shop.yaml", "sealane diff --at 1041", "sealane diff --at 1041 service api.shop"],
    ),
    ("delete", &["sealane delete service api.shop", "sealane delete -f shop.yaml --ignore-not-found"]),
    (
        "history",
        &[
            "sealane history",
            "sealane history service api.shop",
            "sealane history -n shop --since 2h -o yaml",
        ],
    ),
    ("rollback", &["sealane rollback --to 1041 --dry-run", "sealane rollback --to 1041 --wait"]),
    (
        "network create",
        &[
            "sealane network create shop --subnet 10.42.0.0/16",
            "sealane network create shop --subnet 10.42.0.0/16 --subnet fd42::/64 --egress deny",
        ],
    ),
    ("network ls", &["sealane network ls"]),
    ("network inspect", &["sealane network inspect shop"]),
    ("network set", &["sealane network set shop --mtls strict"]),
    ("network grow", &["sealane network grow shop --subnet 10.42.0.0/15"]),
    ("network rm", &["sealane network rm shop"]),
    (
        "token create",
        &["sealane token create", "sealane token create --node host-2 --networks shop --ttl 1h"],
    ),
    ("token ls", &["sealane token ls"]),
    ("token revoke", &["sealane token revoke 3f4e5a6b"]),
    ("service ls", &["sealane service ls --network shop"]),
    ("service inspect", &["sealane service inspect api"]),
    ("service endpoints", &["sealane service endpoints api.shop"]),
    (
        "service register",
        &["sealane service register db --network shop --address 192.0.2.50:5432 --check tcp"],
    ),
    ("service deregister", &["sealane service deregister db.shop"]),
    ("service rm", &["sealane service rm api --network shop"]),
    ("node ls", &["sealane node ls"]),
    ("node inspect", &["sealane node inspect host-2"]),
    ("node drain", &["sealane node drain host-2"]),
    ("node undrain", &["sealane node undrain host-2"]),
    ("node rm", &["sealane node rm host-2"]),
    ("workload ls", &["sealane workload ls", "sealane workload ls --network shop -o json"]),
    ("workload inspect", &["sealane workload inspect web-1"]),
    (
        "workload drain",
        &["sealane workload drain web-1", "sealane workload drain web-1.shop --wait --timeout 10s"],
    ),
    ("workload undrain", &["sealane workload undrain web-1"]),
    (
        "workload set",
        &["sealane workload set web-1 --weight 10", "sealane workload set web-1 --weight 0 --wait"],
    ),
    ("sidecar restart", &["sealane sidecar restart web-1", "sealane sidecar restart --all"]),
    (
        "dns query",
        &["sealane dns query api --from web-1", "sealane dns query _http._tcp.api --type SRV --from web-1"],
    ),
    ("identity", &["sealane identity web-1"]),
    ("status", &["sealane status", "sealane status -o json"]),
    ("backup", &["sealane backup /root/sealane.backup"]),
    (
        "restore",
        &[
            "sealane restore /root/sealane.backup",
            "sealane restore /root/sealane.backup --store etcd --etcd http://192.0.2.31:2379 --key-file /etc/sealane/key",
        ],
    ),
    ("check", &["sealane check", "sealane check --underlay eth1", "sealane check --peers"]),
    ("demo", &["sealane demo", "sealane demo --once --hosts 2"]),
    ("demo shell", &["sealane demo shell host-1", "sealane demo shell host-1 -- sealane status"]),
    ("clean", &["sealane clean", "sealane clean --yes --keep-data"]),
    ("schema", &["sealane schema service"]),
    ("completions", &["sealane completions bash"]),
    ("man", &["sealane man --out /usr/local/share/man/man1"]),
];

/// Adds them to the command line's own description.
pub(super) fn explained(command: Command) -> Command {
    EXAMPLES
        .iter()
        .fold(command, |command, (verb, lines)| explain(command, &verb.split(' ').collect::<Vec<_>>(), lines))
}

fn explain(command: Command, verb: &[&str], lines: &[&str]) -> Command {
    match verb {
        [] => command.after_help(format!("Examples:\n  {}", lines.join("\n  "))),
        [first, rest @ ..] => command.mut_subcommand(*first, |below| explain(below, rest, lines)),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;
    use super::*;

    /// Verbs that descriptions begin with.
    const IMPERATIVES: &[&str] = &[
        "Attach",
        "Build",
        "Check",
        "Connect",
        "Create",
        "Delete",
        "Demonstrate",
        "Deregister",
        "Detach",
        "Drain",
        "Hold",
        "Install",
        "List",
        "Manage",
        "Print",
        "Query",
        "Register",
        "Remove",
        "Replace",
        "Resolve",
        "Restore",
        "Revoke",
        "Run",
        "Serve",
        "Give",
        "Set",
        "Show",
        "Undrain",
        "Change",
        "Write",
    ];

    fn each(command: &Command, path: &str, check: &mut impl FnMut(&str, &Command)) {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            check(path.trim_start(), below);
            each(below, &path, check);
        }
    }

    #[test]
    fn every_verb_says_in_the_imperative_what_it_does_and_shows_an_example() {
        let command = explained(Cli::command());
        let begins = |text: String, of: &str| {
            let first = text.split(' ').next().unwrap_or_default().to_owned();
            assert!(IMPERATIVES.contains(&first.as_str()), "{of}: {text}");
        };
        begins(command.get_about().unwrap().to_string(), "sealane");
        each(&command, "", &mut |path, verb| {
            begins(verb.get_about().map(ToString::to_string).unwrap_or_default(), path);
            let is_group = verb.is_subcommand_required_set();
            let example = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(verb.is_hide_set() || is_group || example.starts_with("Examples:\n"), "{path}");
        });
    }

    #[test]
    fn every_example_is_a_command_line_of_its_verb() {
        for (verb, lines) in EXAMPLES {
            for line in *lines {
                let words = line.split(' ').skip_while(|word| word.contains('='));
                let words: Vec<&str> = words.collect();
                assert!(words.join(" ").starts_with(&format!("sealane {verb}")), "{line}");
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_flag_s_help_names_the_thing_and_asks_no_question() {
        let command = explained(Cli::command());
        let mut check = |path: &str, verb: &Command| {
            for arg in verb.get_arguments().filter(|arg| !arg.is_hide_set() && !verb.is_hide_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let first = help.split(' ').next().unwrap_or_default();
                let vague = [
                    "", "What", "How", "Where", "Whose", "Whether", "Its", "Which", "That", "A", "An", "The",
                ];
                assert!(!vague.contains(&first), "sealane {path}, {}: {help}", arg.get_id());
            }
        };
        check("", &command);
        each(&command, "", &mut check);
    }
}
