//! `slackwater completions` and `slackwater man`: what shells and manuals tell of the command line, made from its own definitions.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::exit;

/// Prints the completion script of a shell.
pub(super) fn completions(shell: Shell, mut command: Command) -> ExitCode {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the page of the whole program, or writes the pages of all commands into a folder.
pub(super) fn manual(folder: Option<&Path>, command: Command) -> ExitCode {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let Some(folder) = folder else {
        return print(&page(&command).1);
    };
    let mut pages = Vec::new();
    collect(&command, &mut pages);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        pages.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
    };
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            exit::unexpected(&format!("writing the manual pages into {}", folder.display()), &error)
        }
    }
}

/// The pages of a command and of all below it.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    pages.push(page(command));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, pages);
    }
}

/// The name of a command's page, and its text.
fn page(command: &Command) -> (String, Vec<u8>) {
    let man = Man::new(command.clone())
        // An empty date would be left out, and the next word would take its place.
        .date(" ")
        .source(concat!("slackwater ", env!("CARGO_PKG_VERSION")))
        .manual("slackwater");
    let mut text = Vec::new();
    let rendered = man
        .render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text))
        .and_then(|()| match command.has_subcommands() {
            true => man.render_subcommands_section(&mut text),
            false => Ok(()),
        })
        .and_then(|()| notes(command).to_writer(&mut text));
    debug_assert!(rendered.is_ok(), "a vector takes everything");
    (man.get_filename(), text)
}

/// Examples and exit codes. Each line stays a line: clap_mangen's own section would join them.
fn notes(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let Some(after) = command.get_after_help() else { return roff };
    roff.control("SH", ["NOTES"]);
    let mut within = false;
    for line in after.to_string().lines() {
        if line.is_empty() {
            roff.control("PP", []);
        } else {
            // A line that begins with a space is a line of its own anyway.
            if within && !line.starts_with(' ') {
                roff.control("br", []);
            }
            roff.text([roman(line)]);
        }
        within = !line.is_empty();
    }
    roff
}

fn print(text: &[u8]) -> ExitCode {
    // If stdout is closed, nobody needs the answer.
    let _ = std::io::stdout().lock().write_all(text);
    ExitCode::SUCCESS
}
