//! The description, held against what there is.

use std::collections::BTreeSet;

use super::{http::call, world::World};
use crate::api::paths as paths_there;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

#[tokio::test]
async fn every_call_is_described_and_nothing_else_is() {
    let world = World::new().await;
    let said = world.get("/openapi.json").await;
    assert_eq!(said.status, 200);
    let description = said.json();
    let described = description["paths"].as_object().unwrap();

    let paths: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    let there: BTreeSet<&str> = paths_there().collect();
    assert_eq!(paths, there);
    for (path, calls) in described {
        for method in METHODS {
            let at = path.replace("{id}", "nope");
            let said = call(world.at, &method.to_uppercase(), &at, b"").await;
            let taken = said.status != 405;
            assert_eq!(calls.get(method).is_some(), taken, "{method} {path}: {}", said.status);
            let known = calls.get(method).map(|call| &call["responses"]);
            if let Some(known) = known {
                let status = said.status.to_string();
                assert!(known.get(&status).is_some(), "{method} {path} may answer {status}");
            }
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn references_lead_somewhere() {
    let world = World::new().await;
    let description = world.get("/openapi.json").await.json();
    let text = description.to_string();
    let references: BTreeSet<&str> =
        text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!references.is_empty());
    for reference in references {
        assert!(description.pointer(reference).is_some(), "{reference} leads nowhere");
    }
    world.stop().await;
}
