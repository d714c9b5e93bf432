//! A model and a state that are written block by block are those that memory would hold.

use std::fs;

use aggregate::{Guard, NormBound, STRATEGIES};
use protocol::{Form, ModelUri, ModelVersion, Tensors, message::StrategySpec, tensor::Slot};
use round::{Beside, Made, Report, State, average};
use service::{Clock as _, SystemClock};

use super::*;

const WIDTH: usize = 3000;

fn schema(dtype: DType) -> Schema {
    let slot = |count| Slot { dtype, shape: vec![count] };
    // A control variate stands between these two.
    [("a".to_owned(), slot(1000)), ("w".to_owned(), slot(WIDTH - 1000))].into_iter().collect()
}

fn canonical(schema: &Schema, seed: usize) -> Bytes {
    let value = |at: usize| ((at * 31 + seed * 101) % 977) as f64 / 977.0 - 0.5;
    let values: Vec<f64> = (0..schema.parameters()).map(value).collect();
    Tensors::unflatten(schema, &values).unwrap().canonical()
}

fn job(strategy: &str, dtype: DType, guard: Guard, state: Option<State>) -> Job {
    let spec = StrategySpec { name: strategy.to_owned(), params: BTreeMap::new() };
    let base = schema(dtype);
    let brought = if spec.has_control() { base.with_control().unwrap() } else { base.clone() };
    let member = |index: usize| JobMember {
        proplet: format!("p{index}").parse().unwrap(),
        num_samples: 10 + index as u64,
        loss: Some(0.5 + index as f64),
        steps: Some(1 + index as u64),
        values: Kept::Here(canonical(&brought, 1 + index)),
        staleness: 0,
        base_values: None,
    };
    Job {
        round: "r".parse().unwrap(),
        base: ModelUri::global(ModelVersion(1)),
        schema: base.clone(),
        form: Form::Safetensors,
        base_values: Some(Kept::Here(canonical(&base, 0))),
        strategy: spec,
        guard,
        state,
        members: (0..7).map(member).collect(),
    }
}

fn in_memory(job: &Job, work: &Work) -> (Bytes, Beside) {
    let report = average(job, work);
    let Report::Aggregated { model: Made::Here(tensors), beside, .. } = report else {
        panic!("{report:?}");
    };
    (tensors.canonical(), beside)
}

/// The data of a file, behind its header.
fn data(path: &Path) -> Bytes {
    let header = read_header(&File::open(path).unwrap()).unwrap();
    Bytes::from(fs::read(path).unwrap()).slice(header.data_start()..)
}

#[test]
fn a_model_that_many_start_from_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job("fedbuff", DType::F32, Guard::default(), None);
    let file = |seed: usize| {
        let data = canonical(&job.schema, seed);
        let header = Header::of(&job.schema, Metadata::new()).write();
        let sha256 = Digest::of(&data);
        fs::write(dir.path().join(sha256.to_string()), [&header[..], &data].concat()).unwrap();
        Kept::Stored(StoredBlob { sha256, bytes: data.len() as u64 })
    };
    let (own, older) = (file(0), file(9));
    for member in job.members.iter_mut().skip(2) {
        (member.staleness, member.base_values) = (1, Some(older.clone()));
    }
    job.base_values = Some(own);
    let opened = std::cell::Cell::new(0);
    let to = Places { model: dir.path().join("model"), state: dir.path().join("state") };
    let path = |blob: &StoredBlob| {
        opened.set(opened.get() + 1);
        Some(dir.path().join(blob.sha256.to_string()))
    };
    average_to_file(&job, path, &to, &Work { threads: 2, block: 1024 }).unwrap();
    assert_eq!(opened.get(), 2, "seven start from these");
}

#[test]
fn what_is_written_to_files_is_what_memory_would_hold() {
    let dir = tempfile::tempdir().unwrap();
    let to = Places { model: dir.path().join("model"), state: dir.path().join("state") };
    let work = Work { threads: 2, block: 1024 };
    for strategy in STRATEGIES {
        for (dtype, norm) in [
            (DType::F32, NormBound::Off),
            (DType::F64, NormBound::Clip { norm_max: 20.0 }),
            (DType::F32, NormBound::Reject { norm_max: 22.5 }),
        ] {
            let guard = Guard { norm, share_max: Some(0.2) };
            let mut state: Option<State> = None;
            for round in 0..2 {
                let job = job(strategy.name, dtype, guard, state.clone());
                let (model, beside) = in_memory(&job, &work);
                // The state of the round before is in a file now.
                let kept = dir.path().join("kept");
                let mut filed = job.clone();
                if let Some(State { vectors, values: Kept::Here(bytes) }) = &state {
                    let schema = state::schema(vectors.len(), &job);
                    let header = Header::of(&schema, Metadata::new()).write();
                    fs::write(&kept, [&header[..], bytes].concat()).unwrap();
                    let sha256 = Digest::of(bytes);
                    let blob = StoredBlob { sha256, bytes: bytes.len() as u64 };
                    filed.state =
                        Some(State { vectors: vectors.clone(), values: Kept::Stored(blob) });
                }
                let made = average_to_file(&filed, |_| Some(kept.clone()), &to, &work).unwrap();
                assert_eq!(data(&to.model), model, "{strategy:?} {dtype:?} round {round}");
                assert_eq!(made.left_out, beside.left_out);
                match &beside.state {
                    None => assert!(made.vectors.is_empty()),
                    Some(State { vectors, values: Kept::Here(bytes) }) => {
                        assert_eq!((&made.vectors, &data(&to.state)), (vectors, bytes));
                    }
                    Some(State { values: Kept::Stored(_), .. }) => panic!("it is in memory"),
                }
                state = beside.state;
            }
        }
    }
}

#[test]
fn late_updates_are_compared_with_their_own_base_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let to = Places { model: dir.path().join("model"), state: dir.path().join("state") };
    let work = Work { threads: 2, block: 1024 };
    let older = dir.path().join("older");
    for norm in [NormBound::Off, NormBound::Clip { norm_max: 20.0 }] {
        let fresh = job("fedbuff", DType::F32, Guard { norm, share_max: None }, None);
        let bytes = canonical(&schema(DType::F32), 9);
        let header = Header::of(&fresh.schema, Metadata::new()).write();
        fs::write(&older, [&header[..], &bytes].concat()).unwrap();
        let blob = StoredBlob { sha256: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let with_base = |base: Kept| {
            let mut late = fresh.clone();
            (late.members[2].staleness, late.members[2].base_values) = (3, Some(base));
            late
        };
        let (model, _) = in_memory(&with_base(Kept::Here(bytes)), &work);
        average_to_file(&with_base(Kept::Stored(blob)), |_| Some(older.clone()), &to, &work)
            .unwrap();
        assert_eq!(data(&to.model), model, "{norm:?}");
        assert_ne!(model, in_memory(&fresh, &work).0, "the older base makes a difference");
    }
}

/// What memory this process has taken at most, in bytes.
fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// `AILERON_LARGE_DIR` names a directory with room for 4.4 GB and eight models; the 50 updates are
/// ten files, five times each.
#[test]
#[ignore = "needs gigabytes of disk, and minutes"]
fn fifty_updates_of_a_hundred_million_numbers_need_little_memory() {
    const NUMBERS: usize = 100_000_000;
    let dir = match std::env::var_os("AILERON_LARGE_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let slot = |count| Slot { dtype: DType::F32, shape: vec![count] };
    let schema: Schema = [("a".to_owned(), slot(NUMBERS))].into_iter().collect();
    let header = Header::of(&schema, Metadata::new()).write();
    let digest = |index: usize| Digest::of(&index.to_le_bytes());
    for index in 0..10 {
        let file = File::create(dir.path().join(digest(index).to_string())).unwrap();
        file.write_all_at(&header, 0).unwrap();
        for block in 0..100 {
            let value = |at: usize| ((at * 31 + index * 101 + block * 7) % 97_711) as f32 / 1e5;
            let bytes: Vec<u8> =
                (0..NUMBERS / 100).flat_map(|at| value(at).to_le_bytes()).collect();
            file.write_all_at(&bytes, (header.len() + block * NUMBERS / 25) as u64).unwrap();
        }
    }
    let member = |index: usize| JobMember {
        proplet: format!("p{index}").parse().unwrap(),
        num_samples: 10 + index as u64,
        loss: None,
        steps: None,
        values: Kept::Stored(StoredBlob { sha256: digest(index % 10), bytes: 4 * NUMBERS as u64 }),
        staleness: 0,
        base_values: None,
    };
    let mut job = job("fedavg", DType::F32, Guard::default(), None);
    job.schema = schema;
    job.base_values = None;
    let mut made = vec![];
    for (threads, turn) in [(1, 0), (2, 17), (2, 0)] {
        job.members = (0..50).map(|index| member((index + turn) % 50)).collect();
        let to = Places { model: dir.path().join("model"), state: dir.path().join("state") };
        let began = SystemClock.now();
        let path = |blob: &StoredBlob| Some(dir.path().join(blob.sha256.to_string()));
        average_to_file(&job, path, &to, &Work { threads, ..Work::default() }).unwrap();
        let (took, peak) = (SystemClock.now().since(began), memory_peak() >> 20);
        let model = std::process::Command::new("sha256sum").arg(&to.model).output().unwrap();
        made.push(model.stdout);
        assert!(peak < 1500, "{peak} MiB");
        io::Write::write_all(
            &mut io::stderr(),
            format!("{threads} threads: {took:?}, at most {peak} MiB\n").as_bytes(),
        )
        .unwrap();
    }
    assert!(made.iter().all(|model| *model == made[0]), "{made:?}");
}
