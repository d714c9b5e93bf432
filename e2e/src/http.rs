//! The manager's HTTP API, asked with curl.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{eventually, tool};

/// One manager's API.
#[derive(Clone, Copy, Debug)]
pub struct Http {
    pub port: u16,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// `null` where there is no body, a string where it is not JSON.
    pub body: Value,
}

impl Http {
    /// GET.
    #[track_caller]
    pub fn get(self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    /// POST with a JSON body.
    #[track_caller]
    pub fn post(self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body))
    }

    /// Any method; fails the story if nobody answers.
    #[track_caller]
    pub fn ask(self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_ask(method, path, body)
            .unwrap_or_else(|why| panic!("{method} {path} on port {}: {why}", self.port))
    }

    /// Any method; `Err` with curl's own words if nobody answers.
    pub fn try_ask(self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let mut curl = Command::new(tool("curl"));
        curl.args(["-sS", "-m", "30", "-X", method, "-w", "\n%{http_code}"]);
        if body.is_some() {
            curl.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
        }
        curl.arg(format!("http://127.0.0.1:{}{path}", self.port));
        curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = curl.spawn().map_err(|why| why.to_string())?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        if let Some(body) = body {
            // A server that refuses early stops reading; its answer says why.
            let _ = stdin.write_all(body.to_string().as_bytes());
        }
        drop(stdin);
        let output = child.wait_with_output().map_err(|why| why.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Answer::read(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Uploads a module as the multipart field `file`.
    #[track_caller]
    pub fn upload(self, task: &str, module: &std::path::Path) -> Answer {
        let mut curl = Command::new(tool("curl"));
        curl.args(["-sS", "-m", "30", "-X", "PUT", "-w", "\n%{http_code}", "-F"]);
        curl.arg(format!("file=@{}", module.display()));
        curl.arg(format!("http://127.0.0.1:{}/tasks/{task}/upload", self.port));
        let output = curl.output().expect("curl runs");
        assert!(output.status.success(), "upload: {}", String::from_utf8_lossy(&output.stderr));
        Answer::read(&String::from_utf8_lossy(&output.stdout))
    }

    /// Creates a task and starts it; its id.
    #[track_caller]
    pub fn run_task(self, task: &Value) -> String {
        let created = self.post("/tasks", task);
        assert_eq!(created.status, 201, "{created:?}");
        let id = created.body["id"].as_str().expect("a task has an id").to_owned();
        let started = self.ask("POST", &format!("/tasks/{id}/start"), None);
        assert_eq!(
            (started.status, &started.body["started"]),
            (200, &Value::Bool(true)),
            "{started:?}"
        );
        id
    }

    /// The task when it has come to an end.
    #[track_caller]
    pub fn wait_for_end(self, id: &str) -> Value {
        eventually(&format!("task {id} ends"), || {
            let task = self.get(&format!("/tasks/{id}")).body;
            let state = task["state"].as_str().unwrap_or_default();
            matches!(state, "Completed" | "Failed" | "Skipped").then_some(task)
        })
    }

    /// Waits until the manager believes that so many proplets are alive.
    #[track_caller]
    pub fn wait_for_alive(self, count: usize) {
        eventually(&format!("{count} proplets are alive at the manager"), || {
            let answer = self.try_ask("GET", "/proplets?limit=1000", None).ok()?;
            let proplets = answer.body["proplets"].as_array()?;
            let alive = proplets.iter().filter(|proplet| proplet["alive"] == true).count();
            (alive == count).then_some(())
        });
    }

    /// Whether the manager has heard a proplet say of itself what it can, and not only that it is
    /// alive.
    pub fn has_heard_of(self, proplet: &str) -> bool {
        let answer = self.try_ask("GET", &format!("/proplets/{proplet}"), None);
        answer.is_ok_and(|answer| answer.body["metadata"]["module_pieces"] == true)
    }
}

impl Answer {
    fn read(output: &str) -> Self {
        let (body, status) = output.rsplit_once('\n').unwrap_or(("", output));
        let body = match body.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        Self { status: status.trim().parse().unwrap_or(0), body }
    }
}
