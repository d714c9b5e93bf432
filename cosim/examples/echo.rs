//! A node that sends every event back, after a delay that its settings give: `delay_us`, else at once.

use std::process::ExitCode;

use cosim::{
    node::{self, Agenda, Service, Start, Step, Window},
    wire::Event,
};

#[derive(Default)]
struct Echo {
    delay_us: u64,
    agenda: Agenda,
}

impl Service for Echo {
    fn init(&mut self, start: Start) -> Result<(), String> {
        if let Some(delay_us) = start.config.get("delay_us") {
            self.delay_us =
                delay_us.as_u64().ok_or(format!("delay_us {delay_us} is no duration"))?;
        }
        Ok(())
    }

    fn advance(&mut self, window: Window) -> Result<Step, String> {
        for event in window.events {
            let at_us = event.time_us.unwrap_or(window.from_us).saturating_add(self.delay_us);
            let kind = "echo".to_owned();
            self.agenda.put(at_us, Event { kind, src: None, dst: event.src, ..event });
        }
        let events = self.agenda.take_until(window.to_us);
        Ok(Step { events, next_us: Some(self.agenda.next_us()) })
    }
}

fn main() -> ExitCode {
    match node::run(Echo::default()) {
        Ok(()) => ExitCode::SUCCESS,
        // The harness has been told why.
        Err(_) => ExitCode::FAILURE,
    }
}
