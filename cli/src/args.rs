//! The command line. Whatever has a form of its own (names, subnets, ports) is parsed here, once.

mod backup;
mod demo;
mod dns;
mod docker;
mod document;
mod effect;
mod environment;
mod examples;
mod history;
mod members;
mod plugin;
mod process;
mod sidecar;
mod table;
mod workload;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use sealane_sys::run_dir::RunDir;

use crate::failure::{Exit, Failure};
use crate::printer::{Format, Printer};
pub(crate) use backup::{Backup, Restore};
pub(crate) use demo::{Demo, DemoAction, Tour};
pub(crate) use dns::{Dns, DnsAction, DnsQuery};
pub(crate) use docker::{Docker, DockerAction, Installed, PLUGIN};
pub(crate) use document::{Apply, Complete, Completions, Delete, Diff, Get, Man, Schema};
pub(crate) use history::{History, Rollback};
pub(crate) use members::{
    ChangedWorkload, NamedService, NamedWorkload, Node, NodeAction, Register, Service, ServiceAction,
    Workload, WorkloadAction,
};
pub(crate) use plugin::{ManagedPlugin, PluginAction};
pub(crate) use process::{
    Agent, Check, Clean, Control, ControlAction, HostArgs, Proxy, SharedStore, Store, TokenArg, Up,
    check_environment,
};
pub(crate) use sidecar::{Sidecar, SidecarAction};
pub(crate) use table::{
    CreateNetwork, Egress, Encryption, Network, NetworkAction, SetNetwork, Token, TokenAction,
};
pub(crate) use workload::{Attach, AttachTo, Detach, Exec, InNetwork, Run, Target, UnitName};

/// Connect containers and processes of many Linux hosts by private networks with names, load balancing, mTLS and metrics.
#[derive(Debug, Parser)]
#[command(name = "sealane", version, max_term_width = 110, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Format of printed data
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Socket to connect to, instead of control.sock or agent.sock in the run directory
    #[arg(long, global = true, env = "SEALANE_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Directory of sockets, pid files and namespace handles
    #[arg(
        long,
        global = true,
        env = "SEALANE_RUN_DIR",
        value_name = "DIR",
        default_value = RunDir::DEFAULT,
        value_parser = PathBufValueParser::new().map(RunDir::from),
        value_hint = ValueHint::AnyPath
    )]
    pub(crate) run_dir: RunDir,
}

/// Verbs of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the control plane and the agent of a single host in one process
    Up(Up),
    /// Run the control plane, or manage those that share a store
    Control(Control),
    /// Run the agent of this host
    Agent(Agent),
    /// Run a command as a workload of a network; the workload ends with it
    Run(Run),
    /// Attach an existing network namespace, such as a container's, to a network
    Attach(AttachTo),
    /// Detach a workload that `attach` has attached
    Detach(Detach),
    /// Run a command in the namespace of a workload of this host
    Exec(Exec),
    /// Serve a container runtime as its CNI plugin, which reads CNI_COMMAND and a configuration on standard input
    Cni,
    /// Set up Docker on this host
    Docker(Docker),
    /// Create or update objects from YAML or JSON files
    Apply(Apply),
    /// Show objects as documents that can be applied again
    Get(Get),
    /// Show the changes that applying files or a rollback would make; exits with 0 for none, 1 for some, 2 or more on failure
    Diff(Diff),
    /// Delete objects by name, or the objects of files
    Delete(Delete),
    /// Show who has changed which networks, services, hosts and tokens
    History(History),
    /// Restore the documents of an earlier revision, all of them or none
    Rollback(Rollback),
    /// Manage overlay networks
    Network(Network),
    /// Manage the tokens that hosts join with
    Token(Token),
    /// Manage services
    Service(Service),
    /// Manage the hosts of the mesh
    Node(Node),
    /// List and inspect workloads
    Workload(Workload),
    /// Manage the sidecars of this host
    Sidecar(Sidecar),
    /// Resolve names as workloads of this host do
    Dns(Dns),
    /// Show the certificate of a workload of this host and its expiry
    Identity(NamedWorkload),
    /// Show the state of control and of this host's agent; exits with 0 for no problem, 1 for problems, 3 for no answer
    Status,
    /// Write the state of control to a file, which contains the authority's key
    Backup(Backup),
    /// Restore a backup as the store of a control plane that is not running
    Restore(Restore),
    /// Check that this host can run Sealane and that its installation works
    Check(Check),
    /// Demonstrate a mesh of several hosts on this machine, in namespaces and with real programs
    Demo(Demo),
    /// Remove every trace of Sealane from this host
    Clean(Clean),
    /// Print the JSON Schema of documents
    Schema(Schema),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
    /// Print names that complete a command line (scripts of `completions` call it)
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
    /// Hold what must outlive the agent (the agent starts it)
    #[command(hide = true)]
    Keep,
    /// Run the sidecar of a workload (the agent starts it)
    #[command(hide = true)]
    Proxy(Proxy),
}

/// Describes the command line, with examples.
pub(crate) fn command() -> clap::Command {
    examples::explained(Cli::command())
}

/// Reads a command line. What is printed instead of running anything has been printed when it returns an error.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = environment::without_empty(command());
    let parsed = command.try_get_matches_from(&arguments).and_then(|found| {
        let cli = Cli::from_arg_matches(&found)?;
        Ok((effect::check(&found, &cli), cli))
    });
    let parsed = parsed.map_err(|error| {
        // Without a terminal to print to, the status still says it.
        let is_help = matches!(
            error.kind(),
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        );
        let _ = match is_help {
            true => error.print(),
            false => std::io::stderr().write_all(wrong(&error, &arguments).as_bytes()),
        };
        if let Some(variable) = environment::source_of(&error, &arguments) {
            let _ = writeln!(std::io::stderr(), "hint: the value comes from the environment, see {variable}");
        }
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            ExitCode::SUCCESS
        } else if starts_a_command(&arguments) {
            Exit::NotStarted.into()
        } else {
            ExitCode::from(Exit::Usage)
        }
    });
    let (effect, cli) = parsed?;
    effect.map(|()| cli).map_err(|failure| {
        Printer::new(Format::Table).failure(&failure);
        failure.exit.into()
    })
}

/// Words for a command line that is wrong, with hints as every failure has them.
fn wrong(error: &clap::Error, arguments: &[OsString]) -> String {
    let text = error.render().to_string();
    let verb = verb_of(arguments);
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let lines = lines.map(|line| match line.trim_start().strip_prefix("tip: ") {
        Some(tip) => format!("hint: {tip}\n"),
        // The one in the error also has flags that the environment gives.
        None if line.starts_with("Usage: ") => format!("{}\n", verb.clone().render_usage()),
        None if line.starts_with("For more information") => {
            let name = verb.get_bin_name().unwrap_or("sealane");
            format!("hint: `{name} --help` shows its flags and examples\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// The verb of a command line.
fn verb_of(arguments: &[OsString]) -> clap::Command {
    let mut all = Cli::command();
    all.build();
    let mut verb = &all;
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        verb = verb.find_subcommand(word).unwrap_or(verb);
    }
    verb.clone()
}

/// Refuses a format for verbs that print no data, or only in one format: what is asked for and not done is said.
///
/// # Errors
/// Names the verb.
pub(crate) fn refuse_format(cli: &Cli) -> Result<(), Failure> {
    let format = cli.common.output;
    let verb = match (&cli.verb, format) {
        (_, Format::Table) | (Verb::Schema(_), Format::Json) => return Ok(()),
        (Verb::Up(_), _) => "up",
        (Verb::Control(Control { action: None, .. }), _) => "control",
        (Verb::Agent(_), _) => "agent",
        (Verb::Run(_), _) => "run",
        (Verb::Exec(_), _) => "exec",
        (Verb::Backup(_), _) => "backup",
        (Verb::Restore(_), _) => "restore",
        (Verb::Demo(_), _) => "demo",
        (Verb::Clean(_), _) => "clean",
        (Verb::Schema(_), _) => "schema",
        (Verb::Completions(_), _) => "completions",
        (Verb::Man(_), _) => "man",
        (Verb::Cni, _) => "cni",
        (Verb::Docker(_), _) => "docker",
        (_, Format::Json | Format::Yaml) => return Ok(()),
    };
    let exit = if matches!(cli.verb, Verb::Run(_) | Verb::Exec(_)) { Exit::NotStarted } else { Exit::Usage };
    let text = format!("`sealane {verb}` prints nothing in the format {}", format.name());
    Err(Failure::new(text).exit(exit).hint("leave -o out"))
}

/// Returns true if the verb is one whose status is otherwise that of a command.
fn starts_a_command(arguments: &[OsString]) -> bool {
    let verb = arguments.iter().skip(1).find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    verb.is_some_and(|verb| verb == "run" || verb == "exec")
}

#[cfg(test)]
mod tests {
    use sealane_proto::types::Mtu;

    use super::*;

    fn refused(line: &str) -> String {
        match Cli::try_parse_from(line.split(' ')) {
            Ok(cli) => format!("accepted as {cli:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_the_bounds_of_an_mtu() {
        let help = refused("sealane network create --help");
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let bounds = format!("from {} (with IPv6 from {}) to {} bytes", Mtu::MIN, Mtu::MIN_IPV6, Mtu::MAX);
        assert!(help.contains(&bounds), "{help}");
    }

    /// Command lines, and what the refusal names.
    const WRONG_USAGE: &[(&str, &str)] = &[
        ("sealane network create Shop --subnet 10.42.0.0/16", "lower-case letters"),
        ("sealane network create shop", "--subnet"),
        ("sealane network create shop --subnet 10.42.0.1/16", "did you mean 10.42.0.0/16"),
        ("sealane network create shop --subnet 10.42.0.0/16 --subnet fd00::1/64", "did you mean fd00::/64"),
        ("sealane network create shop --subnet fe80::/64", "link-local"),
        ("sealane network create shop --subnet 10.42.0.0/16 --encryption wireguard", "possible values: none"),
        ("sealane network create shop --subnet 10.42.0.0/16 --mtu 100", "576 to 9000"),
        ("sealane run --network shop", "<CMD>"),
        ("sealane run -- true", "--network"),
        ("sealane run --network shop --port 80 -- true", "--service"),
        ("sealane run --network shop --service api --port 0 -- true", "1 to 65535"),
        ("sealane run --network shop --service api --port 80/sctp -- true", "protocol"),
        ("sealane run --network shop --ip 10.42.0 -- true", "--ip"),
        ("sealane run --network shop --ip office=x -- true", "--ip"),
        ("sealane run --network shop --health ping -- true", "is no check"),
        ("sealane run --network shop --health tcp -- true", "--service"),
        ("sealane run --network shop --health-interval 1s -- true", "--health"),
        ("sealane run --network shop --service api --health tcp --health-retries 0 -- true", "from 1 to 100"),
        ("sealane attach --network shop", "NETNS_PATH"),
        ("sealane attach --pid abc --network shop", "process \"abc\" is not a number from 1 on"),
        ("sealane attach /run/netns/a --pid 7 --network shop", "cannot be used with"),
        ("sealane attach /run/netns/a", "--network"),
        ("sealane detach a.b.c", "lower-case letters"),
        ("sealane token create --ttl soon", "--ttl"),
        ("sealane token create --ttl 0s", "--ttl"),
        ("sealane token create --uses 0", "unlimited"),
        ("sealane token create --networks Shop", "lower-case letters"),
        ("sealane network create shop --subnet 10.42.0.0/16 --hosts Host_1", "lower-case letters"),
        ("sealane token create --node Host_1", "lower-case letters"),
        ("sealane token revoke", "<ID>"),
        ("sealane history workload", "it must be network, service, host or token"),
        ("sealane rollback", "--to"),
        ("sealane rollback --to 7 --wait --dry-run", "cannot be used with"),
        ("sealane diff", "--filename"),
        ("sealane diff --at 7 -f shop.yaml", "cannot be used with"),
        ("sealane diff service api -f shop.yaml", "--at"),
        ("sealane token create --ttl 1000d", "longer than a year"),
        ("sealane agent", "--control"),
        ("sealane agent --control nowhere", "HOST:PORT"),
        ("sealane agent --control 192.0.2.1:7443 --name Host_1", "lower-case letters"),
        ("sealane agent --control 192.0.2.1:7443 --token - --token-file /t", "cannot be used with"),
        ("sealane agent --control 192.0.2.1:7443 --underlay 192.0.2.256", "must be an address (192.0.2.11)"),
        ("sealane agent --control 192.0.2.1:7443 --underlay 192.0.2.1/24", "did you mean 192.0.2.0/24?"),
        ("sealane control --listen 7443", "like 0.0.0.0:7443"),
        ("sealane up --listen foo", "like 0.0.0.0:7443"),
        ("sealane control --metrics foo", "IP:PORT"),
        ("sealane control --store etcd", "--etcd <URL>"),
        ("sealane control --store sqlite", "possible values: redb, etcd"),
        ("sealane demo --hosts 1", "2..=9"),
        ("sealane status -o xml", "table, json, yaml"),
        ("sealane node rm", "<NODE>"),
        ("sealane workload drain", "<WORKLOAD[.NETWORK]>"),
        ("sealane workload drain web --timeout 5s", "--wait"),
        ("sealane workload set web", "--weight"),
        ("sealane workload set web --weight 1001", "0 to 1000"),
        ("sealane workload set web --weight -1", "0 to 1000"),
        ("sealane service rm Api", "lower-case letters"),
        ("sealane nothing", "nothing"),
        ("sealane docker plugin build", "<DIR>"),
        ("sealane docker install --plugin sealane", "the absolute path of a socket"),
        ("sealane apply", "--filename"),
        ("sealane apply -f a --timeout 5s", "--wait"),
        ("sealane apply -f a --wait --dry-run", "--dry-run"),
        ("sealane apply -f a --wait --timeout soon", "--timeout"),
        ("sealane get pods", "it must be Network or Service or HTTPRoute or GRPCRoute"),
        ("sealane get servcie", "did you mean Service?"),
        ("sealane delete", "<KIND>"),
        ("sealane delete network", "<NAME>"),
        ("sealane delete network shop -f a", "--filename"),
        ("sealane completions tcsh", "possible values"),
    ];

    #[test]
    fn wrong_usage_names_what_is_wrong() {
        for (line, expected) in WRONG_USAGE {
            let said = refused(line);
            assert!(said.contains(expected), "{line}: {said}");
        }
    }

    #[test]
    fn a_wrong_line_ends_in_a_hint_that_can_be_typed() {
        let said = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            wrong(&Cli::try_parse_from(&words).unwrap_err(), &words)
        };
        let text = said("sealane network create shop");
        assert!(text.starts_with("error: ") && !text.contains("\n\n"), "{text}");
        assert!(
            text.contains("\nUsage: sealane network create [OPTIONS] --subnet <CIDR> <NETWORK>\n"),
            "{text}"
        );
        assert!(
            text.ends_with("hint: `sealane network create --help` shows its flags and examples\n"),
            "{text}"
        );
        let text = said("sealane -o json nod ls");
        assert!(text.contains("\nhint: ") && text.contains("'node'"), "{text}");
    }

    #[test]
    fn sidecars_are_restarted_by_name_or_all() {
        assert!(refused("sealane sidecar restart").contains("--all"));
        assert!(refused("sealane sidecar restart web --all").contains("cannot be used with"));
    }

    #[test]
    fn what_stands_behind_two_dashes_is_the_command_alone() {
        let line = "sealane run --network shop --service api --port web=8080/http -- sh -c --name -o json";
        let Verb::Run(run) = Cli::try_parse_from(line.split(' ')).unwrap().verb else {
            panic!("not a run");
        };
        assert_eq!(run.command, ["sh", "-c", "--name", "-o", "json"]);
        assert_eq!(run.attach.ports[0].to_string(), "web=8080/http");
        assert!(run.attach.name.is_none());
    }

    #[test]
    fn common_flags_stand_before_or_behind_the_verb() {
        for line in ["sealane -o json --run-dir /r status", "sealane status --output json --run-dir /r"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((cli.common.output, cli.common.run_dir), (Format::Json, RunDir::from("/r")), "{line}");
        }
    }

    #[test]
    fn a_format_that_a_verb_does_not_have_is_refused() {
        let check = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            refuse_format(&cli).map_err(|failure| (failure.exit, failure.message))
        };
        let no = |verb: &str| format!("`sealane {verb}` prints nothing in the format json");
        assert_eq!(check("sealane clean --yes -o json"), Err((Exit::Usage, no("clean"))));
        assert_eq!(check("sealane man --out x -o json"), Err((Exit::Usage, no("man"))));
        assert_eq!(check("sealane run -o json --network a -- true"), Err((Exit::NotStarted, no("run"))));
        for line in ["sealane schema -o json", "sealane diff -f a -o yaml", "sealane node rm a -o json"] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn only_verbs_that_start_a_command_keep_low_statuses_for_it() {
        let check = |line: &str| starts_a_command(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(check("sealane run --bad") && check("sealane exec") && check("sealane --x run"));
        assert!(!check("sealane network run") && !check("sealane"));
    }
}
