//! `slackwater`: see `slackwater --help`.

fn main() -> std::process::ExitCode {
    slackwater::main()
}
