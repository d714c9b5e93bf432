//! A guest that makes a long update without any memory to speak of: the model itself, or numbers.

use std::{env, fs, io};

fn main() {
    match env::args().nth(1).as_deref() {
        Some("copy") => {
            let mut model = fs::File::open(var("MODEL_PATH")).expect("a model");
            let mut update = fs::File::create(var("UPDATE_PATH")).expect("an update");
            io::copy(&mut model, &mut update).expect("copied");
        }
        Some("print") => {
            let count: u32 = env::args().nth(2).expect("a count").parse().expect("a number");
            let numbers: Vec<String> = (0..count).map(|n| format!("{n}.1")).collect();
            let (round, base) = (var("ROUND_ID"), var("MODEL_URI"));
            println!(
                "{{\"round_id\":\"{round}\",\"base_model_uri\":\"{base}\",\"num_samples\":3,\
                 \"metrics\":{{}},\"update\":{{\"w\":[{}]}}}}",
                numbers.join(",")
            );
        }
        word => panic!("unknown word {word:?}"),
    }
}

fn var(name: &str) -> String {
    env::var(name).expect(name)
}
