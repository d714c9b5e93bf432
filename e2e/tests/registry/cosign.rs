//! Images that were signed with cosign, and devices whose owner counts on that. `openssl` and `curl`
//! make what cosign makes.

use std::{fs, path::Path, process};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::{ImageRegistry, Turn, Visitors, tool};
use protocol::Digest;
use serde_json::{Value, json};

use crate::{dir, one_hot, other, plan, task};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs a program to its good end; what it says.
fn run(name: &str, words: &[&str]) -> Vec<u8> {
    let done = process::Command::new(tool(name)).args(words).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// As `cosign sign --key` does it.
fn sign(registry: &ImageRegistry, dir: &Path, image: &str, key: &str) {
    let (_, digest) = image.rsplit_once('@').unwrap();
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": ""},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = payload.to_string();
    let file = dir.join("payload").display().to_string();
    fs::write(&file, &payload).unwrap();
    let signature = STANDARD.encode(run("openssl", &["dgst", "-sha256", "-sign", key, &file]));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": blob(registry, dir, "application/vnd.oci.image.config.v1+json", "{}"),
        "layers": [layer(registry, dir, &payload, &signature)],
    });
    let file = dir.join("manifest").display().to_string();
    fs::write(&file, manifest.to_string()).unwrap();
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let url = format!("http://{}/v2/story/workload/manifests/{tag}", registry.host());
    put(&url, MANIFEST_TYPE, &file);
}

fn layer(registry: &ImageRegistry, dir: &Path, payload: &str, signature: &str) -> Value {
    let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
    let mut layer = blob(registry, dir, kind, payload);
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    layer
}

/// Puts bytes there; how a manifest names them.
fn blob(registry: &ImageRegistry, dir: &Path, kind: &str, text: &str) -> Value {
    let file = dir.join("blob").display().to_string();
    fs::write(&file, text).unwrap();
    let digest = format!("sha256:{}", Digest::of(text.as_bytes()));
    let url = format!("http://{}/v2/story/workload/blobs/uploads/", registry.host());
    let said = run("curl", &["-sSf", "-X", "POST", "-o", "/dev/null", "-D", "-", &url]);
    let said = String::from_utf8(said).unwrap();
    let place = said.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
    put(&format!("{}&digest={digest}", place.trim()), "application/octet-stream", &file);
    json!({"mediaType": kind, "digest": digest, "size": text.len()})
}

fn put(url: &str, kind: &str, file: &str) {
    let (kind, file) = (format!("Content-Type: {kind}"), format!("@{file}"));
    run("curl", &["-sSf", "-X", "PUT", "-H", &kind, "--data-binary", &file, url]);
}

#[test]
fn a_device_runs_what_cosign_has_signed_with_a_key_of_its_owner_s() {
    let _turn = Turn::take();
    let dir = dir();
    let mut registry = ImageRegistry::start(dir.path(), Visitors::All);
    let [key, public] = ["cosign.key", "cosign.pub"].map(|it| dir.path().join(it));
    let [key, public] = [key, public].map(|path| path.display().to_string());
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
    run("openssl", &["ec", "-pubout", "-in", &key, "-out", &public]);
    let signed = registry.push(&other(dir.path()), ":signed", &[]).unwrap();
    let signed = signed["image"].as_str().unwrap();
    sign(&registry, dir.path(), signed, &key);
    registry.push(&one_hot(dir.path()), ":unsigned", &[]).unwrap();
    let plan = |delivery: &str| {
        plan(&registry)
            .with("PROPLET_MODULE_POLICY", "signed")
            .with("PROPLET_MODULE_SIGNERS_FILE", &public)
            .with("PROPLET_MODULE_CACHE_DIR", dir.path().join("modules").display())
            .with("MANAGER_IMAGE_DELIVERY", delivery)
    };
    let image = |image: &str| json!({"name": "image", "image_url": image});
    let refused = |done: &Value, word: &str| {
        assert_eq!((&done["state"], &done["code"]), (&json!("Failed"), &json!("module_unsigned")));
        assert!(done["error"].as_str().unwrap().contains(word), "{done}");
    };

    // What cosign signs does not come with what the manager hands over.
    let by_manager = plan("manager");
    let stack = by_manager.start();
    let _operator = stack.operator();
    refused(&task(&stack, image(signed)), "handed over by the manager");
    drop(stack);

    let by_proplet = plan("proplet");
    let stack = by_proplet.start();
    let _operator = stack.operator();
    refused(&task(&stack, image(&registry.image(":unsigned"))), "there is no sha256-");
    let done = task(&stack, image(signed));
    assert_eq!(done["state"], "Completed", "{done}");
    registry.process.kill();
    let done = task(&stack, image(signed));
    assert_eq!(done["state"], "Completed", "{done}");
}
