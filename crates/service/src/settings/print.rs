//! Effective settings as a TOML file that says where each came from.

use clap::{Arg, ArgMatches, Command, parser::ValueSource};

use super::{
    Place,
    sources::{Sources, is_secret, settings},
};

/// The file: valid TOML that gives the same settings again, but for secrets.
pub(super) fn effective(command: &Command, matches: &ArgMatches, sources: &Sources) -> String {
    let mut out = format!("[{}]\n", command.get_name());
    for arg in settings(command) {
        out.push_str(&line(arg, matches, sources));
        out.push('\n');
    }
    out
}

fn line(arg: &Arg, matches: &ArgMatches, sources: &Sources) -> String {
    let id = arg.get_id().as_str();
    let Some(raw) = matches.get_raw(id) else { return format!("# {id} is not set") };
    let texts: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    let origin = match (sources.places.get(id), matches.value_source(id)) {
        (Some(Place::Variable(name)), _) => format!("from {name}"),
        (Some(Place::Key { path, .. }), _) => format!("from {}", path.display()),
        (Some(Place::Flag(flag)), _) => format!("from --{flag}"),
        (None, Some(ValueSource::CommandLine)) => {
            format!("from --{}", arg.get_long().unwrap_or(id))
        }
        (None, _) => "default".to_owned(),
    };
    if is_secret(id) {
        return format!("# {id} = \"***\" # {origin}; secret");
    }
    let value = if matches!(arg.get_action(), clap::ArgAction::Append) {
        toml::Value::Array(texts.iter().map(|text| scalar(text)).collect())
    } else {
        scalar(&texts.concat())
    };
    // A path may hold a line break, which must not end the comment.
    format!("{id} = {value} # {}", origin.replace(['\n', '\r'], " "))
}

/// The TOML type whose text is exactly this one.
fn scalar(text: &str) -> toml::Value {
    let boolean = text.parse().map(toml::Value::Boolean).ok();
    let integer = text.parse::<i64>().ok().filter(|n| n.to_string() == text).map(Into::into);
    let float = text.parse::<f64>().ok().filter(|n| n.is_finite() && format!("{n:?}") == text);
    boolean
        .or(integer)
        .or_else(|| float.map(toml::Value::Float))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}
