//! Asking for the next round of a session, or the next evaluation of its model.

use protocol::{Letter as _, ModelUri, Output, Timestamp, message::RoundStart};

use crate::{
    Note,
    candidates::Candidates,
    evaluating,
    plan::{self, Plan},
    record,
    session::{Current, Session},
    sessions::{Latest, REPEAT, show},
    turn::Turn,
};

/// Asks for the session's next round, if there is somebody to ask.
pub(crate) fn begin(
    session: &mut Session,
    latest: &Latest,
    candidates: &Candidates,
    turn: &mut Turn,
) {
    let round = session.standing.rounds_done + 1;
    let line = session.start.model_line.clone().unwrap_or_default();
    let Some(base) = session.standing.model.as_ref().or(latest.of(&line)).cloned() else {
        let what = format!("waits for the model server to show its newest model of {line}");
        return wait(session, what, turn);
    };
    let start = match session.leg() {
        Some(leg) => evaluating::start(session, leg, (round - 1, base), candidates, turn.now),
        None => train(session, (round, base), candidates, turn.now),
    };
    match start {
        Ok(start) => ask(session, &start, turn),
        Err(what) => wait(session, what, turn),
    }
}

fn train(
    session: &mut Session,
    (round, base): (u64, ModelUri),
    candidates: &Candidates,
    now: Timestamp,
) -> Result<RoundStart, String> {
    let known = (candidates, &session.shares);
    let plan = plan::plan(&session.start, round, known, &session.standing.outstanding, now)?;
    let Plan { participants, k } = plan;
    let id = session.next_round().ok_or_else(|| "the session's id is too long".to_owned())?;
    session.ask(&participants);
    Ok(session.round_start(id, base, participants.into_iter().collect(), k))
}

fn ask(session: &mut Session, start: &RoundStart, turn: &mut Turn) {
    let (asked, k, round_id) = (start.participants.len(), start.k_of_n, start.round_id.clone());
    let envelope = start.seal();
    session.waits = false;
    session.standing.detail = None;
    session.current = Some(Current {
        round: round_id.clone(),
        start: envelope.payload.clone(),
        asked,
        opened: false,
        repeat_at: turn.now + REPEAT,
    });
    turn.out.extend(record::keep_standing(session).into_iter().map(Output::Keep));
    turn.publish(envelope);
    let session_id = session.start.session_id.clone();
    turn.note(Note::Asked { session: session_id, round: round_id, participants: asked, k });
    show(session, vec![], turn);
}

/// Says once what the session waits for.
fn wait(session: &mut Session, what: String, turn: &mut Turn) {
    session.waits = true;
    if session.standing.detail.as_ref() != Some(&what) {
        session.standing.detail = Some(what.clone());
        turn.note(Note::Waits { session: session.start.session_id.clone(), what });
        show(session, vec![], turn);
    }
}
