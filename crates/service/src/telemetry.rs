//! Logs on stderr, as text or as one JSON object a line.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

/// What is said if nobody asks for anything else.
const DEFAULT: &str = "warn,access=info,aileron=info,agent=info,broker=info,cli=info,\
coordinator=info,fleet=info,http_api=info,lineage=info,manager=info,model_server=info,proplet=info,registrar=info,registry=info,\
round=info,service=info,session=info";

const QUIET: &str = "warn";

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// How a service logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Form of the log lines on stderr; what is logged is chosen by AILERON_LOG
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Begins to log; `AILERON_LOG`, or else `RUST_LOG`, says what, like `debug` or
/// `warn,round=trace`. A second call changes nothing.
pub fn init(format: LogFormat) {
    init_at(format, DEFAULT);
}

/// As [`init`], but only warnings are said if nobody asks for more: for a program that shows its
/// user something else than a log.
pub fn init_quiet() {
    init_at(LogFormat::Text, QUIET);
}

fn init_at(format: LogFormat, unasked: &str) {
    let (filter, bad) = filter(unasked);
    let builder =
        fmt().with_env_filter(filter).with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let begun = match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    if let (Ok(()), Some(why)) = (begun, bad) {
        tracing::warn!("{why}; it takes directives like debug or warn,round=trace");
    }
}

fn filter(unasked: &str) -> (EnvFilter, Option<String>) {
    let asked = ["AILERON_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| (name, text))
    });
    let Some((name, text)) = asked else { return (EnvFilter::new(unasked), None) };
    match EnvFilter::builder().parse(&text) {
        Ok(filter) => (filter, None),
        Err(why) => (EnvFilter::new(unasked), Some(format!("{name} is {text:?}: {why}"))),
    }
}
