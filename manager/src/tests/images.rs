//! Registries that say what their client does not bear.

use protocol::{Topic, message::RoundAbsent};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::world::{Peer, World};

/// A registry whose tokens cannot be put into a header.
async fn mad_registry() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(answer(client, port));
        }
    });
    port
}

async fn answer(mut client: TcpStream, port: u16) {
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        if !client.read_buf(&mut request).await.is_ok_and(|len| len > 0) {
            return;
        }
    }
    let answer = if request.starts_with(b"GET /token") {
        let token = r#"{"token":"a\nb"}"#;
        format!("200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{token}", token.len())
    } else {
        format!(
            "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\"\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let _ = client.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
}

#[tokio::test]
async fn what_breaks_the_client_of_registries_ends_a_start_and_a_round_with_the_reason() {
    let port = mad_registry().await;
    let nobody = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&nobody, "{}").unwrap();
    let world = World::with(&[
        &format!("--registry-plain-http=127.0.0.1:{port}"),
        &format!("--registry-auth-file={}", nobody.path().display()),
    ])
    .await;
    let _proplet = world.proplet("p-1").await;
    let image = format!("oci://127.0.0.1:{port}/a:1");

    let id = world.task(json!({"name": "t", "proplet_id": "p-1", "image_url": image})).await;
    let said = world.post(&format!("/tasks/{id}/start"), Value::Null).await;
    assert_ne!(said.status, 200, "{said:?}");
    assert!(said.error().contains("asking the registry broke"), "{said:?}");

    let absent = Topic::RoundAbsent { round: "r-1".parse().unwrap() };
    let mut operator = Peer::new(&world.broker, "operator", &[absent]).await;
    let start = json!({
        "round_id": "r-1", "model_uri": protocol::ModelUri::global(protocol::ModelVersion(0)), "participants": ["p-1"],
        "task_wasm_image": image, "hyperparams": {},
    });
    operator.say_raw(Topic::RoundStart, &start.to_string());
    let absent: RoundAbsent = operator.hear().await.open().unwrap();
    assert!(absent.error.unwrap().contains("asking the registry broke"));
    world.stop().await;
}
