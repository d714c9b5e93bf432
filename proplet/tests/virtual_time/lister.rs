//! A guest that lists its data as it comes, with the age of each file.

use std::{env, fs, time::UNIX_EPOCH};

fn main() {
    for entry in fs::read_dir(env::var("DATA_DIR").expect("data")).expect("list") {
        let entry = entry.expect("entry");
        let modified = entry.metadata().and_then(|it| it.modified()).expect("time");
        let since = modified.duration_since(UNIX_EPOCH).expect("after 1970");
        println!("{} {}", entry.file_name().display(), since.as_micros());
    }
}
