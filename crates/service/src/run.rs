//! The life of a process: a runtime, signals, and an exit code.

use std::{error::Error, future::Future, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Enough for a service, and few enough to stay small.
const WORKERS: usize = 2;
/// How long work on blocking threads may still take when the service has ended.
const LEFTOVERS_MAX: Duration = Duration::from_secs(5);
/// Within this time after the first signal a second one is an echo (a shell and a supervisor both
/// pass on one Ctrl-C), not impatience.
const ECHO: Duration = Duration::from_millis(500);
/// What a process exits with that is told twice to stop.
const IMPATIENCE: i32 = 130;

/// Runs `service` to its end: 0 if it ends well, 1 with a log line if it does not. SIGINT and
/// SIGTERM cancel its token; a second signal exits at once with 130.
pub fn run<F, S, E>(service: F) -> ExitCode
where
    F: FnOnce(CancellationToken) -> S,
    S: Future<Output = Result<(), E>>,
    E: Error,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!("cannot start the runtime: {why}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async { service(watch_signals()).await });
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{}", chain(&why));
            ExitCode::FAILURE
        }
    }
}

/// A token that SIGINT and SIGTERM cancel.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn watch_signals() -> CancellationToken {
    let stop = CancellationToken::new();
    // Listened to from here on, not only once the task runs.
    let signals =
        signal(SignalKind::interrupt()).and_then(|i| Ok((i, signal(SignalKind::terminate())?)));
    let (mut interrupts, mut terminations) = match signals {
        Ok(signals) => signals,
        Err(why) => {
            tracing::error!("cannot listen to signals: {why}");
            return stop;
        }
    };
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if told.is_cancelled() {
                tracing::warn!("told twice to stop; stopping at once");
                std::process::exit(IMPATIENCE);
            }
            tracing::info!("told to stop");
            told.cancel();
            let echoes = async {
                loop {
                    tokio::select! {
                        _ = interrupts.recv() => {}
                        _ = terminations.recv() => {}
                    }
                }
            };
            let _: Result<(), _> = tokio::time::timeout(ECHO, echoes).await;
        }
    });
    stop
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        // Some errors repeat their cause in their own words.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}
