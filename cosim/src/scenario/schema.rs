//! The scenario format as a JSON schema, made from what is read.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use sim::Scenario;

/// The schema (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Scenario>();
    schema.insert("title".to_owned(), json!("Aileron scenario"));
    schema.to_value()
}
