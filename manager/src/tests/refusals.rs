//! What the API does not take, and in which words it says so.

use serde_json::{Value, json};

use super::{
    http::{call, call_deaf, call_with, form},
    world::World,
};

#[tokio::test]
async fn bad_input_is_named() {
    let world = World::new().await;
    let id = world.task(json!({"name": "t"})).await;
    let task = format!("/tasks/{id}");
    for (method, path, body, words) in [
        ("POST", "/tasks", "{", "EOF while parsing"),
        ("POST", "/tasks", "", "a JSON object, not \"\""),
        ("POST", "/tasks", "[1]", "a JSON object, not \"[1]\""),
        ("POST", "/tasks", r#"{"x":1}"#, "name is missing"),
        ("POST", "/tasks", r#"{"name":5}"#, "name: invalid type: integer `5`"),
        ("POST", "/tasks", r#"{"name":"a","state":"Walking"}"#, "not Walking"),
        ("POST", "/tasks", r#"{"name":"a","state":9}"#, "not 9"),
        ("POST", "/tasks", r#"{"name":"a","file":"???"}"#, "file is not base64"),
        ("POST", "/tasks", r#"{"name":"a","file":"aGVsbG8gd29ybGQ="}"#, "68 65 6c 6c"),
        ("POST", "/tasks", r#"{"name":"a","proplet_id":"a/b"}"#, "proplet_id \"a/b\""),
        ("POST", "/tasks", r#"{"name":"a","proplet_id":"p","broadcast":true}"#, "exclude"),
        ("POST", "/tasks", r#"{"name":"a","env":{"ROUND_ID":"+"}}"#, "ROUND_ID \"+\""),
        ("POST", "/tasks", r#"{"name":"a","retries":101}"#, "not 101"),
        ("POST", "/tasks", r#"{"name":"a","retries":-1}"#, "`-1`"),
        ("PUT", &task, r#"{"name":""}"#, "name is missing"),
        ("GET", "/tasks?limit=0", "", "limit takes 1 to 1000, not \"0\""),
        ("GET", "/tasks?limit=1001", "", "not \"1001\""),
        ("GET", "/tasks?offset=-1", "", "offset takes a whole number from 0, not \"-1\""),
        ("GET", "/tasks?state=Walking", "", "Interrupted or 0..6, not \"Walking\""),
        ("GET", "/tasks?proplet_id=%2B", "", "proplet_id takes an id"),
        ("GET", "/proplets?limit=x", "", "limit takes 1 to 1000, not \"x\""),
        ("GET", "/tasks/a%2Fb", "", "\"a/b\" in the path"),
        ("GET", "/tasks/%FF", "", "Invalid UTF-8"),
        ("GET", "/proplets/..%20", "", "in the path"),
    ] {
        let said = call(world.at, method, path, body.as_bytes()).await;
        assert_eq!(said.status, 400, "{method} {path} {body}: {said:?}");
        assert!(said.error().contains(words), "{method} {path} {body}: {}", said.error());
    }
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_does_not_fit_is_409_and_405() {
    let world = World::new().await;
    let id = world.task(json!({"name": "t", "proplet_id": "p1"})).await;
    let (start, stop) = (format!("/tasks/{id}/start"), format!("/tasks/{id}/stop"));
    let put = format!("/tasks/{id}");
    for (status, method, path, body, words) in [
        (404, "GET", "/tasks/nope", "", "no task nope"),
        (404, "GET", "/tasks/nope/results", "", "no task nope"),
        (404, "GET", "/tasks/nope/metrics", "", "no task nope"),
        (404, "PUT", "/tasks/nope", "{}", "no task nope"),
        (404, "DELETE", "/tasks/nope", "", "no task nope"),
        (404, "POST", "/tasks/nope/start", "", "no task nope"),
        (404, "POST", "/tasks/nope/stop", "", "no task nope"),
        (404, "GET", "/proplets/nope", "", "no proplet nope"),
        (404, "DELETE", "/proplets/nope", "", "no proplet nope"),
        (404, "GET", "/nothing/here", "", "no such path: /nothing/here"),
        (405, "PATCH", "/tasks", "", "/tasks does not take PATCH"),
        (405, "GET", &start, "", "does not take GET"),
        (409, "POST", &start, "", "proplet p1, to which the task is pinned, is unknown"),
        (409, "POST", &stop, "", "is Pending: it cannot stop"),
        (409, "PUT", &put, r#"{"state":"Running"}"#, "state is Pending"),
    ] {
        let said = call(world.at, method, path, body.as_bytes()).await;
        assert_eq!(said.status, status, "{method} {path}: {said:?}");
        assert!(said.error().contains(words), "{method} {path}: {}", said.error());
    }
    let patch = call(world.at, "PATCH", "/tasks", b"").await;
    assert_eq!(patch.header("allow"), Some("GET,HEAD,POST"));
    world.stop().await;
}

#[tokio::test]
async fn modules_have_a_limit_and_must_be_modules() {
    let world = World::with(&["--upload-bytes-max=100"]).await;
    let id = world.task(json!({"name": "t"})).await;
    let path = format!("/tasks/{id}/upload");
    let mut long = b"\0asm\x01\0\0\0".to_vec();
    long.resize(101, 0);
    let (header, body) = form("file", &long);
    let said = call_with(world.at, "PUT", &path, header, &body).await;
    assert_eq!(said.status, 413);
    assert!(said.error().contains("100 bytes"), "{}", said.error());
    let (header, body) = form("file", b"\0asm");
    assert_eq!(call_with(world.at, "PUT", &path, header, &body).await.status, 400);
    let (header, body) = form("other", b"\0asm\x01\0\0\0");
    let said = call_with(world.at, "PUT", &path, header, &body).await;
    assert_eq!((said.status, said.error().as_str()), (400, "the form has no field named file"));
    let said = call(world.at, "PUT", &path, b"not a form").await;
    assert_eq!(said.status, 400);
    let said = call_with(world.at, "PUT", &path, header, b"--XYZ\r\nbroken").await;
    assert_eq!(said.status, 400);

    let huge = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    let said = call(world.at, "POST", "/tasks", huge.as_bytes()).await;
    assert_eq!(said.status, 413, "{said:?}");
    assert!(said.error().starts_with("the body has more than"), "{}", said.error());
    assert_eq!(world.get("/tasks").await.json()["total"], 1);
    world.stop().await;
}

#[tokio::test]
async fn whoever_sends_all_before_it_listens_hears_the_refusal() {
    let world = World::with(&["--upload-bytes-max=100"]).await;
    let huge = vec![b' '; 16 << 20];
    for (path, status) in [("/tasks", 413), ("/nothing/here", 404)] {
        let said = call_deaf(world.at, path, &huge).await.unwrap();
        assert_eq!(said.status, status, "{path}: {said:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn pages_from_elsewhere_give_no_orders() {
    let world = World::new().await;
    let id = world.task(json!({"name": "t"})).await;
    let path = format!("/tasks/{id}/start");
    let foreign = "Origin: http://example.com\r\n";
    let said = call_with(world.at, "POST", &path, foreign, b"").await;
    assert_eq!(said.status, 403);
    assert!(said.error().contains("http://example.com"));
    assert_eq!(call_with(world.at, "GET", "/tasks", foreign, b"").await.status, 200);
    let own = format!("Origin: http://{}\r\n", world.at);
    let said = call_with(world.at, "POST", &path, &own, b"").await;
    assert_eq!((said.status, said.error().as_str()), (409, "no proplet is alive"));
    let head = call(world.at, "HEAD", "/tasks", b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        said.json().as_object().map(|it| it.keys().cloned().collect::<Vec<_>>()),
        Some(vec!["error".to_owned()])
    );
    assert_eq!(world.get("/tasks").await.json()["tasks"][0]["results"], Value::Null);
    world.stop().await;
}
