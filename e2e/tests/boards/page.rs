//! docs/raspberry-pi.md, step by step: the boxes of the page, as they stand there, on a Debian of the board's kind.
//!
//! Everything happens in a network of its own, so that addresses and ports may be those of the page. There are three
//! stand-ins: `scp` copies into the board's directory; `sudo` is root already; and `systemctl enable --now` starts what
//! the unit names, as there is no systemd in a chroot. Nothing else is changed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{Turn, aileron, say, tool};

use crate::{
    crossed::{self, Processor},
    good, project,
};

/// The PC's address on the page.
const ADDRESS: &str = "192.168.1.10";
const PACKAGE: &str = "aileron-proplet";
const ROUNDS: usize = 10;

const SCP: &str = r#"#!/bin/sh
# scp [-r] FILE... pi@raspberrypi.local:[NAME]
for last; do :; done
set -- "$@" && for word; do [ "$word" = "$last" ] || set -- "$@" "$word"; shift; done
cp "$@" "$BOARD/home/pi/${last#pi@raspberrypi.local:}"
"#;

const SUDO: &str = "#!/bin/sh\nexec \"$@\"\n";

const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
[ "$1 $2" = "enable --now" ]
unit=/lib/systemd/system/$3.service
value() { sed -n "s/^$1=-\{0,1\}//p" "$unit"; }
set -a
. "$(value EnvironmentFile)"
set +a
mkdir -p "/var/lib/$(value StateDirectory)"
$(value ExecStart) > "/var/log/$3.log" 2>&1 &
"#;

#[test]
fn the_page_leads_from_a_blank_board_to_a_trained_model() {
    if !crossed::wanted() || !crossed::may_be_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (pc, board) = (dir.path().join("pc"), dir.path().join("board"));
    fs::create_dir_all(pc.join("bin")).unwrap();
    symlink(aileron(), pc.join("bin/aileron")).unwrap();
    executable(&pc.join("bin/scp"), SCP);
    blank(&board);
    let page = fs::read_to_string(project().join("docs/raspberry-pi.md")).unwrap();
    let (boxes, built) = (boxes(&page), crossed::package(PACKAGE, Processor::Arm64, &pc));
    let sources = boxes.iter().find(|(place, _)| place == "sources").unwrap();
    assert_eq!(sources.1.trim(), format!("deploy/deb {PACKAGE} arm64"), "what was just built");
    assert!(page.contains(built.file_name().unwrap().to_str().unwrap()), "{}", built.display());

    let _turn = Turn::take();
    let script = dir.path().join("script");
    fs::write(&script, story(&boxes, &board)).unwrap();
    let mut shell = Command::new("timeout");
    shell.args(["600", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "bash"]);
    shell.arg(&script);
    shell.current_dir(&pc).env("BOARD", &board);
    let path = std::env::var("PATH").unwrap_or_default();
    shell.env("PATH", format!("{}:{path}", pc.join("bin").display()));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AILERON_")) {
        shell.env_remove(name);
    }
    let output = shell.output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = fs::read_to_string(board.join("var/log/aileron-proplet.log")).unwrap_or_default();
    let all = format!("{said}\n{complained}\nThe board:\n{log}");
    assert!(output.status.success(), "{}: {all}", output.status);
    assert!(said.contains("\npass\n"), "health: {all}");
    assert!(said.contains(&format!("Complete  round {ROUNDS} of {ROUNDS}")), "{all}");
    assert!(said.lines().any(|line| line.contains("pi-1") && line.contains("yes")), "{all}");
    say(&said);
}

/// The page's boxes in order, each with the place where it is for: what its fence says after `sh`.
fn boxes(page: &str) -> Vec<(String, String)> {
    let mut boxes = vec![];
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```sh ") {
        let (place, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("\n```").unwrap();
        boxes.push((place.trim().to_owned(), text.to_owned()));
        rest = after;
    }
    let places: Vec<&str> = boxes.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["pc", "sources", "pc", "board", "board", "pc"], "the page has changed");
    boxes
}

/// One shell for the PC, from the first box to the last, and one on the board for each of its boxes.
fn story(boxes: &[(String, String)], board: &Path) -> String {
    let root = board.display();
    let mut script = format!(
        "set -euo pipefail\nip link set lo up\nip address add {ADDRESS}/32 dev lo\n\
         mount -t proc proc {root}/proc\n"
    );
    for (number, (place, text)) in boxes.iter().enumerate() {
        match place.as_str() {
            "pc" => script.push_str(&format!("{text}\n")),
            "board" => {
                let step = format!("step-{number}");
                fs::write(board.join(&step), text).unwrap();
                script.push_str(&format!(
                    "chroot {root} /usr/bin/env -i HOME=/home/pi PATH=/usr/local/sbin:/usr/local/bin:\
                     /usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
                     /bin/bash -euo pipefail -c 'cd; . /{step}'\n"
                ));
            }
            // Done by the story itself, since it takes what was built before.
            "sources" => {}
            other => panic!("the page has a box for {other}"),
        }
    }
    script
}

/// A Debian of the board's kind with nothing on it, made once and then copied.
fn blank(board: &Path) {
    crossed::run_foreign_programs(Processor::Arm64);
    let kept = crossed::dist().join("debian-arm64.tar");
    if !kept.exists() {
        fs::create_dir_all(crossed::dist()).unwrap();
        let root = kept.with_extension("root");
        let _ = fs::remove_dir_all(&root);
        // Raspberry Pi OS has the certificates of public authorities, which the package recommends.
        let arguments = [
            "--foreign",
            "--variant=minbase",
            "--include=ca-certificates",
            "--arch=arm64",
            "bookworm",
        ];
        good(Command::new(tool("debootstrap")).args(arguments).arg(&root));
        // In a place of its own, since it leaves things mounted.
        let mut second = Command::new(tool("unshare"));
        second.args(["--mount", "chroot"]).arg(&root);
        good(second.args(["/debootstrap/debootstrap", "--second-stage"]));
        good(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(part(&kept)).arg("."));
        fs::rename(part(&kept), &kept).unwrap();
        fs::remove_dir_all(&root).unwrap();
    }
    fs::create_dir_all(board).unwrap();
    good(Command::new("tar").arg("-C").arg(board).arg("-xpf").arg(&kept));
    fs::create_dir_all(board.join("home/pi")).unwrap();
    executable(&board.join("usr/local/bin/sudo"), SUDO);
    executable(&board.join("usr/local/bin/systemctl"), SYSTEMCTL);
}

fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
