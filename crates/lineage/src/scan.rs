//! What to make of the files that are there at the start.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Digest, ModelVersion};

use crate::{Found, FoundContent, Note, record::Stored};

/// The line of models as the files show it.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Versions without a record that continue the line.
    pub(crate) adopted: Vec<(ModelVersion, Stored)>,
    /// Recorded versions whose bytes are not there.
    pub(crate) damaged: BTreeSet<ModelVersion>,
    /// Files to be moved aside.
    pub(crate) quarantine: Vec<ModelVersion>,
    pub(crate) notes: Vec<Note>,
}

/// Holds files against records.
/// `incoming` is the version that was coming in pieces, and its digest: its file need not say which
/// version it is.
pub(crate) fn survey(
    records: &BTreeMap<ModelVersion, Stored>,
    incoming: Option<(ModelVersion, Digest)>,
    found: Vec<Found>,
) -> Survey {
    let mut survey = Survey::default();
    let found: BTreeMap<_, _> = found.into_iter().map(|f| (f.version, f.content)).collect();
    for (version, stored) in records {
        match found.get(version) {
            None => {
                survey.damaged.insert(*version);
                survey.notes.push(Note::Missing { version: *version });
            }
            Some(Ok(content)) if content.digest == stored.digest => {}
            Some(Ok(content)) => {
                let what = format!("digest {}, recorded is {}", content.digest, stored.digest);
                survey.spoil(*version, what);
            }
            Some(Err(what)) => survey.spoil(*version, what.clone()),
        }
    }
    let mut next = records.last_key_value().map_or(ModelVersion(0), |(newest, _)| newest.next());
    for (version, content) in found {
        if records.contains_key(&version) {
            continue;
        }
        match content.and_then(|content| intact(version, incoming, content)) {
            Ok(stored) if version == next => {
                survey.adopted.push((version, stored));
                survey.notes.push(Note::Adopted { version });
                next = version.next();
            }
            Ok(_) => survey.notes.push(Note::Stray { version }),
            Err(what) => {
                survey.quarantine.push(version);
                survey.notes.push(Note::Damaged { version, what });
            }
        }
    }
    survey
}

impl Survey {
    fn spoil(&mut self, version: ModelVersion, what: String) {
        self.damaged.insert(version);
        self.quarantine.push(version);
        self.notes.push(Note::Damaged { version, what });
    }
}

fn intact(
    version: ModelVersion,
    incoming: Option<(ModelVersion, Digest)>,
    content: FoundContent,
) -> Result<Stored, String> {
    if incoming == Some((version, content.digest)) {
        return Ok(Stored { digest: content.digest, len: content.len, form: content.form });
    }
    let claims = content.claims;
    let claimed = claims.unwrap_or_else(|| Err("was not looked into".to_owned()))?;
    if claimed != version {
        return Err(format!("holds version {claimed}"));
    }
    Ok(Stored { digest: content.digest, len: content.len, form: content.form })
}
