//! Writing updates as their rounds' encodings have them: in memory where all of it is there, else
//! from file to file.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use agent::{
    BaseModel, Encode, Encoded, EncodedPayload, Failure, Residual, ResidualValues, failed,
    schema_digest,
};
use bytes::Bytes;
use encoding::{EncodeError, Job, ReadAt, Source, Stored};
use protocol::{DType, Digest, Manifest, Schema, manifest::Format, message::Model};
use service::blobs::read_header;

use super::{Owner, failure, unkept};

/// Where an encoded update stands while it is written, and what it leaves out.
const ENCODING: &str = "encoded.tmp";
const LEAVING_OUT: &str = "residual.tmp";

/// Written at once.
const BUFFER: usize = 1 << 18;

struct OnDisk(File);

impl ReadAt for OnDisk {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset_bytes)
    }
}

impl Owner {
    /// Encodes an update; its blob is given back, whatever comes of it.
    pub(super) fn encode(&mut self, encode: &Encode) -> Result<Encoded, Failure> {
        let encoded = match (&encode.base, encode.blob) {
            (Some(BaseModel::Here(_)), None) => self.encode_here(encode),
            (Some(BaseModel::Here(_) | BaseModel::Stored(_)) | None, _) => {
                self.encode_files(encode)
            }
        };
        encode.blob.iter().for_each(|blob| self.give_back(blob));
        encoded
    }

    fn encode_here(&mut self, encode: &Encode) -> Result<Encoded, Failure> {
        let (file, residual) = encode.here()?;
        if file.len() <= encode.message_bytes_max {
            return Ok(Encoded { payload: EncodedPayload::Here(file), residual });
        }
        let chunk_bytes = self.chunk_bytes(file.len() as u64)?;
        let blob = self.blobs.put(&file, chunk_bytes, Format::safetensors());
        let blob = blob.map_err(|why| unkept(&why))?;
        self.need(blob.sha256());
        Ok(Encoded { payload: EncodedPayload::Stored(blob), residual })
    }

    fn encode_files(&mut self, encode: &Encode) -> Result<Encoded, Failure> {
        let (schema, base) = self.base(encode.base.as_ref())?;
        let update = self.update(encode, &schema)?;
        let known = schema_digest(&schema);
        let residual = encode.residual.as_ref().filter(|it| it.schema == known);
        let residual = residual.and_then(|it| self.residual(it, &schema));
        let job = Job {
            encoding: &encode.encoding,
            schema: &schema,
            update: &*update,
            base: &*base,
            residual: residual.as_deref(),
            seed: encode.seed(),
            metadata: encode.update.metadata(),
        };
        let places = [ENCODING, LEAVING_OUT].map(|name| self.dir.join(name));
        let kept = write(&job, &places).map_err(|why| failed(&why));
        let kept = kept.and_then(|()| self.keep(encode, known, &places));
        // The room that they take may be what the next attempt lacks.
        places.iter().for_each(|place| drop(fs::remove_file(place)));
        kept
    }

    fn keep(
        &mut self,
        encode: &Encode,
        schema: Digest,
        [file, rest]: &[PathBuf; 2],
    ) -> Result<Encoded, Failure> {
        let unread = |why: io::Error| failure("host", format!("the encoded update: {why}"));
        let len = fs::metadata(file).map_err(unread)?.len();
        // An update to a model in pieces is offered, however short it is.
        let is_short = matches!(encode.base, Some(BaseModel::Here(_)))
            && len <= encode.message_bytes_max as u64;
        let payload = if is_short {
            EncodedPayload::Here(fs::read(file).map_err(unread)?.into())
        } else {
            EncodedPayload::Stored(self.adopt_file(file, len)?)
        };
        let residual = if encode.encoding.keeps_residual() {
            let len = fs::metadata(rest).map_err(unread)?.len();
            let rest = self.adopt_file(rest, len).inspect_err(|_| match &payload {
                EncodedPayload::Here(_) => {}
                EncodedPayload::Stored(blob) => self.give_back(&blob.sha256()),
            })?;
            Some(Residual { schema, values: ResidualValues::Stored(rest.sha256()) })
        } else {
            None
        };
        Ok(Encoded { payload, residual })
    }

    fn adopt_file(&mut self, file: &Path, len: u64) -> Result<Manifest, Failure> {
        let chunk_bytes = self.chunk_bytes(len)?;
        let blob = self.blobs.adopt(file, chunk_bytes, Format::safetensors());
        let blob = blob.map_err(|why| unkept(&why))?;
        self.need(blob.sha256());
        Ok(blob)
    }

    /// The base model's tensors, wherever they are.
    fn base(&mut self, base: Option<&BaseModel>) -> Result<(Schema, Box<dyn Source>), Failure> {
        let unread = |why: String| failure("host", format!("the base model cannot be read: {why}"));
        let payload: Bytes = match base {
            None => return Err(unread("there is none".to_owned())),
            Some(BaseModel::Here(payload)) => payload.clone(),
            Some(BaseModel::Stored(sha256)) => {
                let path = self.blobs.path(sha256).ok_or_else(|| unread("it is gone".into()))?;
                match open(&path) {
                    Ok(stored) => return Ok((stored.header.schema(), Box::new(stored))),
                    // It may be text, which nobody publishes that is too long for memory.
                    Err(_) => fs::read(&path).map_err(|why| unread(why.to_string()))?.into(),
                }
            }
        };
        let model = Model::read(&payload).map_err(|why| unread(why.to_string()))?;
        Ok((model.tensors.schema(), Box::new(model.tensors)))
    }

    /// What the guest made, in the types of the model.
    fn update(&mut self, encode: &Encode, schema: &Schema) -> Result<Box<dyn Source>, Failure> {
        let Some(sha256) = encode.blob else { return Ok(Box::new(encode.tensors(schema)?)) };
        let gone = || failure("host", "the update is gone");
        let path = self.blobs.path(&sha256).ok_or_else(gone)?;
        let stored = open(&path).map_err(|why| failure("host", format!("the update: {why}")))?;
        match schema.difference(&stored.header.schema()) {
            None => Ok(Box::new(stored)),
            Some(difference) => Err(failed(&EncodeError::Shape(difference))),
        }
    }

    /// What was left out before; nothing if that is gone.
    fn residual(&mut self, residual: &Residual, schema: &Schema) -> Option<Box<dyn ReadAt>> {
        let expected = (schema.parameters() * DType::F32.size()) as u64;
        let (len, values): (u64, Box<dyn ReadAt>) = match &residual.values {
            ResidualValues::Here(bytes) => (bytes.len() as u64, Box::new(bytes.clone())),
            ResidualValues::Stored(sha256) => {
                let file = File::open(self.blobs.path(sha256)?).ok()?;
                (file.metadata().ok()?.len(), Box::new(OnDisk(file)))
            }
        };
        (len == expected).then_some(values)
    }
}

fn open(path: &Path) -> io::Result<Stored<OnDisk>> {
    let file = File::open(path)?;
    let header = read_header(&file)?;
    Ok(Stored { header, file: OnDisk(file) })
}

fn write(job: &Job<'_>, [file, rest]: &[PathBuf; 2]) -> Result<(), EncodeError> {
    let create = |path| Ok::<_, io::Error>(BufWriter::with_capacity(BUFFER, File::create(path)?));
    let (mut file, mut rest) = (create(file)?, create(rest)?);
    job.write(&mut file, &mut rest)?;
    file.flush()?;
    Ok(rest.flush()?)
}
