//! Images from a directory with a Dockerfile, named by what is in it: built once, and then found again.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bollard::{body_full, query_parameters::BuildImageOptions};
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::{DockerError, Engine};

const CONTEXT_BYTES_MAX: u64 = 512 << 20;

impl Engine {
    /// Builds an image, unless the same files have been built before, and gives its name.
    ///
    /// All files below the context count; a `.dockerignore` is not looked at.
    pub fn build(&self, context: &Path, dockerfile: &str) -> Result<String, DockerError> {
        let archive = pack(context)?;
        let mut digest = Sha256::new();
        digest.update(dockerfile.as_bytes());
        digest.update([0]);
        digest.update(&archive);
        let digest: String =
            digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let image = format!("aileron-cosim:{digest}");
        if self.has_image(&image)? {
            return Ok(image);
        }
        let options = BuildImageOptions {
            dockerfile: dockerfile.to_owned(),
            t: Some(image.clone()),
            rm: true,
            forcerm: true,
            ..Default::default()
        };
        self.wait(async {
            let body = body_full(Bytes::from(archive));
            let mut said = std::pin::pin!(self.docker.build_image(options, None, Some(body)));
            while let Some(line) = said.next().await {
                let name = context.display().to_string();
                let line = line.map_err(DockerError::engine(format!("build {name}")))?;
                if let Some(error) = line.error_detail {
                    let message = error.message.unwrap_or_default();
                    return Err(DockerError::Build { context: name, message });
                }
            }
            Ok(())
        })?;
        Ok(image)
    }
}

/// The files below a directory, in the order of their names and without times: the same files, the same bytes.
fn pack(context: &Path) -> Result<Vec<u8>, DockerError> {
    let mut archive = Builder::new(vec![]);
    let mut left = CONTEXT_BYTES_MAX;
    let failed = || DockerError::io(format!("read the build context {}", context.display()));
    for path in below(context).map_err(failed())? {
        let name = path.strip_prefix(context).unwrap_or(&path);
        let about = fs::symlink_metadata(&path).map_err(failed())?;
        let mut header = Header::new_gnu();
        header.set_mode(about.permissions().mode() & 0o777);
        header.set_mtime(0);
        let packed = if about.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            let target = fs::read_link(&path).map_err(failed())?;
            archive.append_link(&mut header, name, target)
        } else if about.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            archive.append_data(&mut header, name, io::empty())
        } else {
            left = left.checked_sub(about.len()).ok_or_else(|| DockerError::ContextTooLarge {
                context: context.display().to_string(),
                bytes_max: CONTEXT_BYTES_MAX,
            })?;
            let bytes = fs::read(&path).map_err(failed())?;
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes.as_slice())
        };
        packed.map_err(failed())?;
    }
    archive.into_inner().map_err(failed())
}

/// Files, links and directories below a directory, sorted.
fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            }
            // Sockets and pipes cannot be packed.
            if kind.is_dir() || kind.is_file() || kind.is_symlink() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
