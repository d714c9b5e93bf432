//! NumPy's file of several arrays: a zip archive with one array in each file of it.

use std::io::{Cursor, Read as _, Write as _};

use bytes::Bytes;
use protocol::{
    Tensor, Tensors,
    tensor::{NAME_LEN_MAX, TENSORS_MAX},
};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    FileError, FileFormat,
    npy::{self, Flaw},
};

const ENDING: &str = ".npy";
/// Room for the header of an array beside its numbers.
const HEADER_LEN_MAX: u64 = 1 << 17;
/// Sizes from here on need the longer records of the archive.
const LARGE: usize = u32::MAX as usize - (1 << 20);

/// The tensors of an archive, compressed or not.
pub(crate) fn read(file: &Bytes, bytes_max: u64) -> Result<Tensors, FileError> {
    let mut archive = ZipArchive::new(Cursor::new(file.as_ref()))?;
    let count = archive.len();
    if count > TENSORS_MAX {
        return Err(FileError::Count { count, max: TENSORS_MAX });
    }
    let mut left = bytes_max;
    let mut tensors = vec![];
    for index in 0..count {
        let entry = archive.by_index(index)?;
        let name = entry.name()?;
        let name = name.strip_suffix(ENDING).unwrap_or(&name).to_owned();
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            let name = name.chars().take(40).collect();
            let what = format!("a tensor's name has 1 to {NAME_LEN_MAX} bytes");
            return Err(FileError::Npy { name, what });
        }
        let mut array = vec![];
        let len_max = left.saturating_add(HEADER_LEN_MAX);
        // What the archive claims about sizes is not believed.
        let read = entry.take(len_max.saturating_add(1)).read_to_end(&mut array);
        if let Err(why) = read {
            return Err(FileError::Npy { name, what: why.to_string() });
        }
        if array.len() as u64 > len_max {
            return Err(FileError::TooLarge { bytes_max });
        }
        let tensor = array_of(&name, &array.into())?;
        left = left.saturating_sub(tensor.data().len() as u64);
        tensors.push((name, tensor));
    }
    let read: Tensors = tensors.into_iter().collect();
    match read.scale_error() {
        None => Ok(read),
        Some(what) => Err(FileError::Scale(what)),
    }
}

fn array_of(name: &str, array: &Bytes) -> Result<Tensor, FileError> {
    let name = name.to_owned();
    npy::read(array).map_err(|flaw| match flaw {
        Flaw::What(what) => FileError::Npy { name, what },
        Flaw::Descr(descr) => FileError::NumPyType { name, descr },
    })
}

/// An archive that is not compressed, as `numpy.savez` writes it; equal tensors give equal bytes.
pub(crate) fn write(tensors: &Tensors) -> Result<Bytes, FileError> {
    let mut archive = ZipWriter::new(Cursor::new(vec![]));
    for (name, tensor) in tensors.iter() {
        let Some(header) = npy::header(tensor.slot()) else {
            let (name, dtype, format) = (name.to_owned(), tensor.dtype(), FileFormat::Npz);
            return Err(FileError::NoType { name, dtype, format });
        };
        let large = tensor.data().len() >= LARGE;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(format!("{name}{ENDING}"), options.large_file(large))?;
        let written = archive.write_all(&header).and_then(|()| archive.write_all(tensor.data()));
        written.map_err(zip::result::ZipError::Io)?;
    }
    Ok(archive.finish()?.into_inner().into())
}
