//! A node that breaks a rule is named, with the time and the line, and is out of the run.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    thread::{self, JoinHandle},
    time::Duration,
};

use cosim::{channel::Channel, peer::NodePeer, wire::Dialect};
use serde_json::json;
use sim::{Done, Peer, PeerError, PeerEvent};

use crate::support::{contact, event, meet_channel, step};

/// A node that answers each line with what its script has for it, whatever it is asked, and then hangs up.
fn scripted(script: &'static [&'static str]) -> (Channel, JoinHandle<Vec<String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let node = thread::spawn(move || {
        let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
        let mut theirs = theirs;
        let mut heard = vec![];
        for answer in script {
            let Some(Ok(line)) = lines.next() else { break };
            heard.push(line);
            if theirs.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        heard
    });
    (Channel::of_unix(ours).unwrap(), node)
}

const READY: &str = "{\"type\":\"READY\"}\n";

/// Meets a JSON node that answers INIT properly and ADVANCE to 1000 us as told.
fn fault(answer: &'static [&'static str]) -> PeerError {
    let (channel, node) = scripted(answer);
    let mut peer = meet_channel(Dialect::Json, channel).unwrap();
    let error = step(&mut peer, 1000, vec![]).unwrap_err();
    assert_eq!((error.node.as_str(), error.time_us), ("n", 1000));
    // Out is out.
    let again = peer.begin(2000, vec![]).unwrap_err();
    assert_eq!(again.what, "it is no longer part of the run");
    peer.shutdown();
    drop(peer);
    node.join().unwrap();
    error
}

#[test]
fn a_node_that_behaves_is_heard() {
    let (channel, node) = scripted(&[
        READY,
        "{\"type\":\"DONE\",\"time_us\":1000,\"next_us\":5000,\"events\":[\
         {\"type\":\"a\",\"time_us\":1000,\"dst\":\"broker\",\"payload\":[1]},\
         {\"type\":\"b\",\"dst\":\"other\",\"src\":\"n\"}]}\n",
    ]);
    let mut peer = meet_channel(Dialect::Json, channel).unwrap();
    let done = step(&mut peer, 1000, vec![event(1000, "x", json!({"k": 1}))]).unwrap();
    assert_eq!(done.next_us, Some(5000));
    assert_eq!((done.events[0].time_us, done.events[0].dst.as_str()), (1000, "broker"));
    // No time: the window's begin.
    assert_eq!((done.events[1].time_us, done.events[1].src.as_str()), (0, "n"));
    drop(peer);
    let heard = node.join().unwrap();
    assert!(heard[0].contains("\"node\":\"n\"") && heard[0].contains("\"seed\":7"), "{heard:?}");
    assert!(heard[1].contains("\"time_us\":1000"), "{heard:?}");
}

#[test]
fn a_done_with_the_wrong_time() {
    let error = fault(&[READY, "{\"type\":\"DONE\",\"time_us\":999}\n"]);
    assert_eq!(error.what, "DONE names time 999 us, asked was for 1000 us");
    assert_eq!(error.line.as_deref(), Some("{\"type\":\"DONE\",\"time_us\":999}"));
    assert!(error.to_string().contains("node n at 1000 us"), "{error}");
}

#[test]
fn an_event_outside_of_its_window() {
    const LATE: &str = "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[{\"type\":\"a\",\"time_us\":1001,\"dst\":\"other\"}]}\n";
    let error = fault(&[READY, LATE]);
    assert_eq!(error.what, "event \"a\" at 1001 us is outside of its window, 0 to 1000 us");
    assert_eq!(error.line.as_deref(), Some(LATE.trim()));
}

#[test]
fn an_event_of_the_past() {
    let (channel, _node) = scripted(&[
        READY,
        "{\"type\":\"DONE\",\"time_us\":1000}\n",
        "{\"type\":\"DONE\",\"time_us\":2000,\"events\":[{\"type\":\"a\",\"time_us\":999,\"dst\":\"other\"}]}\n",
    ]);
    let mut peer = meet_channel(Dialect::Json, channel).unwrap();
    step(&mut peer, 1000, vec![]).unwrap();
    let error = step(&mut peer, 2000, vec![]).unwrap_err();
    assert_eq!(error.what, "event \"a\" at 999 us is outside of its window, 1000 to 2000 us");
}

#[test]
fn an_unknown_destination_a_foreign_source_and_a_next_time_in_the_past() {
    let error = fault(&[
        READY,
        "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[{\"type\":\"a\",\"dst\":\"nobody\"}]}\n",
    ]);
    assert_eq!(error.what, "event \"a\" is for \"nobody\", which is nobody's id");
    let error = fault(&[
        READY,
        "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[{\"type\":\"a\",\"dst\":\"\"}]}\n",
    ]);
    assert_eq!(error.what, "event \"a\" is for \"\", which is nobody's id");
    let error = fault(&[
        READY,
        "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[{\"type\":\"a\",\"dst\":\"n\",\"src\":\"other\"}]}\n",
    ]);
    assert_eq!(error.what, "event \"a\" says that it comes from \"other\"");
    let error = fault(&[READY, "{\"type\":\"DONE\",\"time_us\":1000,\"next_us\":1000}\n"]);
    assert_eq!(error.what, "DONE at 1000 us wants to be woken at 1000 us, which is not later");
}

#[test]
fn malformed_and_unexpected_lines() {
    let error = fault(&[READY, "{\"type\":\"DONE\",\n"]);
    assert!(error.what.starts_with("a malformed line: not JSON"), "{error}");
    assert_eq!(error.line.as_deref(), Some("{\"type\":\"DONE\","));
    let error = fault(&[READY, "{\"type\":\"DONE\"}\n"]);
    assert_eq!(error.what, "a malformed line: `time_us` is missing");
    let error = fault(&[READY, "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[7]}\n"]);
    assert_eq!(error.what, "a malformed line: event 0: expected a JSON object, found 7");
    let error = fault(&[READY, READY]);
    assert_eq!(error.what, "it answers READY where DONE was due");
    let error = fault(&[READY, "Traceback (most recent call last):\n"]);
    assert!(error.what.contains("not JSON"), "{error}");
    assert_eq!(error.line.as_deref(), Some("Traceback (most recent call last):"));
}

/// The case that fails in the original: a node that cannot go on says so, and the harness says it on.
#[test]
fn a_node_that_says_error() {
    let error = fault(&[READY, "{\"type\":\"ERROR\",\"message\":\"no model\"}\n"]);
    assert_eq!(error.what, "it says: no model");
    let (channel, _node) = scripted(&["READY\n", "ERROR no model\n"]);
    let mut peer = meet_channel(Dialect::PlainStdio, channel).unwrap();
    assert_eq!(step(&mut peer, 5, vec![]).unwrap_err().what, "it says: no model");
}

#[test]
fn a_node_that_speaks_out_of_turn() {
    let (channel, node) = scripted(&[
        READY,
        "{\"type\":\"DONE\",\"time_us\":1}\n{\"type\":\"DONE\",\"time_us\":2}\n",
    ]);
    let mut peer = meet_channel(Dialect::Json, channel).unwrap();
    step(&mut peer, 1, vec![]).unwrap();
    // The node has ended: all that it said is there.
    node.join().unwrap();
    let error = peer.begin(2, vec![]).unwrap_err();
    assert_eq!(error.what, "it speaks out of turn");
    assert_eq!(error.line.as_deref(), Some("{\"type\":\"DONE\",\"time_us\":2}"));
}

#[test]
fn a_node_that_dies() {
    let error = fault(&[READY, ""]);
    assert_eq!(error.what, "the stream has ended");
    let (channel, _node) = scripted(&[]);
    let error = meet_channel(Dialect::Json, channel).unwrap_err();
    assert_eq!((error.time_us, error.what.as_str()), (0, "the stream has ended"));
    let error = fault(&[READY, "{\"type\":\"DO"]);
    assert_eq!(error.what, "the stream has ended", "half a line is none");
}

#[test]
fn a_node_that_is_silent_or_never_ready() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let brief = contact(Dialect::Json, Duration::from_millis(20));
    let met = NodePeer::meet(brief, Channel::of_unix(ours).unwrap(), None, 0, json!({}));
    assert_eq!(met.unwrap_err().what, "silent for 20 ms");
    drop(theirs);
    let (channel, _node) = scripted(&["{\"type\":\"DONE\",\"time_us\":0}\n"]);
    let error = meet_channel(Dialect::Json, channel).unwrap_err();
    assert_eq!(error.what, "it answers DONE where READY was due");
}

#[test]
fn a_line_without_end() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let node = thread::spawn(move || {
        let block = vec![b'x'; 1 << 20];
        while theirs.write_all(&block).is_ok() {}
    });
    let met = meet_channel(Dialect::Json, Channel::of_unix(ours).unwrap());
    assert_eq!(met.unwrap_err().what, "a line is longer than 16777216 bytes");
    node.join().unwrap();
}

/// Both sides write more than the stream holds: neither waits for the other for ever.
#[test]
fn a_node_that_writes_while_it_is_written_to() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let node = thread::spawn(move || {
        let mut lines = BufReader::new(theirs.try_clone().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        theirs.write_all(READY.as_bytes()).unwrap();
        // It has begun to read its order, and answers before it reads on.
        lines.read_exact(&mut [0]).unwrap();
        theirs.write_all(&vec![b' '; 4 << 20]).unwrap();
        theirs.write_all(b"{\"type\":\"DONE\",\"time_us\":1}\n").unwrap();
        lines.read_line(&mut String::new()).unwrap()
    });
    let mut peer = meet_channel(Dialect::Json, Channel::of_unix(ours).unwrap()).unwrap();
    let large = event(1, "large", json!("y".repeat(4 << 20)));
    assert_eq!(step(&mut peer, 1, vec![large]).unwrap(), Done::default());
    assert!(node.join().unwrap() > 4 << 20);
}

#[test]
fn whoever_drives_a_node_is_held_to_the_rules_too() {
    let (channel, _node) = scripted(&[READY, "{\"type\":\"DONE\",\"time_us\":10}\n"]);
    let mut peer = meet_channel(Dialect::Json, channel).unwrap();
    step(&mut peer, 10, vec![]).unwrap();
    let error = peer.begin(9, vec![]).unwrap_err();
    assert_eq!(error.what, "time cannot go back from 10 us to 9 us");

    let refused = |calls: fn(&mut NodePeer) -> Result<(), PeerError>| {
        // It stays, and says nothing more.
        let (channel, _node) = scripted(&[READY, "", ""]);
        calls(&mut meet_channel(Dialect::Json, channel).unwrap()).unwrap_err().what
    };
    assert_eq!(refused(|peer| peer.finish().map(drop)), "it was not asked for anything");
    let twice = refused(|peer| {
        peer.begin(5, vec![])?;
        peer.begin(6, vec![])
    });
    assert_eq!(twice, "it is still asked for 5 us");
    let outside = refused(|peer| peer.begin(5, vec![event(6, "late", json!(null))]));
    assert_eq!(outside, "event \"late\" at 6 us cannot be given to it in 0 to 5 us");
}

/// Nodes of the plain dialects neither echo the time nor know their names.
#[test]
fn a_plain_node_may_leave_things_out() {
    let (channel, node) = scripted(&[
        "READY\n",
        "DONE\n[{\"timestamp_us\": 4, \"event_type\": \"echo\", \"source\": \"echo_service\", \
         \"destination\": \"other\", \"payload\": {}}]\n",
    ]);
    let mut peer = meet_channel(Dialect::PlainStdio, channel).unwrap();
    let done = step(&mut peer, 10, vec![event(3, "ping", json!({}))]).unwrap();
    let expected = PeerEvent {
        time_us: 4,
        kind: "echo".to_owned(),
        src: "n".to_owned(),
        dst: "other".to_owned(),
        payload: json!({}),
        size_bytes: 0,
    };
    assert_eq!((done.next_us, &done.events[..]), (None, &[expected][..]));
    drop(peer);
    assert_eq!(node.join().unwrap(), ["INIT {\"seed\":7}", "ADVANCE 10"]);
}

/// The original's services leave the destination out where they only want to be observed.
#[test]
fn an_event_without_a_destination_is_for_nobody() {
    for answer in [
        "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[{\"type\":\"result\",\"label\":\"anomaly\"}]}\n",
        "{\"type\":\"DONE\",\"time_us\":1000,\"events\":[{\"type\":\"result\",\"dst\":null,\"label\":\"anomaly\"}]}\n",
    ] {
        let script: &'static [&'static str] = Box::leak(Box::new([READY, answer]));
        let (channel, node) = scripted(script);
        let mut peer = meet_channel(Dialect::Json, channel).unwrap();
        let done = step(&mut peer, 1000, vec![]).unwrap();
        assert_eq!(
            (done.events[0].dst.as_str(), &done.events[0].payload),
            ("", &json!({"label": "anomaly"}))
        );
        drop(peer);
        node.join().unwrap();
    }
}
