//! The program's own log, on stderr: quiet unless asked. What users read goes through the printer.

use tracing_subscriber::EnvFilter;

/// Starts the log. `RUST_LOG` outranks the flag.
pub fn init(verbose: u8) {
    let default = match verbose {
        0 => "off",
        1 => "control=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A second subscriber is refused; the first one then goes on.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
