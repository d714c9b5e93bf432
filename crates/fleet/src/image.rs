//! Images in registries: what a tag means is asked once for all tasks of a round, or of one start,
//! before any of them is sent. For proplets that cannot ask a registry, the module comes with the
//! answer.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::{Entry, ImageRef, Letter as _, PropletId, RoundId, TaskId, Timestamp};

use crate::{
    Answer, Ask, Refusal, Spec,
    act::Acts,
    proplet::Proplet,
    record::STARTS,
    rollout::Rollout,
    spec::{FileRef, Placed},
    state::State,
};

/// Who gets modules out of registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Proplets, but for those that say that they do not.
    #[default]
    Proplet,
    /// The manager, for all of them.
    Manager,
}

/// What is to be found out about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As it was named.
    pub image: String,
    pub part: Part,
}

/// How much of an image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What its tag means now.
    Digest,
    /// The module, too.
    Module,
}

/// An image as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// By its digest.
    pub image: String,
    /// Where it was wanted.
    pub module: Option<Bytes>,
    /// Of the module, as the image has it.
    pub signature: Option<String>,
}

/// Who wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeker<R> {
    Round(RoundId),
    /// The start of one task, and how whoever asked for it is answered.
    Start {
        id: TaskId,
        reply: R,
    },
}

/// What the latest start of a task runs, whatever the tag means by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) image: String,
    /// Held for proplets that get it from here.
    pub(crate) file: Option<FileRef>,
    pub(crate) signature: Option<String>,
}

/// Rounds that wait until it is known what their image is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    waiting: BTreeMap<RoundId, Rollout>,
    /// What is to be asked; the end of the step takes it.
    pub(crate) asked: Vec<(Wanted, RoundId)>,
}

impl Images {
    pub(crate) fn wait(&mut self, rollout: Rollout) {
        self.waiting.insert(rollout.round().clone(), rollout);
    }
}

impl State {
    /// What has to be found out before a round's tasks can be sent.
    pub(crate) fn wanted_by(&self, rollout: &Rollout) -> Option<Wanted> {
        let start = rollout.start();
        let image = start.task_wasm_image.as_deref().filter(|_| start.file.is_none());
        self.wanted(image, || start.participants.iter().any(|it| !self.pulls(it)))
    }

    /// Holds a new round back until its image is known. It is on disk until then.
    pub(crate) fn await_image(&mut self, wanted: Wanted, rollout: Rollout, out: &mut Acts) {
        let start = rollout.start();
        self.limits
            .records
            .keep(out, || Entry::put_bytes(STARTS, &start.round_id, start.seal().payload.to_vec()));
        self.images.asked.push((wanted, rollout.round().clone()));
        self.images.wait(rollout.kept());
    }

    /// Whom the last life of the process has asked, its answer is lost.
    pub(crate) fn ask_again(&mut self) {
        let waiting = self.images.waiting.values();
        let asked = waiting.filter_map(|it| Some((self.wanted_by(it)?, it.round().clone())));
        let asked: Vec<_> = asked.collect();
        self.images.asked.extend(asked);
    }

    /// A round's image is known, or cannot be had: then nobody takes part, and is told why.
    pub(crate) fn image_found(
        &mut self,
        round: &RoundId,
        found: Result<Found, String>,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let Some(mut rollout) = self.images.waiting.remove(round) else { return };
        let start = rollout.start();
        let image = start.task_wasm_image.as_deref().unwrap_or_default();
        let found = self.or_let_them_try(image, &start.participants, found);
        rollout.found(found);
        self.roll_out(rollout, now, out);
    }

    /// What has to be found out before a task can be started as it is asked for; nothing also if it
    /// cannot be started anyway.
    pub(crate) fn wanted_to_start(&self, ask: &Ask) -> Option<(TaskId, Wanted)> {
        let Ask::StartTask(id) = ask else { return None };
        let task = self.tasks.get(id)?;
        task.at_rest("start").ok()?;
        self.place(&task.spec).ok()?;
        Some((id.clone(), self.wanted_for(&task.spec)?))
    }

    fn wanted_for(&self, spec: &Spec) -> Option<Wanted> {
        let image = spec.image_url.as_deref().filter(|_| spec.file.is_none());
        self.wanted(image, || match &spec.placed {
            Placed::Pinned(proplet) => !self.pulls(proplet),
            Placed::Anywhere | Placed::Everywhere => self.proplets.alive().any(|it| !it.pulls()),
        })
    }

    fn wanted(&self, image: Option<&str>, somebody_lacks_it: impl Fn() -> bool) -> Option<Wanted> {
        let image = image.filter(|image| ImageRef::is_meant(image))?.to_owned();
        let hands_over = match self.limits.image_delivery {
            Delivery::Manager => true,
            Delivery::Proplet => somebody_lacks_it(),
        };
        if hands_over {
            return Some(Wanted { image, part: Part::Module });
        }
        // What names no image is found out where it would be pulled.
        (!is_pinned(&image)).then_some(Wanted { image, part: Part::Digest })
    }

    /// Starts a task whose image is known now, unless it has become another meanwhile.
    pub(crate) fn start_found(
        &mut self,
        (id, wanted): (&TaskId, &Wanted),
        found: Result<Found, String>,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<Answer, Refusal> {
        let refused = |why: String| Refusal::Image { id: id.clone(), why };
        let on = self.tasks.get(id).and_then(|task| self.place(&task.spec).ok());
        let found = self.or_let_them_try(&wanted.image, on.iter().flatten(), found);
        let found = found.map_err(refused)?;
        let task = self.tasks.get(id).ok_or_else(|| Refusal::NoTask(id.clone()))?;
        task.at_rest("start")?;
        if task.spec.file.is_some() || task.spec.image_url.as_ref() != Some(&wanted.image) {
            return Err(refused("it was changed while its image was looked up".to_owned()));
        }
        let pinned = self.pin(&found, out).map_err(refused)?;
        self.unpin(id, out);
        self.tasks.change(id, |task| task.pinned = Some(Arc::new(pinned)));
        self.start(id, now, out).map(|()| Answer::Done)
    }

    /// A module that cannot be had for proplets of which it is not known whether they need it is left
    /// to them to get, if what it is has been settled already.
    fn or_let_them_try<'a>(
        &self,
        image: &str,
        on: impl IntoIterator<Item = &'a PropletId>,
        found: Result<Found, String>,
    ) -> Result<Found, String> {
        let may_pull = |it: &PropletId| self.proplets.get(it).is_none_or(Proplet::may_pull);
        found.or_else(|why| {
            if self.limits.image_delivery == Delivery::Proplet
                && is_pinned(image)
                && on.into_iter().all(may_pull)
            {
                return Ok(Found { image: image.to_owned(), module: None, signature: None });
            }
            Err(why)
        })
    }

    /// Holds what was found.
    pub(crate) fn pin(&mut self, found: &Found, out: &mut Acts) -> Result<Pinned, String> {
        let file = match &found.module {
            None => None,
            Some(module) if self.files.has_room(module, self.limits.files_len_max) => {
                Some(self.files.take(module.clone(), out))
            }
            Some(module) => {
                let (held, max) = (self.files.len(), self.limits.files_len_max);
                let len = module.len();
                return Err(format!(
                    "{} has {len} bytes; {held} of at most {max} for all files are taken",
                    found.image
                ));
            }
        };
        Ok(Pinned { image: found.image.clone(), file, signature: found.signature.clone() })
    }

    /// The next start of this task finds out anew what it runs.
    pub(crate) fn unpin(&mut self, id: &TaskId, out: &mut Acts) {
        let pinned = self.tasks.change(id, |task| task.pinned.take()).flatten();
        if let Some(file) = pinned.and_then(|it| it.file) {
            self.release_file(file, out);
        }
    }

    /// Whether a module out of a registry goes to this proplet, or to the shared topic, from here.
    pub(crate) fn hands_over(&self, to: Option<&PropletId>) -> bool {
        match (self.limits.image_delivery, to) {
            (Delivery::Manager, _) | (Delivery::Proplet, None) => true,
            (Delivery::Proplet, Some(proplet)) => !self.pulls(proplet),
        }
    }

    /// One that is not known yet will say.
    fn pulls(&self, proplet: &PropletId) -> bool {
        self.proplets.get(proplet).is_none_or(Proplet::pulls)
    }
}

fn is_pinned(image: &str) -> bool {
    image.parse::<ImageRef>().is_ok_and(|image| image.digest().is_some())
}
