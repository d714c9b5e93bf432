//! A platform that Prometheus (Debian's package) scrapes, with the settings, the alerts and the
//! dashboard that ship.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
};

use e2e::{
    BrokerKind, Command, Http, Process, Stack, StackPlan, Turn, Victim, eventually, free_port,
    one_hot_base64, tool,
};
use serde_json::{Value, json};

use crate::sessions::reaches;

const PROPLETS: usize = 3;

#[test]
fn prometheus_sees_rounds_and_the_death_of_the_coordinator() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, PROPLETS).with_vitals();
    let mut stack = plan.start();
    let operator = stack.operator();
    let (prometheus, _process) = scrape(&stack);

    let start = json!({
        "session_id": "s-seen", "rounds": 500, "file": one_hot_base64(), "timeout_s": 100,
        "hyperparams": plan.fleet.hyperparams(50),
    });
    let begun = stack.rounds.post("/fl/sessions", &start);
    assert_eq!(begun.status, 201, "{begun:?}");
    reaches(&operator, "s-seen", 3);

    let all_up = format!("sum(up) == {}", PROPLETS + 3);
    for query in [
        all_up.as_str(),
        "sum(aileron_broker_connected) == 6",
        "aileron_proplets_alive == 3",
        "aileron_rounds_complete_total >= 3",
        "aileron_updates_accepted_total >= 9",
        "aileron_round_seconds_count{outcome=\"complete\"} >= 3",
        "aileron_session_rounds_done{session=\"s-seen\"} >= 3",
        "sum(aileron_tasks_total{outcome=\"completed\"}) >= 9",
        "sum(aileron_updates_total{verdict=\"accepted\"}) >= 9",
        "aileron_models_written_total{line=\"global_model\"} >= 3",
        "sum(aileron_modules_total) >= 9",
        "aileron_task_seconds_count{job=\"manager\", state=\"Completed\"} >= 9",
        "count(process_resident_memory_bytes > 1e6) >= 6",
    ] {
        eventually(query, || (!ask(prometheus, query).is_empty()).then_some(()));
    }
    for http in everyone(&stack) {
        assert_eq!(http.get("/ready").status, 200);
    }
    dashboard_and_alerts_ask_for_what_is_told(prometheus, &stack);
    for job in ["manager", "coordinator", "model-server", "proplet"] {
        assert!(ask(prometheus, &format!("up{{job=\"{job}\"}} == 0")).is_empty(), "{job}");
    }

    stack.kill(Victim::Coordinator);
    eventually("an alert on the coordinator", || {
        let alerts = prometheus.get("/api/v1/alerts").body["data"]["alerts"].clone();
        let is_down = |alert: &Value| {
            alert["labels"]["alertname"] == "AileronServiceDown"
                && alert["labels"]["job"] == "coordinator"
        };
        alerts.as_array()?.iter().any(is_down).then_some(())
    });
}

/// Whatever a panel or a rule asks for is a query that Prometheus takes, on names that some service
/// tells, whether or not it has counted anything yet.
fn dashboard_and_alerts_ask_for_what_is_told(prometheus: Http, stack: &Stack) {
    let told: BTreeSet<String> = everyone(stack).iter().flat_map(|http| names(*http)).collect();
    let dashboard = fs::read_to_string(shipped("grafana/aileron.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut asked: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(asked.len() > 30, "{}", asked.len());
    let rules = prometheus.get("/api/v1/rules").body["data"]["groups"][0]["rules"].clone();
    let rules = rules.as_array().unwrap();
    assert!(rules.len() > 8, "{rules:?}");
    asked.extend(rules.iter().map(|rule| rule["query"].as_str().unwrap().to_owned()));
    for expression in asked {
        let query = expression.replace("$__rate_interval", "1m").replace("$session", ".*");
        ask(prometheus, &query);
        let is_name = |word: &&str| word.starts_with("aileron_") || word.starts_with("process_");
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(is_name) {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
            let is_told = told.contains(name) || base.is_some_and(|base| told.contains(base));
            assert!(is_told, "{name} of {expression:?} is told by nobody: {told:?}");
        }
    }
}

/// The names that a service tells, from the lines that say their types.
fn names(http: Http) -> Vec<String> {
    let text = http.get("/metrics").body;
    let text = text.as_str().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    let distinct: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "a name stands twice in {names:?}");
    names.into_iter().map(str::to_owned).collect()
}

fn everyone(stack: &Stack) -> Vec<Http> {
    let mut all = vec![stack.http, stack.rounds];
    all.extend(&stack.vitals);
    all
}

/// Prometheus with the settings that ship, the addresses aside; it looks more often here.
#[track_caller]
fn scrape(stack: &Stack) -> (Http, Process) {
    let dir = stack.dir().join("prometheus");
    fs::create_dir_all(&dir).unwrap();
    fs::copy(shipped("prometheus/alerts.yml"), dir.join("alerts.yml")).unwrap();
    let mut settings = fs::read_to_string(shipped("prometheus/prometheus.yml")).unwrap();
    let mut place = |from: &str, http: Http| {
        assert!(settings.contains(from), "{from} is not in the settings");
        settings = settings.replace(from, &format!("127.0.0.1:{}", http.port));
    };
    place("manager:7070", stack.http);
    place("coordinator:7071", stack.rounds);
    place("model-server:7072", stack.vitals[0]);
    for (index, http) in stack.vitals.iter().skip(1).enumerate() {
        place(&format!("proplet-{}:7073", index + 1), *http);
    }
    let settings = settings
        .replace("scrape_interval: 5s", "scrape_interval: 1s")
        .replace("evaluation_interval: 15s", "evaluation_interval: 1s");
    let file = dir.join("prometheus.yml");
    fs::write(&file, settings).unwrap();
    let checked = Program::new(tool("promtool")).args(["check", "config"]).arg(&file).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let http = Http { port: free_port() };
    let process = Command::outside(
        &dir,
        "prometheus",
        &[
            &format!("--config.file={}", file.display()),
            &format!("--storage.tsdb.path={}", dir.join("data").display()),
            &format!("--web.listen-address=127.0.0.1:{}", http.port),
        ],
    )
    .start();
    eventually("prometheus is ready", || {
        let ready = http.try_ask("GET", "/-/ready", None).ok()?;
        (ready.status == 200).then_some(())
    });
    (http, process)
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// What a query finds.
#[track_caller]
fn ask(prometheus: Http, query: &str) -> Vec<Value> {
    let mut curl = Program::new(tool("curl"));
    curl.args(["-sS", "-m", "30", "-G", "--data-urlencode", &format!("query={query}")]);
    curl.arg(format!("http://127.0.0.1:{}/api/v1/query", prometheus.port));
    let output = curl.output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(answer["status"], "success", "{query}: {answer} {output:?}");
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}
