//! What a round knows of the model that it starts from; its numbers only where they are needed.

use encoding::Encoding;
use protocol::{
    Form, Manifest, ModelVersion, Rejection, Schema, Tensors,
    message::{Model, Update},
    tensor::safetensors::HEADER_LEN_MAX,
};

use crate::{Kept, Made, arrival::Objection};

/// What an update has to fit, and what a new model takes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub schema: Schema,
    /// A round's model is published as its base model was.
    pub form: Form,
    /// Its numbers, in its own types.
    pub values: Option<Kept>,
}

impl Base {
    /// What is known from the model itself.
    pub fn of(model: &Model) -> Self {
        let values = Some(Kept::of(&model.tensors));
        Self { schema: model.tensors.schema(), form: model.form, values }
    }

    /// The model that follows.
    pub(crate) fn model(&self, version: ModelVersion, tensors: Tensors) -> Model {
        Model { version, tensors, form: self.form }
    }

    /// What is known of the model that was made from it.
    pub(crate) fn followed_by(&self, made: &Made) -> Self {
        let values = match made {
            Made::Here(tensors) => Some(Kept::of(tensors)),
            Made::Stored { .. } => None,
        };
        Self { values, ..self.without_values() }
    }

    /// The tensors of an update, in the types of what it has to hold: `schema`. The numbers of JSON
    /// have no type: they are rounded to it. Those of a file have one, and it has to be the same.
    pub(crate) fn fit(update: &Update, schema: &Schema) -> Result<Tensors, Objection> {
        let shape = |difference| Objection { reason: Rejection::Shape, what: difference };
        let tensors = match update.form {
            Form::Json => update.update.cast_to(schema).map_err(shape)?,
            Form::Safetensors => match schema.difference(&update.update.schema()) {
                None => update.update.clone(),
                Some(difference) => return Err(shape(difference)),
            },
        };
        match tensors.not_finite() {
            None => Ok(tensors),
            Some(name) => {
                let what = format!("tensor {name:?} is not finite in the type of the base model");
                Err(Objection { reason: Rejection::NotFinite, what })
            }
        }
    }
}

/// Whether a blob can be an update, by its length alone: the numbers, and a header that may
/// take as many bytes as any. `schema` is what it has to hold. What is encoded may be as short as it likes.
pub(crate) fn fit_blob(
    blob: &Manifest,
    schema: &Schema,
    encoding: Option<&Encoding>,
    len_max: u64,
) -> Result<(), Objection> {
    let reject = |reason, what| Err(Objection { reason, what });
    let len = blob.bytes();
    let data = schema.byte_len() as u64;
    if len > len_max {
        let what = format!("{len} bytes in pieces, at most {len_max} are taken");
        return reject(Rejection::TooLarge, what);
    }
    let plain = (data, data + HEADER_LEN_MAX as u64 + 8);
    let (least, most) = encoding.map_or(plain, |it| (1, it.file_bytes_max(schema)));
    if !(least..=most).contains(&len) {
        let what = format!("{len} bytes in pieces, the base model takes {least} to {most}");
        return reject(Rejection::Shape, what);
    }
    Ok(())
}
