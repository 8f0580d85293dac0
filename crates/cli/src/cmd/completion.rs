//! `berth completion` and `berth man`: what a package installs beside the program.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, ValueEnum};

use super::Context;
use crate::args::Cli;
use crate::error::{CliError, Result};

#[derive(Debug, Args)]
pub struct CompletionArgs {
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn completion(context: &Context, args: &CompletionArgs) -> Result<u8> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let mut script = Vec::new();
    let shells = clap_complete::env::Shells::builtins();
    if let Some(shell) = shells.completer(name) {
        shell
            .write_registration("COMPLETE", "berth", "berth", "berth", &mut script)
            .map_err(CliError::stdout)?;
    }
    context.out.bytes(&script)?;
    Ok(0)
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write berth.1, berth-run.1, ... into
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

pub fn man(args: &ManArgs) -> Result<u8> {
    let failed = |source| CliError::File {
        operation: "write man pages into",
        path: args.folder.clone(),
        source,
    };
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    let mut berth = Cli::command().disable_help_subcommand(true);
    berth.build();
    let commands = berth.get_subcommands().filter(|command| !command.is_hide_set());
    for command in commands.chain([&berth]) {
        let name = command.get_display_name().unwrap_or("berth").to_owned();
        let page = page(command.clone()).map_err(failed)?;
        std::fs::write(args.folder.join(format!("{name}.1")), page).map_err(failed)?;
    }
    Ok(0)
}

fn page(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let (name, is_whole) = (command.get_name().to_owned(), command.has_subcommands());
    let man = clap_mangen::Man::new(command)
        .source(concat!("Berth ", env!("CARGO_PKG_VERSION")))
        .manual("Berth");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if is_whole {
        man.render_subcommands_section(&mut page)?;
        page.extend_from_slice(SURROUNDINGS.as_bytes());
    }
    page.extend_from_slice(b".SH EXIT STATUS\n");
    let all = EXIT_CODES
        .iter()
        .filter(|(_, of, _)| is_whole || of.is_empty() || of.contains(&name.as_str()));
    for (code, of, meaning) in all {
        let of = if is_whole && !of.is_empty() {
            format!("{}: ", of.join(", "))
        } else {
            String::new()
        };
        page.extend_from_slice(format!(".TP\n{code}\n{of}{meaning}\n").as_bytes());
    }
    let others = if is_whole { "berthd(8)" } else { "berth(1), berthd(8)" };
    page.extend_from_slice(format!(".SH SEE ALSO\n{others}\n").as_bytes());
    Ok(page)
}

/// Code, the commands that end with it (all if none is named), meaning.
const EXIT_CODES: &[(&str, &[&str], &str)] = &[
    ("0", &[], "Done."),
    ("1", &[], "Failed; of several containers, one at least."),
    ("2", &[], "Wrong usage."),
    (
        "the process's own",
        FOREGROUND,
        "128 + N if signal N ended it, 255 if nobody saw how it ended.",
    ),
    ("125", &["run", "exec"], "Berth itself failed."),
    ("126", &["run", "exec"], "The command could not be executed."),
    ("127", &["run", "exec"], "The command was not found."),
    ("128 + N", FOREGROUND, "Signal N ended this command."),
    ("141", &[], "Nobody reads the output any more."),
];

const FOREGROUND: &[&str] = &["run", "exec", "attach"];

const SURROUNDINGS: &str = r".SH ENVIRONMENT
.TP
BERTH_ADDRESS
The socket of berthd, as \-\-address.
.TP
BERTH_NAMESPACE
The namespace, as \-\-namespace.
.TP
NO_COLOR
If set, nothing is coloured.
";

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn pages_say_how_a_command_ends() {
        let text = |name: &str| {
            let mut berth = Cli::command().disable_help_subcommand(true);
            berth.build();
            let command = berth.find_subcommand(name).expect("a command").clone();
            String::from_utf8(page(command).expect("a page")).expect("utf-8")
        };
        let (run, stop) = (text("run"), text("stop"));
        assert!(
            run.contains(".SH EXIT STATUS\n.TP\n0\n") && run.contains(".TP\n125\nBerth itself failed.\n"),
            "{run}"
        );
        assert!(
            run.contains(concat!("\"Berth ", env!("CARGO_PKG_VERSION"), "\"")),
            "{run}"
        );
        assert!(!stop.contains("125") && stop.contains("Wrong usage."), "{stop}");
        let whole = String::from_utf8(page(Cli::command()).expect("a page")).expect("utf-8");
        assert!(
            whole.contains("BERTH_ADDRESS\n") && whole.contains("run, exec: Berth itself failed."),
            "{whole}"
        );
    }
}
