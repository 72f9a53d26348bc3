//! What a shell and `man` show of the command line, and what `make install` puts where. No server is asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SLACKWATER: &str = env!("CARGO_BIN_EXE_slackwater");

/// Every command, as `slackwater --help` and the help of `topics` list them.
const COMMANDS: [&str; 17] = [
    "candidates",
    "checks",
    "verify",
    "repair",
    "check",
    "run",
    "capture",
    "apply",
    "status",
    "cutover",
    "grants",
    "resolve",
    "recopy",
    "reset",
    "topics",
    "completions",
    "man",
];
const OF_TOPICS: [&str; 4] = ["plan", "apply", "check", "tail"];

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shell_{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn done(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> BTreeSet<String> {
    // As readline calls it: the line and the place in it in variables, the function as `complete -p` tells it.
    let script = r#"
        set -eu
        source <("$SLACKWATER" completions bash)
        registered=$(complete -p slackwater)
        [[ $registered =~ -F\ ([^ ]+) ]]
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE}
        COMPREPLY=()
        "${BASH_REMATCH[1]}" slackwater "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || true
        for reply in "${COMPREPLY[@]}"; do echo "$reply"; done
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", "slackwater"]).args(words).env("SLACKWATER", SLACKWATER);
    text(done(&mut bash)).lines().map(str::to_owned).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    let first = offered(&[""]);
    assert!(first.is_superset(&set(&COMMANDS)), "{first:?}");
    assert_eq!(offered(&["cut"]), set(&["cutover"]));
    assert_eq!(offered(&["c"]), set(&["candidates", "capture", "check", "checks", "completions", "cutover"]));
    assert!(offered(&["topics", ""]).is_superset(&set(&OF_TOPICS)));
    assert_eq!(offered(&["cutover", "--p"]), set(&["--plan"]));
    assert_eq!(offered(&["topics", "tail", "--d"]), set(&["--documents"]));
    assert_eq!(offered(&["--log-format", ""]), set(&["json", "text"]));
    assert!(offered(&["completions", ""]).is_superset(&set(&["bash", "zsh", "fish"])));
    // Nothing of ours begins like that, so bash goes on to the names of files.
    assert_eq!(offered(&["check", "migr"]), set(&[]));
    let fallback = text(done(
        Command::new("bash")
            .args(["--norc", "-c"])
            .arg(r#"source <("$SLACKWATER" completions bash); complete -p slackwater"#)
            .env("SLACKWATER", SLACKWATER),
    ));
    assert!(fallback.contains("default"), "{fallback}");
}

#[test]
fn other_shells_have_a_script_too() {
    for (shell, begins) in [("zsh", "#compdef slackwater"), ("fish", ""), ("elvish", ""), ("powershell", "")]
    {
        let script = text(done(Command::new(SLACKWATER).args(["completions", shell])));
        assert!(script.starts_with(begins), "{shell}: {script}");
        for command in COMMANDS.iter().chain(&OF_TOPICS) {
            assert!(script.contains(command), "{shell} knows nothing of {command}");
        }
    }
}

/// The names of the pages.
fn pages() -> BTreeSet<String> {
    let of_topics = OF_TOPICS.iter().map(|command| format!("slackwater-topics-{command}.1"));
    let others = COMMANDS.iter().map(|command| format!("slackwater-{command}.1"));
    others.chain(of_topics).chain(["slackwater.1".to_owned()]).collect()
}

fn files(of: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(of).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = folder("man");
    let man = folder.join("man1");
    done(Command::new(SLACKWATER).arg("man").arg(&man));
    assert_eq!(files(&man), pages());
    let whole = std::fs::read_to_string(man.join("slackwater.1")).expect("a page");
    assert_eq!(whole, text(done(Command::new(SLACKWATER).arg("man"))), "without a folder it is printed");
    for command in COMMANDS {
        assert!(whole.contains(&format!("slackwater\\-{command}(1)")), "{command}: {whole}");
    }
    let cutover = std::fs::read_to_string(man.join("slackwater-cutover.1")).expect("a page");
    for word in ["\\-\\-plan", "\\-\\-abort", "\\-\\-report", "FILE", "slackwater cutover migration.yaml"] {
        assert!(cutover.contains(word), "{word}: {cutover}");
    }
    let run = std::fs::read_to_string(man.join("slackwater-run.1")).expect("a page");
    assert!(run.contains("SLACKWATER_LISTEN"), "the variable is named: {run}");
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
}

/// With the program that `man` uses on most systems, where it is there.
#[test]
fn groff_renders_every_page_without_a_complaint() {
    if Command::new("groff").arg("--version").output().is_err() {
        println!("groff is not installed here");
        return;
    }
    let folder = folder("groff");
    done(Command::new(SLACKWATER).arg("man").arg(&folder));
    for page in pages() {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tascii", "-P-cbou", "-ww", "-rLL=100n"]).arg(folder.join(&page));
        let output = done(&mut groff);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.is_empty(), "{page}: {said}");
        let shown = text(output);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"] {
            assert!(shown.lines().any(|line| line == section), "{page} has no {section}:\n{shown}");
        }
        if page == "slackwater.1" {
            // A table of lines, not a paragraph.
            let line = |text: &str| shown.lines().any(|line| line.trim() == text);
            assert!(line("8  the cutover is blocked; nothing was changed"), "{shown}");
        }
    }
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
}

/// All files below a folder, as paths relative to it.
fn below(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                found.insert(path.strip_prefix(root).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn install(root: &Path, prefix: &str, target: &str) -> Output {
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("-C")
        .arg(env!("CARGO_MANIFEST_DIR"))
        .arg(target)
        .arg(format!("DESTDIR={}", root.display()))
        .arg(format!("PREFIX={prefix}"))
        .env("SLACKWATER_BINARY", SLACKWATER)
        .stdin(Stdio::null());
    make.output().expect("make starts")
}

#[test]
fn make_install_puts_files_under_the_prefix_only() {
    let root = folder("install");
    let mut expected: BTreeSet<String> =
        pages().iter().map(|page| format!("opt/slack/share/man/man1/{page}")).collect();
    expected.insert("opt/slack/bin/slackwater".into());
    expected.insert("opt/slack/share/bash-completion/completions/slackwater".into());
    expected.insert("opt/slack/share/zsh/site-functions/_slackwater".into());
    expected.insert("opt/slack/share/fish/vendor_completions.d/slackwater.fish".into());
    // The second one replaces the first.
    for _ in 0..2 {
        let output = install(&root, "/opt/slack", "install");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(below(&root), expected);
    }
    let version = text(done(Command::new(root.join("opt/slack/bin/slackwater")).arg("--version")));
    assert_eq!(version.trim(), concat!("slackwater ", env!("CARGO_PKG_VERSION")));

    let output = install(&root, "/opt/slack", "uninstall");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(below(&root), set(&[]));

    let output = install(&root, "relative", "install");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("absolute"), "{output:?}");
    assert_eq!(below(&root), set(&[]));
    std::fs::remove_dir_all(root).expect("the folder can be removed");
}
