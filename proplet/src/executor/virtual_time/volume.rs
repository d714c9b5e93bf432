//! A tree of files in memory: the nodes, and what may be done with each of them.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Index of a node; the root's is zero.
pub(super) type Ino = usize;

pub(super) const ROOT: Ino = 0;

/// What can go wrong with a file, in the words of WASI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileError {
    #[error("bad descriptor")]
    BadDescriptor,
    #[error("it exists")]
    Exists,
    #[error("invalid")]
    Invalid,
    #[error("it is a directory")]
    IsDirectory,
    #[error("the name is too long")]
    NameTooLong,
    #[error("there is no such file")]
    NoEntry,
    #[error("it is no directory")]
    NotDirectory,
    #[error("it is not empty")]
    NotEmpty,
    #[error("not permitted")]
    NotPermitted,
    /// More was written than may be: this ends the guest.
    #[error("too much was written")]
    Quota,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A file from outside, shared by everybody who reads it.
    Given(Bytes),
    /// A file that the guest made.
    Made(Vec<u8>),
    Dir(BTreeMap<String, Ino>),
}

#[derive(Clone, Debug)]
struct Node {
    content: Content,
    accessed_ns: Option<u64>,
    modified_ns: Option<u64>,
    /// How often it is open, and whether it has a name; without either it is gone.
    open: u32,
    named: bool,
}

/// A tree of files.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    nodes: Vec<Option<Node>>,
    free: Vec<Ino>,
    bytes: u64,
}

/// What is known of a node without opening it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) is_dir: bool,
    pub(super) size: u64,
    /// None: as old as the run.
    pub(super) accessed_ns: Option<u64>,
    pub(super) modified_ns: Option<u64>,
}

impl Volume {
    pub(super) fn empty() -> Self {
        let mut volume = Self { nodes: Vec::new(), free: Vec::new(), bytes: 0 };
        volume.add(Content::Dir(BTreeMap::new()), None);
        volume
    }

    /// Puts a file at a path of plain names, and makes the directories on the way; none if it
    /// cannot lie there.
    pub(super) fn put(&mut self, path: &str, bytes: Bytes) -> Option<()> {
        path.split('/').try_for_each(plain)?;
        let mut at = ROOT;
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        for dir in dirs.split('/').filter(|_| !dirs.is_empty()) {
            at = match self.entry(at, dir) {
                Ok(next) => next,
                Err(FileError::NoEntry) => {
                    self.insert(at, dir, Content::Dir(BTreeMap::new()), None).ok()?
                }
                Err(_) => return None,
            };
        }
        self.insert(at, name, Content::Given(bytes), None).ok().map(|_| ())
    }

    /// Makes a node with a name in a directory.
    pub(super) fn insert(
        &mut self,
        dir: Ino,
        name: &str,
        content: Content,
        now_ns: Option<u64>,
    ) -> Result<Ino, FileError> {
        if self.dir(dir)?.contains_key(name) {
            return Err(FileError::Exists);
        }
        let ino = self.add(content, now_ns);
        self.dir_mut(dir)?.insert(name.to_owned(), ino);
        Ok(ino)
    }

    /// The node of that name in a directory.
    pub(super) fn entry(&self, dir: Ino, name: &str) -> Result<Ino, FileError> {
        self.dir(dir)?.get(name).copied().ok_or(FileError::NoEntry)
    }

    /// Names and nodes in a directory, in the order of the names.
    pub(super) fn entries(&self, dir: Ino) -> Result<Vec<(String, Ino)>, FileError> {
        Ok(self.dir(dir)?.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.dir(ino).is_ok()
    }

    pub(super) fn stat(&self, ino: Ino) -> Result<Stat, FileError> {
        let node = self.node(ino)?;
        let (is_dir, size) = match &node.content {
            Content::Given(bytes) => (false, bytes.len()),
            Content::Made(bytes) => (false, bytes.len()),
            Content::Dir(entries) => (true, entries.len()),
        };
        let Node { accessed_ns, modified_ns, .. } = *node;
        Ok(Stat { is_dir, size: size as u64, accessed_ns, modified_ns })
    }

    pub(super) fn set_times(
        &mut self,
        ino: Ino,
        accessed_ns: Option<u64>,
        modified_ns: Option<u64>,
    ) -> Result<(), FileError> {
        let node = self.node_mut(ino)?;
        node.accessed_ns = accessed_ns.or(node.accessed_ns);
        node.modified_ns = modified_ns.or(node.modified_ns);
        Ok(())
    }

    /// The whole file.
    pub(super) fn read(&self, ino: Ino) -> Result<&[u8], FileError> {
        match &self.node(ino)?.content {
            Content::Given(bytes) => Ok(bytes),
            Content::Made(bytes) => Ok(bytes),
            Content::Dir(_) => Err(FileError::IsDirectory),
        }
    }

    /// Writes at an offset, filling a gap with zeros; never beyond `bytes_max` in all files.
    pub(super) fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        (now_ns, bytes_max): (u64, u64),
    ) -> Result<(), FileError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(FileError::Quota)?;
        if end > self.stat(ino)?.size {
            self.resize(ino, end, (now_ns, bytes_max))?;
        }
        let from = usize::try_from(offset).map_err(|_| FileError::Quota)?;
        let node = self.node_mut(ino)?;
        node.modified_ns = Some(now_ns);
        match &mut node.content {
            Content::Made(file) => file[from..from + bytes.len()].copy_from_slice(bytes),
            Content::Given(_) => return Err(FileError::NotPermitted),
            Content::Dir(_) => return Err(FileError::IsDirectory),
        }
        Ok(())
    }

    /// Cuts or extends a file; never beyond `bytes_max` in all files.
    pub(super) fn resize(
        &mut self,
        ino: Ino,
        size: u64,
        (now_ns, bytes_max): (u64, u64),
    ) -> Result<(), FileError> {
        if self.is_dir(ino) {
            return Err(FileError::IsDirectory);
        }
        let others = self.bytes - self.stat(ino)?.size;
        let len = usize::try_from(size).map_err(|_| FileError::Quota)?;
        if others.saturating_add(size) > bytes_max {
            return Err(FileError::Quota);
        }
        let node = self.node_mut(ino)?;
        match &mut node.content {
            Content::Made(file) => file.resize(len, 0),
            Content::Given(_) => return Err(FileError::NotPermitted),
            Content::Dir(_) => return Err(FileError::IsDirectory),
        }
        node.modified_ns = Some(now_ns);
        self.bytes = others + size;
        Ok(())
    }

    /// Takes the name from a node.
    pub(super) fn unlink(&mut self, dir: Ino, name: &str) -> Result<(), FileError> {
        let ino = self.entry(dir, name)?;
        self.dir_mut(dir)?.remove(name);
        self.node_mut(ino)?.named = false;
        self.drop_if_gone(ino);
        Ok(())
    }

    /// Gives a node another name.
    pub(super) fn relink(
        &mut self,
        (from, old): (Ino, &str),
        (to, new): (Ino, &str),
    ) -> Result<(), FileError> {
        let ino = self.entry(from, old)?;
        self.dir(to)?;
        self.dir_mut(from)?.remove(old);
        self.dir_mut(to)?.insert(new.to_owned(), ino);
        Ok(())
    }

    /// Somebody holds the node open.
    pub(super) fn open(&mut self, ino: Ino) -> Result<(), FileError> {
        self.node_mut(ino)?.open += 1;
        Ok(())
    }

    /// Somebody has closed it.
    pub(super) fn close(&mut self, ino: Ino) {
        if let Ok(node) = self.node_mut(ino) {
            node.open = node.open.saturating_sub(1);
            self.drop_if_gone(ino);
        }
    }

    /// Takes the content of a file out.
    pub(super) fn take(&mut self, ino: Ino) -> Result<Vec<u8>, FileError> {
        match &mut self.node_mut(ino)?.content {
            Content::Given(bytes) => Ok(bytes.to_vec()),
            Content::Made(bytes) => Ok(std::mem::take(bytes)),
            Content::Dir(_) => Err(FileError::IsDirectory),
        }
    }

    /// How many nodes there are, the root not counted.
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len() - 1
    }

    fn add(&mut self, content: Content, now_ns: Option<u64>) -> Ino {
        let node = Node { content, accessed_ns: now_ns, modified_ns: now_ns, open: 0, named: true };
        match self.free.pop() {
            Some(ino) => {
                self.nodes[ino] = Some(node);
                ino
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        }
    }

    fn drop_if_gone(&mut self, ino: Ino) {
        let Ok(node) = self.node(ino) else { return };
        if node.open > 0 || node.named {
            return;
        }
        if let Content::Made(bytes) = &node.content {
            self.bytes -= bytes.len() as u64;
        }
        self.nodes[ino] = None;
        self.free.push(ino);
    }

    fn node(&self, ino: Ino) -> Result<&Node, FileError> {
        self.nodes.get(ino).and_then(Option::as_ref).ok_or(FileError::BadDescriptor)
    }

    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, FileError> {
        self.nodes.get_mut(ino).and_then(Option::as_mut).ok_or(FileError::BadDescriptor)
    }

    fn dir(&self, ino: Ino) -> Result<&BTreeMap<String, Ino>, FileError> {
        match &self.node(ino)?.content {
            Content::Dir(entries) => Ok(entries),
            Content::Given(_) | Content::Made(_) => Err(FileError::NotDirectory),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut BTreeMap<String, Ino>, FileError> {
        match &mut self.node_mut(ino)?.content {
            Content::Dir(entries) => Ok(entries),
            Content::Given(_) | Content::Made(_) => Err(FileError::NotDirectory),
        }
    }
}

fn plain(name: &str) -> Option<()> {
    (!["", ".", ".."].contains(&name) && !name.contains('\0')).then_some(())
}
