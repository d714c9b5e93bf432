//! Memory stays bounded, whatever is sent: its peak is watched by an allocator that counts.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{self, Read, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use encoding::{DecodeError, Deflate, Inflate, Reader, Source, decode};
use made::encoding;
use protocol::{DType, Rejection, Schema, Slot, Tensors};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that hands on to the system's, and counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `act` needs at most beyond what is there before it.
fn peak(act: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    act();
    PEAK.load(Ordering::Relaxed) - before
}

const MIB: usize = 1 << 20;

fn schema(count: usize) -> Schema {
    let slot = Slot { dtype: DType::F32, shape: vec![count] };
    [("w".to_owned(), slot)].into_iter().collect()
}

/// A model that is not there: its numbers follow from their places.
struct Imagined {
    factor: f32,
}

impl Source for Imagined {
    fn read(&self, _: &str, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (at, bytes) in buffer.as_chunks_mut().0.iter_mut().enumerate() {
            let place = offset_bytes / 4 + at as u64;
            *bytes = ((place % 1000) as f32 * self.factor).to_le_bytes();
        }
        Ok(())
    }
}

/// One test, so that no other allocates meanwhile.
#[test]
fn memory_is_bounded() {
    bombs_are_refused_early();
    headers_cost_no_more_than_they_are();
    large_updates_pass_by();
}

/// A gigabyte of zeros, said in a megabyte.
fn bombs_are_refused_early() {
    let mut deflate = Deflate::new(vec![], u64::MAX).unwrap();
    let zeros = vec![0; MIB];
    (0..1024).for_each(|_| deflate.write_all(&zeros).unwrap());
    let bomb: bytes::Bytes = deflate.finish().unwrap().into();
    assert!(bomb.len() < 6 * MIB, "{}", bomb.len());
    drop(zeros);
    let base: Tensors = made::trained(DType::F32, made::PERCEPTRON, 1).1;
    let encoding = encoding("delta+int8+deflate");
    let needed = peak(|| {
        let why = decode(&encoding, &base, &bomb).unwrap_err();
        assert_eq!(why.reason(), Some(Rejection::TooLarge), "{why}");
    });
    assert!(needed < 4 * MIB, "{needed}");
    let needed = peak(|| {
        let mut inflate = Inflate::new(&bomb[..], 512 * MIB as u64);
        let why = io::copy(&mut inflate, &mut io::sink()).unwrap_err();
        assert_eq!(DecodeError::from(why).reason(), Some(Rejection::TooLarge));
    });
    assert!(needed < MIB, "{needed}");
}

/// A header that claims billions of values for a model that has few.
fn headers_cost_no_more_than_they_are() {
    let schema = schema(100);
    let header = br#"{"__metadata__":{"encoding":"int8"},".scale":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]},"w":{"dtype":"I8","shape":[100],"data_offsets":[399999999996,400000000096]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    let int8 = encoding("int8");
    let needed = peak(|| {
        let len = file.len() as u64;
        assert!(Reader::open(&int8, &schema, &file[..], len).is_err());
        // Nor does it help to say that the file is so long.
        let len = 8 + header.len() as u64 + 400_000_000_096;
        assert!(Reader::open(&int8, &schema, &file[..], len).is_err());
    });
    assert!(needed < MIB, "{needed}");
}

/// Forty megabytes of update and as many of base, of which a few blocks are there at a time.
fn large_updates_pass_by() {
    const COUNT: usize = 10_000_000;
    let schema = schema(COUNT);
    for (text, encode_max, decode_max) in
        [("delta+int8+deflate", 2 * MIB, 3 * MIB), ("delta+topk:0.001+f16", 2 * MIB, MIB)]
    {
        let encoding = encoding(text);
        let job = encoding::Job {
            encoding: &encoding,
            schema: &schema,
            update: &Imagined { factor: 0.011 },
            base: &Imagined { factor: 0.01 },
            residual: None,
            seed: made::seed(1),
            metadata: made::metadata(),
        };
        let mut file = Vec::with_capacity(12 * MIB);
        let needed = peak(|| job.write(&mut file, &mut io::sink()).unwrap());
        assert!(needed < encode_max, "{text}: {needed}");
        if encoding.is_compressed() {
            let mut whole = Vec::with_capacity(12 * MIB);
            let needed = peak(|| {
                let mut inflate = Inflate::new(&file[..], encoding.file_bytes_max(&schema));
                let mut piece = [0; 4096];
                while let read @ 1.. = inflate.read(&mut piece).unwrap() {
                    whole.extend_from_slice(&piece[..read]);
                }
            });
            assert!(needed < MIB, "{text}: {needed}");
            file = whole;
        }
        let needed = peak(|| {
            let len = file.len() as u64;
            let reader = Reader::open(&encoding, &schema, &file[..], len).unwrap();
            let mut out = vec![0.0_f32; 1000];
            let base: Vec<f32> = (0..1000).map(|at| at as f32 * 0.01).collect();
            for from in (0..COUNT).step_by(1000 * 100) {
                reader.read_flat(from..from + 1000, &base, &mut out).unwrap();
            }
            reader.write_canonical(&Imagined { factor: 0.01 }, &mut io::sink()).unwrap();
        });
        assert!(needed < decode_max, "{text}: {needed}");
    }
}
