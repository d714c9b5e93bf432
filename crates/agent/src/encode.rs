//! Writing an update as its round's encoding has it: what is asked of the shell, and how it is done
//! where all of it is in memory.

use bytes::Bytes;
use encoding::{EncodeError, Encoding};
use protocol::{
    Digest, Form, Manifest, Schema, TaskId, Tensors,
    message::{Model, Update},
};

use crate::{BaseModel, Failure, Residual, ResidualValues};

/// An update to be encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Encode {
    pub task: TaskId,
    pub attempt: u32,
    pub encoding: Encoding,
    /// What the guest made; without tensors if those are in a blob.
    pub update: Update,
    /// The pinned blob of its tensors, in the order of their names; not needed after this.
    pub blob: Option<Digest>,
    pub base: Option<BaseModel>,
    pub residual: Option<Residual>,
    /// What is longer becomes a blob.
    pub message_bytes_max: usize,
}

/// An update that is ready to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    pub payload: EncodedPayload,
    /// What it left out; nothing where its encoding leaves nothing out.
    pub residual: Option<Residual>,
}

/// The bytes of an encoded update.
#[derive(Clone, Debug, PartialEq)]
pub enum EncodedPayload {
    /// Fit for one message.
    Here(Bytes),
    /// A pinned blob.
    Stored(Manifest),
}

impl Encode {
    /// Encodes what is in memory: the file, of any length, and what was left out.
    pub fn here(&self) -> Result<(Bytes, Option<Residual>), Failure> {
        let Some(BaseModel::Here(base)) = &self.base else {
            return Err(Failure::new("host", "the base model is not in memory"));
        };
        let base = Model::read(base).map_err(|why| Failure::new("host", why.to_string()))?;
        let schema = base.tensors.schema();
        let update = self.tensors(&schema)?;
        let schema = schema_digest(&schema);
        let residual = self.residual.as_ref().filter(|it| it.schema == schema);
        let residual = residual.and_then(|it| match &it.values {
            ResidualValues::Here(bytes) => Some(bytes),
            ResidualValues::Stored(_) => None,
        });
        let metadata = self.update.metadata();
        let tensors = (&update, &base.tensors);
        let encoded = encoding::encode(&self.encoding, tensors, residual, self.seed(), metadata);
        let encoding::Encoded { file, residual } = encoded.map_err(|why| failed(&why))?;
        let values = ResidualValues::Here(residual);
        let residual = self.encoding.keeps_residual().then_some(Residual { schema, values });
        Ok((file, residual))
    }

    /// The update's tensors in the types of the model.
    pub fn tensors(&self, schema: &Schema) -> Result<Tensors, Failure> {
        let not_one = |why: String| {
            Failure::new("not_an_update", format!("output is not a valid update: {why}"))
        };
        let tensors = match self.update.form {
            Form::Safetensors => self.update.update.clone(),
            Form::Json => self.update.update.cast_to(schema).map_err(not_one)?,
        };
        match tensors.not_finite() {
            None => Ok(tensors),
            Some(name) => Err(not_one(format!("tensor {name:?} does not fit the model's type"))),
        }
    }

    /// What makes the dice of this update its own, and the same if it is made again.
    pub fn seed(&self) -> Digest {
        let Update { round_id, proplet_id, .. } = &self.update;
        Digest::of_parts([round_id.as_str().as_bytes(), proplet_id.as_str().as_bytes()])
    }
}

/// What tells models of one make from those of another.
pub fn schema_digest(schema: &Schema) -> Digest {
    Digest::of(&serde_json::to_vec(schema).expect("a schema serializes"))
}

/// Why an update could not be encoded.
pub fn failed(why: &EncodeError) -> Failure {
    let code = match why {
        EncodeError::Schema(_)
        | EncodeError::NotFinite { .. }
        | EncodeError::Range { .. }
        | EncodeError::Header { .. } => "encoding",
        EncodeError::Shape(_) => "not_an_update",
        EncodeError::Io(_) => "host",
    };
    Failure::new(code, format!("the update cannot be encoded: {why}"))
}
