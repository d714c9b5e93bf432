//! `aileron session`: many rounds without a human between them, through the broker.

mod history;
mod start;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Args, Subcommand};
use protocol::{
    Envelope, Filter, Letter as _, ModelUri, SessionId, Topic,
    message::{Command, SessionCommand, SessionState, SessionStatus},
};
use serde_json::json;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::start::Start;
use crate::{
    operator::{LinkArgs, Operator},
    view::{self, Format},
};

/// How soon a start or a command is said again that nobody answers, and for how long.
const REPEAT: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Retained statuses come one after the other; after so long a silence, those were all.
const QUIET: Duration = Duration::from_millis(500);
/// Sessions that are under way may never be silent for so long; by then, those were all.
const RETAINED_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// Start a session; with --watch, follow it to its end
    Start(Box<Start>),
    /// List the sessions and how they stand
    List {
        #[command(flatten)]
        link: LinkArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Follow a session to its end
    Watch(Which),
    /// Let a session begin no further round
    Stop(Which),
    /// Let a session that was stopped, or has failed, go on
    Resume(Which),
    /// Show what a session has come to, round by round
    History(history::History),
    /// Hand the history of a session to TensorBoard, MLflow or a CSV file
    Export(history::Export),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Id of the session
    id: SessionId,
    #[command(flatten)]
    link: LinkArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Sessions {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::Start(start) => start.format,
            Self::List { format, .. } => *format,
            Self::Watch(which) | Self::Stop(which) | Self::Resume(which) => which.format,
            Self::History(_) | Self::Export(_) => Format::Text,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::on_runtime(async |stop| match self {
            Self::History(history) => history.run(),
            Self::Export(export) => export.run(),
            Self::Start(start) => start.run(&stop).await,
            Self::List { link, format } => list(&link, format).await,
            Self::Watch(which) => {
                let mut operator = connect(&which.link, &which.id).await?;
                let code = watch(&mut operator, &which.id, which.format, None, &stop).await?;
                operator.close().await;
                Ok(code)
            }
            Self::Stop(which) => command(&which, Command::Stop).await,
            Self::Resume(which) => command(&which, Command::Resume).await,
        })
    }
}

impl Start {
    async fn run(self, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
        let start = self.message()?;
        let id = &start.session_id;
        let mut operator = connect(&self.link, id).await?;
        let status = ask(&mut operator, &start.seal(), id, |_| true).await?;
        show(&status, self.format);
        let is_refused = status.state == SessionState::Refused || status.refused.is_some();
        let code = if is_refused {
            ExitCode::FAILURE
        } else if self.watch {
            watch(&mut operator, id, self.format, Some(status), stop).await?
        } else {
            ExitCode::SUCCESS
        };
        operator.close().await;
        Ok(code)
    }
}

async fn connect(link: &LinkArgs, id: &SessionId) -> anyhow::Result<Operator> {
    let topic = Topic::SessionStatus { session: id.clone() };
    link.connect(&[Filter::Exactly(topic)]).await
}

/// What is retained, by session, and what else is said until then.
async fn retained(operator: &mut Operator) -> anyhow::Result<BTreeMap<SessionId, SessionStatus>> {
    let mut found = BTreeMap::new();
    let collect = async {
        while let Ok(status) = time::timeout(QUIET, operator.session_news()).await {
            let status = status?;
            found.insert(status.session_id.clone(), status);
        }
        anyhow::Ok(())
    };
    if let Ok(result) = time::timeout(RETAINED_MAX, collect).await {
        result?;
    }
    Ok(found)
}

/// Says something until the session it concerns speaks after it, in the way that is waited for.
async fn ask(
    operator: &mut Operator,
    envelope: &Envelope,
    id: &SessionId,
    is_answer: impl Fn(&SessionStatus) -> bool,
) -> anyhow::Result<SessionStatus> {
    // What is retained was said before: it is no answer, and comes at once.
    retained(operator).await?;
    let mut again = time::interval(REPEAT);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let answer = async {
        loop {
            tokio::select! {
                _ = again.tick() => operator.say(envelope.clone()),
                status = operator.session_news() => {
                    let status = status?;
                    if status.session_id == *id && is_answer(&status) {
                        return anyhow::Ok(status);
                    }
                }
            }
        }
    };
    let answer = time::timeout(ANSWER_MAX, answer).await;
    answer.unwrap_or_else(|_| {
        bail!("nobody answered for session {id} within {} s", ANSWER_MAX.as_secs())
    })
}

async fn command(which: &Which, command: Command) -> anyhow::Result<ExitCode> {
    let mut operator = connect(&which.link, &which.id).await?;
    let topic = Topic::SessionCommand { session: which.id.clone() };
    let payload = serde_json::to_vec(&SessionCommand { command })?.into();
    // A round that ends just now speaks of the session as it stood before.
    let has_taken = |status: &SessionStatus| match (command, status.state) {
        (Command::Stop, SessionState::Running) => false,
        (Command::Resume, SessionState::Stopped | SessionState::Failed) => false,
        (Command::Stop | Command::Resume, _) => true,
    };
    let envelope = Envelope { topic, payload };
    let status = ask(&mut operator, &envelope, &which.id, has_taken).await?;
    operator.close().await;
    show(&status, which.format);
    Ok(ExitCode::SUCCESS)
}

async fn list(link: &LinkArgs, format: Format) -> anyhow::Result<ExitCode> {
    let mut operator = link.connect(&[Filter::AnySessionStatus]).await?;
    let found = retained(&mut operator).await?;
    operator.close().await;
    match format {
        Format::Json => view::json(&serde_json::to_value(found.values().collect::<Vec<_>>())?),
        Format::Text => view::table(
            &["session", "state", "rounds", "model", "metrics", ""],
            found.values().map(|status| {
                vec![
                    status.session_id.to_string(),
                    status.state.to_string(),
                    format!("{} of {}", status.rounds_done, status.rounds),
                    status.model_uri.as_ref().map_or_else(|| "-".to_owned(), short),
                    metrics(status),
                    status.detail.clone().unwrap_or_default(),
                ]
            }),
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// `last` has been shown already.
async fn watch(
    operator: &mut Operator,
    id: &SessionId,
    format: Format,
    mut last: Option<SessionStatus>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    loop {
        if let Some(code) = last.as_ref().and_then(|status| exit_code(status.state)) {
            return Ok(code);
        }
        let status = tokio::select! {
            () = stop.cancelled() => return Ok(ExitCode::from(130)),
            status = operator.session_news() => status?,
        };
        if status.session_id != *id || last.as_ref() == Some(&status) {
            continue;
        }
        show(&status, format);
        last = Some(status);
    }
}

/// How a session that is over is reported to the shell.
fn exit_code(state: SessionState) -> Option<ExitCode> {
    match state {
        SessionState::Running => None,
        SessionState::Complete => Some(ExitCode::SUCCESS),
        SessionState::Stopped | SessionState::Failed | SessionState::Refused => {
            Some(ExitCode::FAILURE)
        }
    }
}

fn show(status: &SessionStatus, format: Format) {
    match format {
        Format::Json => view::line(json!(status).to_string()),
        Format::Text => view::line(in_words(status)),
    }
}

fn in_words(status: &SessionStatus) -> String {
    let SessionStatus { session_id, state, rounds_done, rounds, .. } = status;
    let model =
        status.model_uri.as_ref().map(|uri| format!("  model {}", short(uri))).unwrap_or_default();
    let best = status.best.as_ref().map(|best| {
        format!("  best {} {:.4} (model {})", best.metric, best.value, best.model_version)
    });
    let refused = status.refused.as_ref().map(|what| format!("  a start was refused: {what}"));
    let detail = status.detail.as_ref().map(|detail| format!("  {detail}"));
    let detail = refused.or(detail);
    format!(
        "{session_id}  {state}  round {rounds_done} of {rounds}{model}  {}{}{}",
        metrics(status),
        best.unwrap_or_default(),
        detail.unwrap_or_default()
    )
}

fn metrics(status: &SessionStatus) -> String {
    let shown: Vec<String> =
        status.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    shown.join(", ")
}

/// A model by its name, or by its number alone where there is only one line.
fn short(uri: &ModelUri) -> String {
    if uri.line.is_default() {
        uri.version.to_string()
    } else {
        format!("{}_v{}", uri.line, uri.version)
    }
}
