//! The house rules, as tests: each failure says where, and what to do about it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Who may import whom. A package that is not listed may not exist.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("access", &["protocol"]),
    ("aggregate", &[]),
    ("encoding", &["protocol"]),
    ("transfer", &["protocol"]),
    ("modelfile", &["protocol"]),
    ("registry", &["protocol"]),
    ("round", &["protocol", "aggregate", "encoding", "transfer"]),
    ("fleet", &["protocol", "transfer"]),
    ("agent", &["protocol", "encoding", "transfer"]),
    ("lineage", &["protocol", "transfer"]),
    ("session", &["protocol"]),
    ("service", &["protocol", "transfer"]),
    ("http-api", &["protocol", "access", "service"]),
    ("sim", &["protocol", "round", "fleet", "agent", "lineage", "session", "aggregate"]),
    ("manager", &["access", "protocol", "transfer", "registry", "fleet", "service", "http-api"]),
    ("coordinator", COORDINATOR_MAY_IMPORT),
    ("model-server", &["protocol", "transfer", "lineage", "modelfile", "service", "http-api"]),
    ("proplet", PROPLET_MAY_IMPORT),
    ("device", &["proplet", "service"]),
    ("registrar", &["access", "protocol", "service", "http-api"]),
    ("cosim", &["protocol", "sim"]),
    ("guest", &[]),
    ("client-wasm", &["guest"]),
    ("broker", &[]),
    ("cli", CLI_MAY_IMPORT),
    ("e2e", &["protocol"]),
    ("xtask", &[]),
];

const COORDINATOR_MAY_IMPORT: &[&str] = &[
    "access",
    "protocol",
    "transfer",
    "encoding",
    "round",
    "session",
    "aggregate",
    "service",
    "http-api",
];

const PROPLET_MAY_IMPORT: &[&str] =
    &["access", "protocol", "transfer", "encoding", "registry", "agent", "service", "http-api"];

/// Everything that runs, and what it takes to speak to it.
const CLI_MAY_IMPORT: &[&str] = &[
    "access",
    "protocol",
    "modelfile",
    "registry",
    "service",
    "manager",
    "coordinator",
    "model-server",
    "proplet",
    "registrar",
    "client-wasm",
    "broker",
    "cosim",
    "sim",
    "agent",
    "aggregate",
    "round",
];

/// An outside crate has few owners: who may depend on it, and who may for its tests only.
const OWNERS: &[(&str, &[&str], &[&str])] = &[
    ("rumqttc", &["service", "e2e"], &["broker"]),
    ("mqtt5", &["broker"], &[]),
    ("rumqttd", &["broker"], &[]),
    ("wasmtime", &["proplet"], &[]),
    ("wide", &["client-wasm"], &[]),
    ("wasmtime-wasi", &["proplet"], &[]),
    ("cranelift-codegen", &["proplet"], &[]),
    ("axum", &["http-api", "manager", "coordinator", "registrar"], &[]),
    ("prometheus-client", &["service"], &[]),
    ("opentelemetry", &["service"], &[]),
    ("opentelemetry-http", &["service"], &[]),
    ("opentelemetry-otlp", &["service"], &[]),
    ("opentelemetry_sdk", &["service"], &[]),
    ("rusqlite", &["service"], &[]),
    ("oci-client", &["registry"], &[]),
    ("reqwest", &["registry"], &[]),
    ("rcgen", &["access"], &[]),
    ("ring", &["access"], &[]),
    ("x509-parser", &["access"], &[]),
    ("zip", &["modelfile"], &[]),
    (
        "clap",
        &[
            "cli",
            "service",
            "http-api",
            "registry",
            "manager",
            "coordinator",
            "model-server",
            "proplet",
            "registrar",
        ],
        &[],
    ),
    ("anyhow", &["cli", "xtask", "e2e"], &[]),
];

/// Within its owner, an outside crate is named in one place: sources, word, and that place.
const ROOMS: &[(&str, &str, &str)] = &[
    ("crates/service/src/", "rumqttc", "crates/service/src/transport/"),
    ("crates/service/src/", "prometheus_client", "crates/service/src/figures"),
    ("crates/service/src/", "opentelemetry", "crates/service/src/traces"),
    ("crates/service/src/", "opentelemetry_sdk", "crates/service/src/traces"),
    ("proplet/src/", "wasmtime", "proplet/src/executor/"),
];

/// Crates that decide and never do: no clock, no socket, no file, no task, no thread-local dice.
const CORES: &[&str] = &[
    "protocol",
    "aggregate",
    "encoding",
    "transfer",
    "modelfile",
    "round",
    "fleet",
    "agent",
    "lineage",
    "session",
];

const FORBIDDEN_IN_CORES: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
];

/// How a topic looks in a string literal.
const TOPIC_STARTS: &[&str] = &["\"fl/", "\"fml/", "\"m/{"];

/// Where topics may be spelled: where they are defined, tested, and seen from outside.
const TOPIC_PLACES: &[&str] = &[
    "crates/protocol/src/topic.rs",
    "crates/protocol/src/topic/",
    "crates/protocol/tests/",
    "e2e/",
    "xtask/tests/tidy.rs",
];

/// Paths that exist on one developer's machine only. Split, so that this file does not hold them.
const HOME_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
];

const FILE_LINES_MAX: usize = 400;
const ARCHITECTURE_LINES_MAX: usize = 250;

#[test]
fn packages_import_only_what_the_map_allows() {
    let mut wrong = vec![];
    for (package, manifest) in manifests() {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == package) else {
            wrong.push(format!("{package} is not on the map: add a line to MAY_IMPORT"));
            continue;
        };
        for dependency in &manifest.dependencies {
            let ours = MAY_IMPORT.iter().any(|(name, _)| name == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!(
                    "{package} imports {dependency}: it may import {allowed:?} only; meet on a \
                     topic, or move what is shared down into protocol"
                ));
            }
        }
    }
    none(&wrong);
}

#[test]
fn outside_crates_stay_with_their_owners() {
    let mut wrong = vec![];
    for (package, manifest) in manifests() {
        for (outside, owners, testers) in OWNERS {
            let owner = owners.contains(&&*package);
            let tester = owner || testers.contains(&&*package);
            let names = |list: &[String]| list.iter().any(|name| name == outside);
            if names(&manifest.dependencies) && !owner {
                wrong.push(format!("{package} depends on {outside}: only {owners:?} may"));
            }
            if names(&manifest.dev_dependencies) && !tester {
                wrong.push(format!(
                    "{package} tests with {outside}: only {owners:?} and {testers:?} may"
                ));
            }
        }
    }
    none(&wrong);
}

#[test]
fn outside_crates_are_named_in_one_room() {
    let mut wrong = vec![];
    for (path, text) in sources() {
        for (house, word, room) in ROOMS {
            if path.starts_with(house) && !path.starts_with(room) {
                let why = format!("is named outside {room}: hide it behind a type of ours there");
                mentions(&path, &text, word, &why, &mut wrong);
            }
        }
    }
    none(&wrong);
}

#[test]
fn cores_do_not_touch_the_world() {
    let mut wrong = vec![];
    for (path, text) in sources() {
        if CORES.iter().any(|core| path.starts_with(&format!("crates/{core}/src/"))) {
            for word in FORBIDDEN_IN_CORES {
                let why = "is not for a core: take it as an input, or answer with an effect";
                mentions(&path, &text, word, why, &mut wrong);
            }
        }
    }
    none(&wrong);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut wrong = vec![];
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not begin with `//!` and what it is for"));
        }
        let lines = production(&text).lines().count();
        if lines > FILE_LINES_MAX && !is_test(&path) {
            wrong.push(format!(
                "{path} has {lines} lines without its tests, at most {FILE_LINES_MAX}: split it \
                 where a newcomer would look for the parts"
            ));
        }
    }
    none(&wrong);
}

#[test]
fn topics_are_spelled_in_one_place() {
    let mut wrong = vec![];
    for (path, text) in sources() {
        if !TOPIC_PLACES.iter().any(|place| path.starts_with(place)) {
            for start in TOPIC_STARTS {
                let why = "spells a topic: render it from protocol::Topic";
                mentions(&path, &text, start, why, &mut wrong);
            }
        }
    }
    none(&wrong);
}

#[test]
fn lints_are_switched_off_with_a_reason() {
    let mut wrong = vec![];
    for (path, text) in sources() {
        for attribute in ["[allow(", "[expect("] {
            for (at, _) in text.match_indices(&format!("#{attribute}")) {
                unreasoned(&path, &text, at, &mut wrong);
            }
            for (at, _) in text.match_indices(&format!("#!{attribute}")) {
                unreasoned(&path, &text, at, &mut wrong);
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_package_keeps_the_shared_lints() {
    let mut wrong = vec![];
    for (package, manifest) in manifests() {
        if !manifest.shares_lints {
            wrong.push(format!("{package}/Cargo.toml lacks `[lints]` with `workspace = true`"));
        }
    }
    none(&wrong);
}

#[test]
fn nothing_names_a_place_on_one_machine() {
    let mut wrong = vec![];
    for (path, text) in texts() {
        for (index, line) in text.lines().enumerate() {
            // A board has its own, which is the same on every one.
            if path.starts_with("e2e/tests/boards/") {
                continue;
            }
            for place in HOME_PATHS.iter().filter(|place| line.contains(**place)) {
                wrong.push(format!(
                    "{path}, line {}: names {place}...; say it relative to the project",
                    index + 1
                ));
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_decision_is_linked_from_its_index() {
    let Ok(index) = fs::read_to_string(root().join("docs/decisions/README.md")) else { return };
    let mut wrong = vec![];
    for (path, _) in texts() {
        let Some(name) = path.strip_prefix("docs/decisions/") else { continue };
        if name != "README.md" && !index.contains(&format!("({name})")) {
            wrong.push(format!("{path} is not linked from docs/decisions/README.md: add a line"));
        }
    }
    none(&wrong);
}

#[test]
fn the_map_stays_readable() {
    let Ok(map) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let lines = map.lines().count();
    let most = ARCHITECTURE_LINES_MAX;
    assert!(lines <= most, "ARCHITECTURE.md has {lines} lines, at most {most}: link to docs/");
}

#[test]
fn every_hostile_guest_says_what_must_come_of_it() {
    let guests: Vec<_> = texts()
        .into_iter()
        .filter(|(path, _)| path.starts_with("client-wasm/hostile/") && path.ends_with(".wat"))
        .collect();
    assert!(!guests.is_empty(), "client-wasm/hostile holds no guests");
    for (path, text) in guests {
        let head: String = text.lines().take_while(|line| line.starts_with(";;")).collect();
        assert!(head.contains("Must come of it: "), "{path} does not say what must come of it");
    }
}

/// A rule that finds nothing in a wrong text is no rule.
#[test]
fn the_rules_see_what_they_are_for() {
    let manifest = Manifest::parse(
        "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n\
         b = { workspace = true, optional = true }\nc-d = \"1\" # why\n# e = \"1\"\n\
         [dependencies.f]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\ng = \"1\"\n\
         [dev-dependencies]\nh.workspace = true\n[build-dependencies]\ni = \"1\"\n\
         [lints]\nworkspace = true\n",
    );
    assert_eq!(manifest.dependencies, ["a", "b", "c-d", "f", "g", "i"]);
    assert_eq!(manifest.dev_dependencies, ["h"]);
    assert!(manifest.shares_lints);
    assert!(!Manifest::parse("[lints.rust]\n[dependencies]\nworkspace = true\n").shares_lints);

    let mut found = vec![];
    let text = "//! tokio\n// tokio\nlet url = \"http://tokio\";\nuse tokio; // tokio\n";
    mentions("x.rs", text, "tokio", "no", &mut found);
    assert_eq!(found.len(), 2, "{found:?}");
    mentions("x.rs", "use mytokio::x; use wasmtime_wasi::y;", "tokio", "no", &mut found);
    assert_eq!(found.len(), 2, "only whole words count: {found:?}");
    mentions("x.rs", "let topic = b\"fl/x\";", TOPIC_STARTS[0], "no", &mut found);
    assert_eq!(found.len(), 3, "a byte string can spell a topic: {found:?}");

    let mut found = vec![];
    let allow = ["#[", "allow("].concat();
    unreasoned("x.rs", &format!("{allow}dead_code)]"), 0, &mut found);
    unreasoned("x.rs", &format!("{allow}\n dead_code,\n reason = \"why\"\n)]"), 0, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(production("a\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
}

#[derive(Default)]
struct Manifest {
    dependencies: Vec<String>,
    dev_dependencies: Vec<String>,
    shares_lints: bool,
}

impl Manifest {
    fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        let mut section = String::new();
        for line in text.lines().map(|line| line.split('#').next().unwrap().trim()) {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_matches(['[', ']']).to_owned();
                // `[dependencies.name]` is a dependency by its header.
                if let Some((table, name)) = section.rsplit_once('.')
                    && let Some(list) = manifest.list(table)
                {
                    list.push(name.to_owned());
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let name = key.trim().split('.').next().unwrap().trim_matches('"').to_owned();
                manifest.shares_lints |=
                    section == "lints" && name == "workspace" && value.trim() == "true";
                if let Some(list) = manifest.list(&section) {
                    list.push(name);
                }
            }
        }
        manifest
    }

    fn list(&mut self, section: &str) -> Option<&mut Vec<String>> {
        match section.rsplit('.').next()? {
            "dependencies" | "build-dependencies" => Some(&mut self.dependencies),
            "dev-dependencies" => Some(&mut self.dev_dependencies),
            _ => None,
        }
    }
}

/// Every package below the root, by the name of its directory.
fn manifests() -> BTreeMap<String, Manifest> {
    let manifests: BTreeMap<_, _> = texts()
        .into_iter()
        .filter_map(|(path, text)| {
            let package = path.strip_suffix("/Cargo.toml")?.rsplit('/').next()?.to_owned();
            Some((package, Manifest::parse(&text)))
        })
        .collect();
    assert!(!manifests.is_empty(), "no packages found below {}", root().display());
    manifests
}

/// Every Rust file, by its path from the root.
fn sources() -> Vec<(String, String)> {
    texts().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// Every text file, by its path from the root; hidden and built ones aside.
fn texts() -> Vec<(String, String)> {
    let mut paths = vec![];
    collect(&root(), &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    // What is no UTF-8 is no text: data and pictures.
    paths.iter().filter_map(|path| Some((relative(path), fs::read_to_string(path).ok()?))).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

/// Notes each line of code that holds a word; comments may speak of anything.
fn mentions(path: &str, text: &str, word: &str, why: &str, wrong: &mut Vec<String>) {
    for (index, line) in text.lines().enumerate() {
        let code = code(line);
        let whole = code.match_indices(word).any(|(at, _)| {
            let before = code[..at].chars().next_back().filter(|_| is_name(word));
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
        });
        if whole {
            wrong.push(format!("{path}, line {}: {word} {why}", index + 1));
        }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphanumeric())
}

/// A line without its comment; the `//` of an address is none.
fn code(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

fn unreasoned(path: &str, text: &str, at: usize, wrong: &mut Vec<String>) {
    let attribute = text[at..].split(")]").next().unwrap();
    if !attribute.contains("reason") {
        let line = text[..at].lines().count().max(1);
        wrong.push(format!("{path}, near line {line}: add `reason = \"...\"` to {attribute})]"));
    }
}

fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.starts_with("e2e/")
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} to mend:\n  {}", wrong.len(), wrong.join("\n  "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}
