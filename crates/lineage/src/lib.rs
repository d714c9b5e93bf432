//! lineage.
