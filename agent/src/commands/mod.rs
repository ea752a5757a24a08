//! One verb a file. Data goes to standard output, through [`print()`]; everything else to the log.

mod check_image;
mod diagnose;
mod explain;
mod logging;
mod screen;
mod status;

use std::io::{self, Write as _};
use std::process::ExitCode;

use agent::host::{Root, memory};
use agent::{gpu, pipeline};
use contract::ErrorChain;
use tokio::runtime::Builder;

use crate::cli::{Cli, Command};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let root = Root::new(cli.root);
    match cli.command {
        // No runtime and no log: this process may hang in the driver, and is then abandoned.
        Command::ProbeGpus(args) => gpu::probe::helper_main(&root, args.follow),
        // No runtime here either.
        Command::Canary => {
            logging::start(&root);
            gpu::canary::serve(&root)
        }
        Command::Diagnose(args) => diagnose::run(root, &args),
        Command::Status(args) => status::run(&root, args.output),
        Command::CheckImage(args) => check_image::run(&root, args.output),
        Command::Explain(args) => explain::run(args.reason.as_deref()),
        Command::CrashPoints => {
            for point in pipeline::points::Point::all() {
                print(&format!("{point}\n"));
            }
            ExitCode::SUCCESS
        }
        Command::Join(args) => {
            logging::start(&root);
            memory::keep_private(&root);
            serve(pipeline::run(root, args.die_at))
        }
        Command::ResetGpu => {
            logging::start(&root);
            serve(async move { gpu::reset::serve(&root).await })
        }
        Command::Watch(args) => {
            logging::start(&root);
            memory::keep_private(&root);
            let options = agent::watch::WatchOptions { root, listen: args.listen };
            serve(agent::watch::run(options))
        }
    }
}

/// Runs a service to its end.
fn serve<E: std::error::Error + 'static>(service: impl Future<Output = Result<(), E>>) -> ExitCode {
    match block_on(service) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            tracing::error!(error = %ErrorChain(&error), "ended");
            contract::ExitCode::Error.into()
        }
        Err(error) => {
            tracing::error!(%error, "could not start");
            contract::ExitCode::Error.into()
        }
    }
}

/// Runs something to its end on a runtime of one thread.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // A call that hangs in a thread of the runtime, a name that does not resolve, must not hold us.
    runtime.shutdown_background();
    Ok(ended)
}

/// Prints data on standard output. A reader that has gone away is no error of ours.
fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Tells the user, on standard error, why there is no data.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
