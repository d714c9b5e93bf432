//! The shelf's way with models that are too large to be in memory as a whole.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use bytes::Bytes;
use lineage::{FoundContent, MODEL_LEN_MAX, Offer};
use protocol::{
    Form, Manifest, ModelVersion,
    manifest::{CHUNK_BYTES_MAX, Format},
    tensor::safetensors::{HEADER_LEN_MAX, Header},
};
use service::{
    BlobError, Blobs,
    blobs::{manifest_of, read_piece},
    settings::Limits,
};

use crate::shelf::{Shelf, ShelfError, failed};

/// A file that is larger is looked at without being read as a whole.
pub(crate) const LARGE: u64 = 16 << 20;

/// Why a blob is not a version's file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// That can change.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// That cannot.
    #[error("{0}")]
    NoModel(String),
}

impl Shelf {
    /// What a version's file consists of.
    pub(crate) fn survey(
        &self,
        version: ModelVersion,
        limits: Limits,
    ) -> Result<Manifest, BlobError> {
        let (path, form) = self.file(version);
        let len = fs::metadata(&path).map_or(0, |meta| meta.len());
        manifest_of(&path, limits.chunk_bytes_for(len)?, format(form))
    }

    pub(crate) fn read_chunk(
        &self,
        version: ModelVersion,
        manifest: &Manifest,
        index: u32,
    ) -> Result<Bytes, BlobError> {
        read_piece(&self.file(version).0, manifest, index)
    }

    /// Makes a blob that is complete a version's file, if it is a model.
    pub(crate) fn adopt(
        &self,
        version: ModelVersion,
        blobs: &mut Blobs,
        manifest: &Manifest,
    ) -> Result<Form, AdoptError> {
        let from = match blobs.finish(manifest) {
            Ok(from) => from,
            Err(why @ BlobError::Digest { .. }) => {
                return Err(AdoptError::NoModel(why.to_string()));
            }
            Err(why) => return Err(why.into()),
        };
        let form = match claims(&from) {
            Ok((form, claimed)) if claimed.is_none_or(|claimed| claimed == version) => form,
            Ok((_, claimed)) => {
                blobs.remove(&manifest.sha256())?;
                let claimed = claimed.unwrap_or_default();
                return Err(AdoptError::NoModel(format!("it holds version {claimed}")));
            }
            Err(what) => {
                blobs.remove(&manifest.sha256())?;
                return Err(AdoptError::NoModel(what));
            }
        };
        if self.file(version).0.exists() {
            self.quarantine(version)?;
        }
        blobs.hand_over(&manifest.sha256(), &self.path(version, form))?;
        Ok(form)
    }

    /// As far as a file can be looked at without having it in memory.
    pub(crate) fn look_at_large(&self, version: ModelVersion) -> Result<FoundContent, String> {
        let (path, form) = self.file(version);
        let manifest = manifest_of(&path, CHUNK_BYTES_MAX, format(form));
        let manifest = manifest.map_err(|why| why.to_string())?;
        let claimed = claims(&path).and_then(|(_, claimed)| {
            claimed.ok_or_else(|| "does not say which version it is".to_owned())
        });
        let (digest, len) = (manifest.sha256(), manifest.bytes());
        Ok(FoundContent { digest, len, form, claims: Some(claimed) })
    }
}

/// Whether a file is a model, in which form, and which version it says that it is.
fn claims(path: &Path) -> Result<(Form, Option<ModelVersion>), String> {
    let why = |error: ShelfError| error.to_string();
    let file = File::open(path).map_err(failed("open", path)).map_err(why)?;
    let len = file.metadata().map_err(failed("look at", path)).map_err(why)?.len();
    let mut start = vec![];
    let head = file.take(HEADER_LEN_MAX as u64 + 8).read_to_end(&mut start);
    head.map_err(failed("read", path)).map_err(why)?;
    match Form::of(&start) {
        Form::Safetensors => {
            let header = Header::read(&start, len).map_err(|why| why.to_string())?;
            let claimed = header.metadata.get("version").map(|text| text.parse().map(ModelVersion));
            let claimed = claimed.transpose().map_err(|why| format!("version: {why}"))?;
            Ok((Form::Safetensors, claimed))
        }
        Form::Json if len > MODEL_LEN_MAX as u64 => {
            Err(format!("text of {len} bytes, at most {MODEL_LEN_MAX} are read"))
        }
        Form::Json => {
            let bytes = fs::read(path).map_err(failed("read", path)).map_err(why)?;
            let offer = Offer::read(bytes.into()).map_err(|why| why.to_string())?;
            Ok((Form::Json, Some(offer.version())))
        }
    }
}

fn format(form: Form) -> Format {
    match form {
        Form::Safetensors => Format::safetensors(),
        Form::Json => Format::json(),
    }
}
