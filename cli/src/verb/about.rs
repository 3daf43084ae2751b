//! `sealane schema`, `completions` and `man`: what this program says of itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use sealane_proto::document::schema as schema_of;

use crate::args::{Cli, Completions, Man, Schema};
use crate::failure::Failure;
use crate::printer::Printer;

/// `sealane schema`.
pub(crate) fn schema(schema: &Schema, printer: &Printer) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(&schema_of(schema.kind)).map_err(Failure::of("cannot write JSON"))?;
    printer.text(&text)
}

/// `sealane completions`.
pub(crate) fn completions(completions: &Completions, printer: &Printer) -> Result<(), Failure> {
    let mut script = vec![];
    clap_complete::generate(completions.shell, &mut Cli::command(), "sealane", &mut script);
    printer.text(&String::from_utf8_lossy(&script))
}

/// `sealane man`: a page per verb.
pub(crate) fn man(man: &Man, printer: &Printer) -> Result<(), Failure> {
    let folder = &man.out;
    let failed = |error: io::Error| Failure::new(format!("cannot write to {}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut command = Cli::command().disable_help_subcommand(true);
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
    let page = clap_mangen::Man::new(command.clone().disable_help_flag(false)).manual("Sealane");
    let mut text = vec![];
    page.render(&mut text)?;
    fs::File::create(folder.join(page.get_filename()))?.write_all(&text)?;
    Ok(written + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
