//! tmp
fn main() -> std::process::ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    match service::settings::resolve::<manager::ManagerSettings>(&words, &service::settings::Environment::default()) {
        Ok(service::settings::Resolved::Run(s)) => { service::telemetry::init(s.log.log_format); service::run::run(|stop| manager::run(s, stop)) }
        Ok(service::settings::Resolved::Print(t)) => { use std::io::Write; let _ = std::io::stdout().write_all(t.as_bytes()); std::process::ExitCode::SUCCESS }
        Err(e) => { use std::io::Write; let _ = writeln!(std::io::stderr(), "error: {e}"); std::process::ExitCode::from(64) }
    }
}
