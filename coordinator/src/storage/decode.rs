//! Decoding updates that came in pieces: from the file that came to one of the base model's
//! tensors, block by block, so that nothing that comes after knows of encodings.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use encoding::{DecodeError, Encoding, Inflate, ReadAt, Reader, Source, Stored};
use protocol::{
    Manifest, Rejection, Schema, Tensors,
    manifest::Format,
    tensor::safetensors::{Header, Metadata},
};
use round::{Kept, Objection, StoredBlob, Undecoded, objection};
use service::blobs::read_header;

use super::{Storage, chain};

/// Read and written at once.
const BUFFER: usize = 1 << 18;
/// Where an update stands while it is decompressed, and while it is decoded.
const INFLATING: &str = "update.inflated.tmp";
const DECODING: &str = "update.decoded.tmp";

struct OnDisk(File);

impl ReadAt for OnDisk {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset_bytes)
    }
}

impl Storage {
    /// Decodes the update that has come as `blob`, which is given back, and pins what it says.
    pub(super) fn decode(
        &self,
        blob: &Manifest,
        schema: &Schema,
        (encoding, base): (&Encoding, Option<Kept>),
    ) -> Result<StoredBlob, Undecoded> {
        let path = self.lock().blobs.finish(blob).map_err(|why| {
            let what = format!("what came is not what was offered: {why}");
            Undecoded::Refused(Objection::new(Rejection::Malformed, what))
        })?;
        let places = [INFLATING, DECODING].map(|name| self.dir.join(name));
        let base = self.source(schema, base);
        let written = base.and_then(|base| {
            write(&path, (encoding, schema), &*base, &places).map_err(|why| unreadable(&why))
        });
        let decoded = written.and_then(|()| self.take_over(&places[1]));
        // The room that they take may be what the next attempt lacks.
        places.iter().for_each(|place| drop(fs::remove_file(place)));
        let mut held = self.lock();
        if !held.needed.contains_key(&blob.sha256())
            && decoded.as_ref().map(|it| it.sha256) != Ok(blob.sha256())
            && let Err(why) = held.blobs.remove(&blob.sha256())
        {
            tracing::warn!(%why, "cannot remove a blob");
        }
        decoded
    }

    fn take_over(&self, place: &Path) -> Result<StoredBlob, Undecoded> {
        let bytes = fs::metadata(place).map_err(|why| Undecoded::Failed(why.to_string()))?.len();
        let chunk_bytes = self.limits.chunk_bytes_for(bytes);
        let chunk_bytes = chunk_bytes.map_err(|why| Undecoded::Failed(why.to_string()))?;
        let mut held = self.lock();
        let manifest = held.blobs.adopt(place, chunk_bytes, Format::safetensors());
        let sha256 = manifest.map_err(|why| Undecoded::Failed(chain(&why)))?.sha256();
        held.need(sha256);
        Ok(StoredBlob { sha256, bytes })
    }

    /// The numbers of the base model; none where the encoding does not need them.
    fn source(&self, schema: &Schema, base: Option<Kept>) -> Result<Box<dyn Source>, Undecoded> {
        let lost = |why: String| Undecoded::Failed(format!("the base model: {why}"));
        match base {
            None => Ok(Box::new(Tensors::default())),
            Some(Kept::Here(bytes)) => {
                let tensors = Tensors::from_canonical(schema, &bytes);
                Ok(Box::new(tensors.map_err(|why| lost(why.to_string()))?))
            }
            Some(Kept::Stored(blob)) => {
                let path = self.path(&blob).ok_or_else(|| lost("it is gone".to_owned()))?;
                let file = File::open(path).map_err(|why| lost(why.to_string()))?;
                let header = read_header(&file).map_err(|why| lost(why.to_string()))?;
                Ok(Box::new(Stored { header, file: OnDisk(file) }))
            }
        }
    }
}

fn write(
    from: &Path,
    (encoding, schema): (&Encoding, &Schema),
    base: &dyn Source,
    [inflated, decoded]: &[PathBuf; 2],
) -> Result<(), DecodeError> {
    let file = if encoding.is_compressed() {
        inflate(from, inflated, encoding.file_bytes_max(schema))?;
        File::open(inflated)?
    } else {
        File::open(from)?
    };
    let len = file.metadata()?.len();
    let reader = Reader::open(encoding, schema, OnDisk(file), len)?;
    let mut out = BufWriter::with_capacity(BUFFER, File::create(decoded)?);
    out.write_all(&Header::of(schema, Metadata::new()).write())?;
    reader.write_canonical(base, &mut out)?;
    out.flush()?;
    Ok(out.get_ref().sync_all()?)
}

fn inflate(from: &Path, to: &Path, bytes_max: u64) -> Result<(), DecodeError> {
    let mut inflate = Inflate::new(BufReader::with_capacity(BUFFER, File::open(from)?), bytes_max);
    let mut out = BufWriter::with_capacity(BUFFER, File::create(to)?);
    io::copy(&mut inflate, &mut out)?;
    out.flush()?;
    if inflate.finish()?.is_empty() {
        return Ok(());
    }
    Err(DecodeError::Zlib("something stands behind its end"))
}

fn unreadable(why: &DecodeError) -> Undecoded {
    match why.reason() {
        Some(_) => Undecoded::Refused(objection(why)),
        None => Undecoded::Failed(why.to_string()),
    }
}
