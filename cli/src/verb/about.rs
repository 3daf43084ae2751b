//! `sealane schema`, `completions` and `man`: what this program says of itself.

use std::fs;
use std::io;
use std::path::Path;

use clap_complete::Shell;
use sealane_proto::document::schema as schema_of;

use crate::args::{Completions, Man, Schema, command};
use crate::failure::{Exit, Failure};
use crate::printer::Printer;

/// The day of this version, as the changelog has it when it is out: pages are the same whenever they are made.
const RELEASED: &str = "2026-11-30";

/// `sealane schema`.
pub(crate) fn schema(schema: &Schema, printer: &Printer) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(&schema_of(schema.kind)).map_err(Failure::of("cannot write JSON"))?;
    printer.text(&text)
}

/// `sealane completions`.
pub(crate) fn completions(completions: &Completions, printer: &Printer) -> Result<(), Failure> {
    let mut script = vec![];
    clap_complete::generate(completions.shell, &mut command(), "sealane", &mut script);
    printer.text(&with_names(completions.shell, &String::from_utf8_lossy(&script)))
}

/// The script, which completes names of the mesh first and verbs and flags otherwise.
fn with_names(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => script.replace("complete -F _sealane ", "complete -F _sealane_names ") + BASH_NAMES,
        Shell::Zsh => {
            let (body, tail) = script.rsplit_once("\nif [ ").unwrap_or((script, ""));
            let tail = tail
                .replace(
                    "    _sealane \"$@\"",
                    "    compdef _sealane_names sealane\n    _sealane_names \"$@\"",
                )
                .replace("compdef _sealane sealane", "compdef _sealane_names sealane");
            format!("{body}\n{ZSH_NAMES}\nif [ {tail}")
        }
        Shell::Fish => format!("{script}{FISH_NAMES}"),
        Shell::Elvish | Shell::PowerShell | _ => script.to_owned(),
    }
}

const BASH_NAMES: &str = r#"
_sealane_names() {
    local names
    names=$(sealane __complete -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
    if [[ -n "$names" ]]; then
        mapfile -t COMPREPLY <<<"$names"
        return 0
    fi
    _sealane "$@"
}
"#;

const ZSH_NAMES: &str = r#"
_sealane_names() {
    local names
    names="$(sealane __complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)"
    if [[ -n "$names" ]]; then
        compadd -- "${(@f)names}"
        return 0
    fi
    _sealane "$@"
}
"#;

const FISH_NAMES: &str = r#"complete -c sealane -a "(sealane __complete -- (commandline -opc) (commandline -ct) 2>/dev/null)"
"#;

/// `sealane man`: a page per verb.
pub(crate) fn man(man: &Man, printer: &Printer) -> Result<(), Failure> {
    let folder = &man.out;
    if folder.as_os_str() == "-" {
        return Err(Failure::new("pages are several files, which standard output cannot hold")
            .exit(Exit::Usage)
            .hint("name a folder, such as `sealane man --out /usr/local/share/man/man1`"));
    }
    let failed = |error: io::Error| Failure::new(format!("cannot write to {}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let pages = pages(&command, folder).map_err(failed)?;
    printer.talk(&format!("{pages} pages in {}", folder.display()));
    Ok(())
}

fn pages(command: &clap::Command, folder: &Path) -> io::Result<usize> {
    let mut written = 0;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        written += pages(verb, folder)?;
    }
    let page = clap_mangen::Man::new(command.clone().disable_help_flag(false))
        .date(RELEASED)
        .source(concat!("Sealane ", env!("CARGO_PKG_VERSION")))
        .manual("Sealane");
    let mut text = vec![];
    page.render(&mut text)?;
    let usage = command.clone().render_usage().to_string();
    let text = with_synopsis(&String::from_utf8_lossy(&text), &usage);
    fs::write(folder.join(page.get_filename()), text)?;
    Ok(written + 1)
}

/// The page with the usage as `--help` has it: the one that is made from the arguments knows neither their values nor
/// the `--` before a command.
fn with_synopsis(page: &str, usage: &str) -> String {
    const HEAD: &str = ".SH SYNOPSIS\n";
    let Some((before, after)) = page.split_once(HEAD) else { return page.to_owned() };
    let rest = after.find(".SH ").map_or("", |at| &after[at..]);
    let usage = usage.trim_start_matches("Usage: ").replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<&str> = usage.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("{before}{HEAD}{}\n{rest}", lines.join("\n.br\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_with_the_usage_that_can_be_typed() {
        let page = ".SH NAME\nrun\n.SH SYNOPSIS\nwrong\n.SH DESCRIPTION\nruns\n";
        let right = ".SH NAME\nrun\n.SH SYNOPSIS\nrun [OPTIONS] \\-\\- <CMD>...\n.SH DESCRIPTION\nruns\n";
        assert_eq!(with_synopsis(page, "Usage: run [OPTIONS] -- <CMD>..."), right);
    }

    #[test]
    fn pages_are_of_the_day_of_the_release() {
        let folder = tempfile::tempdir().unwrap();
        pages(&command(), folder.path()).unwrap();
        let page = fs::read_to_string(folder.path().join("sealane.1")).unwrap();
        let (version, title) = (env!("CARGO_PKG_VERSION"), page.lines().find(|line| line.starts_with(".TH")));
        assert_eq!(title.unwrap(), format!(".TH sealane 1 {RELEASED} \"Sealane {version}\" Sealane"));
        let heads = include_str!("../../../CHANGELOG.md").lines().filter_map(|line| line.strip_prefix("## "));
        for head in heads.filter(|head| head.split([' ', '[', ']']).any(|word| word == version)) {
            assert!(head.ends_with(RELEASED), "{head}");
        }
    }

    #[test]
    fn scripts_ask_for_names_before_anything_else() {
        let script = |shell| {
            let mut script = vec![];
            clap_complete::generate(shell, &mut command(), "sealane", &mut script);
            with_names(shell, &String::from_utf8_lossy(&script))
        };
        let bash = script(Shell::Bash);
        assert_eq!(bash.matches("complete -F _sealane_names ").count(), 2);
        assert!(!bash.contains("complete -F _sealane "));
        let zsh = script(Shell::Zsh);
        assert!(
            zsh.contains("compdef _sealane_names sealane") && zsh.contains("    _sealane_names \"$@\"\nelse")
        );
        assert!(zsh.find("_sealane_names() {") < zsh.find("compdef _sealane_names"));
        assert!(script(Shell::Fish).contains("sealane __complete"));
    }

    #[test]
    fn the_schema_in_the_documentation_is_this_one() {
        let written = include_str!("../../../docs/documents.schema.json");
        let current = serde_json::to_string_pretty(&schema_of(None)).unwrap();
        assert_eq!(
            written.trim_end(),
            current,
            "write it anew: `sealane schema > docs/documents.schema.json`"
        );
    }
}
