//! A guest that does with files what can be done with them, and prints what came of it.

use std::{
    env, fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

fn main() {
    let data = env::var("DATA_DIR").expect("data");
    let update = env::var("UPDATE_PATH").expect("update");
    let out = Path::new(&update).parent().expect("out").to_str().expect("text").to_owned();
    read_only(&data);
    whole_files(&out);
    pieces(&out);
    directories(&out);
    names(&out);
}

fn tell<T: std::fmt::Debug>(what: &str, result: io::Result<T>) {
    match result {
        Ok(value) => println!("{what}: {value:?}"),
        Err(error) => println!("{what}: {:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

fn list(dir: &str) -> io::Result<Vec<(String, bool)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        all.push((entry.file_name().into_string().expect("text"), entry.file_type()?.is_dir()));
    }
    all.sort();
    Ok(all)
}

fn read_only(data: &str) {
    tell("list", list(data));
    tell("list below", list(&format!("{data}/deep/er")));
    tell("read below", fs::read_to_string(format!("{data}/deep/er/b.csv")));
    tell("read around", fs::read_to_string(format!("{data}/deep/../a.csv")));
    tell("read out", fs::read_to_string(format!("{data}/../out/x")));
    tell("read dir", fs::read(format!("{data}/deep")));
    tell("read slash", fs::read(format!("{data}/a.csv/")));
    tell("read through", fs::read(format!("{data}/a.csv/b")));
    tell("read none", fs::read(format!("{data}/none")));
    tell("size", fs::metadata(format!("{data}/a.csv")).map(|it| (it.len(), it.is_dir())));
    tell("is dir", fs::metadata(format!("{data}/deep")).map(|it| it.is_dir()));
    tell("create", fs::File::create(format!("{data}/new")).map(|_| ()));
    tell("remove", fs::remove_file(format!("{data}/a.csv")));
    tell("mkdir", fs::create_dir(format!("{data}/new")));
    tell("rmdir", fs::remove_dir(format!("{data}/deep")));
    let mut file = fs::File::open(format!("{data}/a.csv")).expect("open");
    tell("write", file.write(b"x"));
    tell("cut", file.set_len(0));
    tell("move", fs::rename(format!("{data}/a.csv"), format!("{data}/c.csv")));
}

fn whole_files(out: &str) {
    let (a, b) = (format!("{out}/a"), format!("{out}/b"));
    tell("write", fs::write(&a, "first"));
    tell("write again", fs::write(&a, "second!"));
    tell("read", fs::read_to_string(&a));
    tell("copy", fs::copy(&a, &b));
    tell("new", fs::OpenOptions::new().write(true).create_new(true).open(&a).map(|_| ()));
    tell("rename over", fs::rename(&a, &b));
    tell("gone", fs::read(&a));
    tell("remove", fs::remove_file(&b));
    tell("remove again", fs::remove_file(&b));
    tell("rmdir none", fs::remove_dir(&b));
    tell("list", list(out));
}

fn pieces(out: &str) {
    let path = format!("{out}/pieces");
    let open = fs::OpenOptions::new().read(true).write(true).create(true).open(&path);
    let mut file = open.expect("open");
    tell("write", file.write_all(b"0123456789"));
    tell("seek", file.seek(SeekFrom::Start(20)));
    tell("write beyond", file.write(b"end"));
    tell("seek back", file.seek(SeekFrom::End(-5)));
    tell("seek before", file.seek(SeekFrom::Current(-100)));
    let mut rest = Vec::new();
    tell("read", file.read_to_end(&mut rest));
    tell("read at end", file.read(&mut [0; 4]));
    println!("{rest:?}");
    tell("cut", file.set_len(4));
    tell("extend", file.set_len(6));
    tell("rewind", file.rewind());
    let mut all = String::new();
    tell("read", file.read_to_string(&mut all));
    println!("{all:?}");
    drop(file);
    let mut end = fs::OpenOptions::new().append(true).open(&path).expect("append");
    tell("append", end.write_all(b"tail"));
    tell("sync", end.sync_all());
    tell("remove open", fs::remove_file(&path));
    tell("write removed", end.write(b"x"));
    drop(end);
    tell("create anew", fs::write(&path, "anew"));
    tell("read", fs::read_to_string(&path));
    tell("remove", fs::remove_file(&path));
}

fn directories(out: &str) {
    let (a, b) = (format!("{out}/a"), format!("{out}/a/b"));
    tell("mkdir", fs::create_dir(&a));
    tell("mkdir again", fs::create_dir(&a));
    tell("mkdir all", fs::create_dir_all(format!("{b}/c/d")));
    tell("write", fs::write(format!("{b}/file"), "x"));
    tell("write to dir", fs::write(&b, "x"));
    tell("remove dir as file", fs::remove_file(&b).map_err(|_| io::Error::other("refused")));
    tell("remove file as dir", fs::remove_dir(format!("{b}/file")));
    tell("rmdir full", fs::remove_dir(&a));
    tell("into itself", fs::rename(&a, format!("{b}/a")));
    tell("file over dir", fs::rename(format!("{b}/file"), format!("{b}/c")));
    tell("dir over file", fs::rename(format!("{b}/c"), format!("{b}/file")));
    tell("dir over full", fs::rename(format!("{b}/c"), &a));
    tell("move dir", fs::rename(format!("{b}/c"), format!("{out}/c")));
    tell("list", list(out));
    tell("list", list(&b));
    tell("list file", list(&format!("{b}/file")));
    tell("remove all", fs::remove_dir_all(&a));
    tell("remove all", fs::remove_dir_all(format!("{out}/c")));
    tell("list", list(out));
}

fn names(out: &str) {
    tell("long", fs::write(format!("{out}/{}", "x".repeat(255)), "x"));
    tell("longer", fs::write(format!("{out}/{}", "x".repeat(256)), "x"));
    tell("unicode", fs::write(format!("{out}/größe"), "x"));
    tell("list", list(out));
    tell("out", fs::write(format!("{out}/../escaped"), "x"));
    tell("around", fs::write(format!("{out}/none/../x"), "x"));
}
