//! Getting images: a tag becomes a digest, a digest a manifest, and that a module, which is checked
//! while it comes, and goes on where it was cut off.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use futures::StreamExt as _;
use oci_client::client::{BlobResponse, SizedStream};
use protocol::{Digest, DigestBuilder, ImageRef};
use tokio::{
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
    task, time,
};

use crate::{
    Cache, Image, RegistryError, Settings,
    remote::{Patience, Remote, chain},
};

/// Told how many bytes of how many there are.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// What is read at once of a file that was begun before.
const BLOCK: usize = 1 << 20;

/// Registries, as one owner speaks to them.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(crate) settings: Settings,
    pub(crate) cache: Option<Cache>,
}

impl Registry {
    /// Without a cache, nothing is kept.
    pub const fn new(settings: Settings, cache: Option<Cache>) -> Self {
        Self { settings, cache }
    }

    /// The same image by its digest: what the tag means at this moment.
    pub async fn resolve(&self, image: &ImageRef) -> Result<ImageRef, RegistryError> {
        if image.digest().is_some() {
            return Ok(image.clone());
        }
        let asked = self.ask(image, |remote| async move { remote.digest().await });
        Ok(image.pinned(asked.await?))
    }

    /// What the image's registry answers in the end: it is asked again, by a new client each time, as
    /// long as there is use in that.
    pub(crate) async fn ask<T, F>(
        &self,
        image: &ImageRef,
        question: impl Fn(Remote) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut patience = Patience::new();
        loop {
            let remote = Remote::open(image, &self.settings).await?;
            match question(remote).await {
                Ok(answer) => return Ok(answer),
                Err(why) => patience.bear(why).await?,
            }
        }
    }

    /// What the image holds. One that is named by digest, and was seen before, takes no network.
    pub async fn look(&self, image: &ImageRef) -> Result<Image, RegistryError> {
        let image = self.resolve(image).await?;
        let digest = image.digest().expect("a tag was looked up");
        let kept = self.cache.as_ref().and_then(|cache| cache.manifest(digest));
        let is_kept = kept.is_some();
        let bytes = match kept {
            Some(bytes) => bytes,
            None => self.ask(&image, |remote| async move { remote.manifest(digest).await }).await?,
        };
        let read = Image::read(&image, &bytes)?;
        if let Some(cache) = self.cache.as_ref().filter(|_| !is_kept) {
            cache.keep_manifest(digest, &bytes);
        }
        Ok(read)
    }

    /// The image's module, by way of the cache; it takes no network if it is there. Several that want
    /// the same at once pull it once.
    pub async fn pull(
        &self,
        image: &ImageRef,
        bytes_max: u64,
        progress: Progress<'_>,
    ) -> Result<(Image, Vec<u8>), RegistryError> {
        let image = self.look(image).await?;
        check_len(&image, bytes_max)?;
        let Some(cache) = self.cache.clone() else {
            return Err(RegistryError::Client { why: "there is no place to pull to".to_owned() });
        };
        if let Some(bytes) = kept(&cache, image.module).await {
            return Ok((image, bytes));
        }
        let failed = |path: &Path, source| RegistryError::File { path: path.to_owned(), source };
        let claim = cache.claim(image.module).await.map_err(|why| failed(cache.dir(), why))?;
        if let Some(bytes) = kept(&cache, image.module).await {
            // Whoever had the claim before has left this empty file.
            drop(std::fs::remove_file(&claim.path));
            return Ok((image, bytes));
        }
        let io = |why| failed(&claim.path, why);
        let file = claim.file.try_clone().map_err(io)?;
        self.download(&image, (file, &claim.path), progress).await?;
        cache.finish(&claim, image.module).map_err(io)?;
        let bytes = kept(&cache, image.module).await;
        let bytes = bytes.ok_or_else(|| io(io::Error::other("it is gone or damaged again")))?;
        Ok((image, bytes))
    }

    /// The image's module, in a file.
    pub async fn pull_to(
        &self,
        image: &ImageRef,
        path: &Path,
        bytes_max: u64,
        progress: Progress<'_>,
    ) -> Result<Image, RegistryError> {
        let image = self.look(image).await?;
        check_len(&image, bytes_max)?;
        // What was begun of another module is none of this one's.
        let unfinished = path.with_added_extension(format!("{}.unfinished", image.module));
        let failed = |source| RegistryError::File { path: unfinished.clone(), source };
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let file = options.open(&unfinished).map_err(failed)?;
        self.download(&image, (file, &unfinished), progress).await?;
        std::fs::rename(&unfinished, path).map_err(failed)?;
        Ok(image)
    }

    /// Brings a file to the whole module; what it has already is not asked for again, unless it turns
    /// out to be something else.
    async fn download(
        &self,
        image: &Image,
        (file, path): (File, &Path),
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let io = |source| RegistryError::File { path: path.to_owned(), source };
        let mut partial = Partial::open(file, image.size).await.map_err(io)?;
        loop {
            let resumed = partial.have > 0;
            self.fill(image, &mut partial, (path, &mut *progress)).await?;
            let found = partial.digest.clone().finish();
            if found == image.module {
                return partial.file.sync_all().await.map_err(io);
            }
            partial.restart().await.map_err(io)?;
            if !resumed {
                return Err(RegistryError::digest(&image.image, image.module, found));
            }
            tracing::warn!(file = %path.display(), "what was begun is of something else, and is pulled anew");
        }
    }

    /// Brings a file to its whole length.
    async fn fill(
        &self,
        image: &Image,
        partial: &mut Partial,
        (path, progress): (&Path, Progress<'_>),
    ) -> Result<(), RegistryError> {
        let mut patience = Patience::new();
        loop {
            let remote = Remote::open(&image.image, &self.settings).await?;
            match self.go_on(&remote, image, partial, (path, &mut *progress)).await {
                Ok(()) => return Ok(()),
                Err(why) => patience.bear(why).await?,
            }
        }
    }

    async fn go_on(
        &self,
        remote: &Remote,
        image: &Image,
        partial: &mut Partial,
        (path, progress): (&Path, Progress<'_>),
    ) -> Result<(), RegistryError> {
        let io = |source| RegistryError::File { path: path.to_owned(), source };
        let mut stream = match partial.have {
            have if have == image.size => return Ok(()),
            0 => self.stream(remote, image).await?,
            have => {
                let layer = image.layer.0.as_str();
                let asked =
                    remote.client.pull_blob_stream_partial(&remote.reference, layer, have, None);
                match remote.in_time(asked).await? {
                    BlobResponse::Partial(stream) => stream,
                    BlobResponse::Full(stream) => {
                        partial.restart().await.map_err(io)?;
                        stream
                    }
                }
            }
        };
        loop {
            let next = time::timeout(remote.stall, stream.stream.next()).await;
            let bytes = match next {
                Err(_) => return Err(remote.stalled()),
                Ok(None) => break,
                // That the whole does not have its digest is said below, with ours.
                Ok(Some(Err(_))) if partial.have == image.size => break,
                Ok(Some(Err(why))) => return Err(broken(image, partial, chain(&why))),
                Ok(Some(Ok(bytes))) => bytes,
            };
            if partial.have + bytes.len() as u64 > image.size {
                return Err(RegistryError::Longer { image: image.image.clone(), size: image.size });
            }
            partial.take(&bytes).await.map_err(io)?;
            progress(partial.have, image.size);
        }
        partial.file.flush().await.map_err(io)?;
        if partial.have < image.size {
            return Err(broken(image, partial, "the registry ended it".to_owned()));
        }
        Ok(())
    }

    async fn stream(&self, remote: &Remote, image: &Image) -> Result<SizedStream, RegistryError> {
        let layer = image.layer.0.as_str();
        remote.in_time(remote.client.pull_blob_stream(&remote.reference, layer)).await
    }
}

fn broken(image: &Image, partial: &Partial, why: String) -> RegistryError {
    RegistryError::Broken { image: image.image.clone(), have: partial.have, size: image.size, why }
}

fn check_len(image: &Image, bytes_max: u64) -> Result<(), RegistryError> {
    if image.size <= bytes_max {
        return Ok(());
    }
    let (image, size) = (image.image.clone(), image.size);
    Err(RegistryError::TooLarge { image, size, size_max: bytes_max })
}

/// Reading and checking many megabytes blocks no thread of the runtime.
async fn kept(cache: &Cache, module: Digest) -> Option<Vec<u8>> {
    let cache = cache.clone();
    task::spawn_blocking(move || cache.module(module)).await.ok().flatten()
}

/// A file that is not whole yet.
struct Partial {
    file: tokio::fs::File,
    /// Of what it has.
    digest: DigestBuilder,
    have: u64,
}

impl Partial {
    /// Takes over what an earlier attempt has left; one that is too long for what it should become
    /// is begun anew.
    async fn open(file: File, size: u64) -> io::Result<Self> {
        let read = task::spawn_blocking(move || read(file));
        let (file, digest, have) = read.await.map_err(io::Error::other)??;
        let mut partial = Self { file: tokio::fs::File::from_std(file), digest, have };
        if have > size {
            partial.restart().await?;
        }
        Ok(partial)
    }

    async fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.digest.push(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.digest = Digest::builder();
        self.have = 0;
        Ok(())
    }
}

fn read(mut file: File) -> io::Result<(File, DigestBuilder, u64)> {
    let (mut digest, mut have) = (Digest::builder(), 0);
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok((file, digest, have)),
            len => {
                digest.push(&block[..len]);
                have += len as u64;
            }
        }
    }
}
