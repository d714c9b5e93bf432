//! Scenario files: YAML in, a [`Scenario`] out, or everything that is wrong with it at once.
//!
//! Each entry is read on its own, so that one mistake does not hide the next. A mistake names
//! line and column, and for a misspelt key the nearest one that is known. Files of xEdgeSim are
//! read as well, with a note on how each part is taken.

mod fidelity;
mod legacy;
mod nearest;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};
use sim::{Problem, Scenario};

use nearest::suggestion;

pub use schema::schema;

/// Sections whose entries are read one by one.
const LISTS: &[&str] = &["nodes", "rounds", "sessions", "faults", "assertions"];
/// Sections that are one entry each.
const PARTS: &[&str] = &["name", "description", "simulation", "platform", "network", "devices"];

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// From 1; 0 if the mistake has no one place.
    pub line: u64,
    pub column: u64,
    /// Where in the scenario, as `nodes[2]`.
    pub path: String,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// What a scenario may name that stands elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Device classes beside the scenario's own.
    pub classes: BTreeSet<String>,
    /// How tasks can be run.
    pub fidelities: Vec<String>,
}

/// A scenario out of its file.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub scenario: Scenario,
    /// How the parts of a file in the other format were taken.
    pub notes: Vec<String>,
    /// Files that it names beside those in the scenario, with what they are for.
    pub files: Vec<(String, String)>,
}

type Sections = BTreeMap<String, Spanned<Value>>;

/// Reads and checks a scenario.
pub fn read(text: &str, known: &Known) -> Result<Loaded, Vec<Mistake>> {
    let sections: Sections = serde_saphyr::from_str(text).map_err(|why| vec![syntax(&why)])?;
    let lists: Lists = serde_saphyr::from_str(text).map_err(|why| vec![syntax(&why)])?;
    let mut reading = Reading { text, mistakes: vec![], places: BTreeMap::new() };
    let loaded = if legacy::is_legacy(&sections, &lists.nodes) {
        reading.legacy(&sections, &lists)
    } else {
        reading.own(&sections, &lists)
    };
    if let Some(loaded) = &loaded {
        reading.judge(&loaded.scenario, known);
    }
    reading.mistakes.sort();
    match loaded {
        Some(loaded) if reading.mistakes.is_empty() => Ok(loaded),
        Some(_) | None => Err(reading.mistakes),
    }
}

#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    nodes: Vec<Spanned<Value>>,
    #[serde(default)]
    rounds: Vec<Spanned<Value>>,
    #[serde(default)]
    sessions: Vec<Spanned<Value>>,
    #[serde(default)]
    faults: Vec<Spanned<Value>>,
    #[serde(default)]
    assertions: Vec<Spanned<Value>>,
}

struct Reading<'a> {
    text: &'a str,
    mistakes: Vec<Mistake>,
    /// Line and column of each entry, by its path.
    places: BTreeMap<String, (u64, u64)>,
}

impl Reading<'_> {
    fn own(&mut self, sections: &Sections, lists: &Lists) -> Option<Loaded> {
        for (name, section) in sections {
            self.section(name, section);
        }
        self.list("nodes", &lists.nodes, is::<sim::NodeSpec>);
        self.list("rounds", &lists.rounds, is::<sim::RoundSpec>);
        self.list("sessions", &lists.sessions, is::<sim::SessionSpec>);
        self.list("faults", &lists.faults, is::<sim::Fault>);
        self.list("assertions", &lists.assertions, is::<String>);
        let scenario = self.whole()?;
        Some(Loaded { scenario, ..Loaded::default() })
    }

    fn legacy(&mut self, sections: &Sections, lists: &Lists) -> Option<Loaded> {
        for (name, section) in sections {
            self.place(name, section, legacy::section(name, &section.value));
        }
        self.list("nodes", &lists.nodes, is::<legacy::Node>);
        if !self.mistakes.is_empty() {
            return None;
        }
        let converted = legacy::convert(sections);
        match converted {
            Ok(loaded) => Some(loaded),
            Err(problems) => {
                problems.into_iter().for_each(|problem| self.problem(problem));
                None
            }
        }
    }

    /// The whole file, if nothing is wrong with its parts.
    fn whole<T: DeserializeOwned>(&mut self) -> Option<T> {
        if !self.mistakes.is_empty() {
            return None;
        }
        match serde_saphyr::from_str(self.text) {
            Ok(whole) => Some(whole),
            Err(why) => {
                self.mistakes.push(syntax(&why));
                None
            }
        }
    }

    fn section(&mut self, name: &str, section: &Spanned<Value>) {
        let read = match name {
            "simulation" => is::<sim::Simulation>(&section.value),
            "platform" => is::<sim::PlatformSpec>(&section.value),
            "network" => is::<sim::NetworkSpec>(&section.value),
            "devices" => is::<BTreeMap<String, sim::Device>>(&section.value),
            "name" | "description" => is::<String>(&section.value),
            list if LISTS.contains(&list) => match section.value {
                Value::Array(_) | Value::Null => Ok(()),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                    Err("takes a list".to_owned())
                }
            },
            unknown => {
                let known = PARTS.iter().chain(LISTS).copied();
                let hint = suggestion(unknown, known);
                Err(format!("there is no section {unknown:?}{hint}"))
            }
        };
        self.place(name, section, read);
    }

    /// Remembers where a section stands, and what is wrong with it.
    fn place(&mut self, name: &str, section: &Spanned<Value>, read: Result<(), String>) {
        let at = place(&section.referenced);
        self.places.insert(name.to_owned(), at);
        if let Err(what) = read {
            self.mistake(name.to_owned(), at, &what);
        }
    }

    fn list(
        &mut self,
        name: &str,
        entries: &[Spanned<Value>],
        read: fn(&Value) -> Result<(), String>,
    ) {
        for (number, entry) in entries.iter().enumerate() {
            let path = format!("{name}[{number}]");
            let at = place(&entry.referenced);
            self.places.insert(path.clone(), at);
            if let Err(what) = read(&entry.value) {
                self.mistake(path, at, &what);
            }
        }
    }

    /// What is wrong with a scenario that can be read.
    fn judge(&mut self, scenario: &Scenario, known: &Known) {
        let problems = scenario.problems(&known.classes);
        let fidelities = fidelity::problems(scenario, &known.fidelities);
        for problem in problems.into_iter().chain(fidelities) {
            self.problem(problem);
        }
    }

    fn problem(&mut self, problem: Problem) {
        let place = self.places.iter().rev().find(|(path, _)| {
            problem.path.strip_prefix(path.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
            })
        });
        let at = place.map_or((0, 0), |(_, at)| *at);
        self.mistake(problem.path, at, &problem.what);
    }

    /// Serde's words, with the nearest known key, at the line of the key that they name.
    fn mistake(&mut self, path: String, at: (u64, u64), what: &str) {
        let (mut line, mut column) = at;
        let mut what = what.to_owned();
        if let Some((unknown, known)) = unknown_key(&what) {
            what.push_str(&suggestion(&unknown, known.iter().map(String::as_str)));
            if let Some((found, indent)) = self.find_key(line, &unknown) {
                (line, column) = (found, indent);
            }
        }
        self.mistakes.push(Mistake { line, column, path, what });
    }

    fn find_key(&self, from: u64, key: &str) -> Option<(u64, u64)> {
        let skip = usize::try_from(from.saturating_sub(1)).ok()?;
        let lines = self.text.lines().enumerate().skip(skip);
        lines
            .filter_map(|(number, line)| {
                let at = line.find(&format!("{key}:"))?;
                let before = line[..at].chars().all(|c| matches!(c, ' ' | '-' | '{' | ',' | '"'));
                (before || line[..at].ends_with(['{', ' ', ','])).then_some((number, at))
            })
            .map(|(number, at)| (number as u64 + 1, at as u64 + 1))
            .next()
    }
}

fn is<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    serde_json::from_value::<T>(value.clone()).map(drop).map_err(|why| why.to_string())
}

fn place(location: &Location) -> (u64, u64) {
    (location.line(), location.column())
}

fn syntax(why: &serde_saphyr::Error) -> Mistake {
    let (line, column) = why.location().as_ref().map_or((0, 0), place);
    let what = why.without_snippet().to_string();
    Mistake { line, column, path: String::new(), what }
}

/// The key and the known ones out of serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_key(what: &str) -> Option<(String, Vec<String>)> {
    let rest =
        what.strip_prefix("unknown field `").or_else(|| what.strip_prefix("unknown variant `"))?;
    let (unknown, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown.to_owned(), known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let classes = ["pi-4", "x86"].map(str::to_owned).into();
        Known { classes, fidelities: vec!["model".to_owned()] }
    }

    #[test]
    fn everything_wrong_is_said_at_once_with_its_place() {
        let text = "\
simulation:
  seeed: 3
nodes:
  - id: a
    devise: pi-4
  - id: 'b/c'
rouns: []
rounds:
  - id: r
    k_of_n: many
";
        let mistakes = read(text, &known()).unwrap_err();
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 4, "{said:#?}");
        assert!(said[0].starts_with("2:3: simulation: unknown field `seeed`"), "{}", said[0]);
        assert!(said[0].ends_with("did you mean `seed`?"), "{}", said[0]);
        assert!(said[1].starts_with("5:5: nodes[0]: unknown field `devise`"), "{}", said[1]);
        assert!(said[1].ends_with("did you mean `device`?"), "{}", said[1]);
        assert!(said[2].starts_with("7:") && said[2].contains("rouns"), "{}", said[2]);
        assert!(said[3].starts_with("9:") && said[3].contains("rounds[0]"), "{}", said[3]);
    }

    #[test]
    fn what_can_be_read_is_judged() {
        let text = "nodes:\n  - id: a\n    device: pi-5\n";
        let mistakes = read(text, &known()).unwrap_err();
        assert!(mistakes[0].to_string().starts_with("2:5: nodes[0].device"), "{}", mistakes[0]);
        assert!(read("nodes:\n  - id: a\n    device: pi-4\n", &known()).is_ok());
    }

    #[test]
    fn what_is_not_yaml_is_told_where() {
        let mistakes = read("nodes: [\n", &known()).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].line > 0, "{}", mistakes[0]);
    }
}
