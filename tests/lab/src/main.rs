//! `lab`, and by other names the stand-ins of a process node.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::entry::main()
}
