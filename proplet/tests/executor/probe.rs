//! A guest that does what its first argument says; built for every kind of program and run by the
//! conformance suite.

use std::{
    env, fs,
    io::{self, Write as _},
    net::TcpStream,
    process, thread,
    time::Duration,
};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let word = args.first().map_or("", String::as_str);
    match word {
        "world" => world(&args),
        "files" => files(),
        "update" => fs::write(var("UPDATE_PATH"), b"tensors").expect("write the update"),
        "loop" => busy(),
        "sleep" => thread::sleep(Duration::from_secs(36_000)),
        "eat" => eat(),
        "flood-stdout" => flood(&mut io::stdout()),
        "flood-stderr" => {
            (0..100_000).for_each(|line| eprintln!("line {line}"));
            eprintln!("the last line");
        }
        "flood-files" => flood(&mut fs::File::create(var("UPDATE_PATH")).expect("create")),
        "many-files" => many_files(),
        "link" => link(),
        "panic" => panic!("the guest gives up"),
        "exit" => process::exit(args[1].parse().expect("a code")),
        "recurse" => println!("{}", recurse(1)),
        _ => panic!("unknown word {word:?}"),
    }
}

fn var(name: &str) -> String {
    env::var(name).expect(name)
}

fn world(args: &[String]) {
    for arg in args {
        println!("arg {arg}");
    }
    for (name, value) in env::vars() {
        println!("env {name}={value}");
    }
    let mut input = String::new();
    let read = io::stdin().read_line(&mut input);
    println!("stdin {:?}", read.unwrap_or_default());
}

fn files() {
    let (model, data) = (var("MODEL_PATH"), var("DATA_DIR"));
    println!("model {}", fs::read_to_string(&model).expect("read the model"));
    println!("data {}", fs::read_to_string(format!("{data}/train.csv")).expect("read the data"));
    let attempts = [
        ("write the model", fs::write(&model, "x").is_ok()),
        ("remove the model", fs::remove_file(&model).is_ok()),
        ("write beside the model", fs::write(format!("{model}2"), "x").is_ok()),
        ("write the data", fs::write(format!("{data}/train.csv"), "x").is_ok()),
        ("add data", fs::write(format!("{data}/new"), "x").is_ok()),
        ("rename data", fs::rename(format!("{data}/train.csv"), format!("{data}/b")).is_ok()),
        ("read by ..", fs::read(format!("{data}/../secret")).is_ok()),
        ("read by a link", fs::read(format!("{data}/link")).is_ok()),
        ("read /etc/hosts", fs::read("/etc/hosts").is_ok()),
        ("list /", fs::read_dir("/").is_ok()),
        ("list ..", fs::read_dir("..").is_ok()),
        ("write /tmp", fs::write("/tmp/escaped", "x").is_ok()),
        ("connect", TcpStream::connect("127.0.0.1:9").is_ok()),
        ("look up a name", TcpStream::connect("localhost:9").is_ok()),
    ];
    for (what, done) in attempts {
        println!("{what}: {}", if done { "DONE" } else { "refused" });
    }
}

fn busy() {
    let mut n = 1_u64;
    loop {
        n = std::hint::black_box(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn flood(to: &mut dyn io::Write) {
    loop {
        // Goes on after an error: the host has to stop it.
        let _ = to.write_all(&[b'x'; 1 << 16]);
    }
}

fn many_files() {
    let update = var("UPDATE_PATH");
    for n in 0_u64.. {
        let _ = fs::File::create(format!("{update}.{n}"));
    }
}

#[allow(deprecated, reason = "the portable name of it")]
fn link() {
    let update = var("UPDATE_PATH");
    let made = fs::soft_link("../../secret", &update);
    eprintln!("link: {made:?}");
    if made.is_err() {
        fs::create_dir(&update).expect("a directory is no file either");
    }
    io::stdout().flush().expect("flush");
}

fn recurse(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 64]);
    if frame[0] == 0 { 0 } else { recurse(n + 1) + frame[1] }
}
