//! A harness in a few lines, to be killed by tests: it starts nodes, says so, and waits.
//!
//! `standalone run [--docker SOCKET IMAGE] PROGRAM [ARGS..]` prints the run's id and its directory; it is its own
//! janitor.

use std::{
    env,
    error::Error,
    io::{Read, Write, stdin, stdout},
    process::Command,
};

use cosim::launch::{
    ProcessNode, Run,
    docker::{DockerNode, Engine},
    janitor,
};
use sim::DockerSpec;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some((first, rest)) = arguments.split_first() else { return Err("run or janitor?".into()) };
    if first == "janitor" {
        return Ok(janitor(rest)?);
    }
    let mut own_janitor = Command::new(env::current_exe()?);
    own_janitor.arg("janitor");
    let run = Run::start(own_janitor)?;
    let (docker, command) = match rest {
        [flag, socket, image, command @ ..] if flag == "--docker" => {
            (Some((socket, image)), command)
        }
        command => (None, command),
    };
    let mut kept = vec![];
    if let Some((program, args)) = command.split_first() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        kept.push(ProcessNode::new("process", program, &args).start(&run)?);
    }
    if let Some((socket, image)) = docker {
        let network = Some(format!("net-{}", &run.id()[..12]));
        let spec = DockerSpec { image: Some(image.clone()), network, ..DockerSpec::default() };
        kept.push(DockerNode::new("container", spec).start(&Engine::at(socket)?, &run)?);
    }
    writeln!(stdout(), "{} {}", run.id(), run.dir().display())?;
    stdout().flush()?;
    // Until the input ends, or the kill comes.
    stdin().read_to_end(&mut vec![])?;
    drop(kept);
    Ok(())
}
