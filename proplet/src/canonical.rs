//! Puts the tensors of a safetensors file in the order of their names, without ever having the
//! file in memory: an update that goes in pieces is taken in no other order.

use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use protocol::tensor::safetensors::{Header, Metadata};
use service::blobs::read_header;

/// What is copied at once.
const BLOCK: usize = 1 << 20;

/// A file with its tensors in order.
#[derive(Debug)]
pub(crate) struct Canonical {
    /// What the original said beside its tensors.
    pub(crate) metadata: Metadata,
    /// The original itself, if it was in order.
    pub(crate) place: PathBuf,
    pub(crate) bytes: u64,
}

/// Writes the tensors of `from` to `place` in the order of their names, unless they are already.
/// What is no safetensors file is [`io::ErrorKind::InvalidData`].
pub(crate) fn put_in_order(from: &Path, place: &Path) -> io::Result<Canonical> {
    let file = File::open(from)?;
    let header = read_header(&file)?;
    let (place, bytes) = if is_in_order(&header) {
        (from.to_owned(), file.metadata()?.len())
    } else {
        (place.to_owned(), rewrite(&file, &header, place)?)
    };
    Ok(Canonical { metadata: header.metadata, place, bytes })
}

fn is_in_order(header: &Header) -> bool {
    let mut expected = 0;
    header.spans.values().all(|span| std::mem::replace(&mut expected, span.end) == span.begin)
}

fn rewrite(mut file: &File, header: &Header, place: &Path) -> io::Result<u64> {
    let ordered = Header::of(&header.schema(), Metadata::new()).write();
    let mut bytes = ordered.len() as u64;
    let mut out = BufWriter::with_capacity(BLOCK, File::create(place)?);
    out.write_all(&ordered)?;
    for span in header.spans.values() {
        let (begin, len) = (header.data_start() + span.begin, (span.end - span.begin) as u64);
        file.seek(SeekFrom::Start(begin as u64))?;
        if io::copy(&mut file.take(len), &mut out)? != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes += len;
    }
    out.flush()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use protocol::{Tensor, Tensors, tensor::safetensors};

    use super::*;

    /// A file whose header names `b` before `a`, and whose data stand in that order.
    fn out_of_order() -> Vec<u8> {
        let header = br#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"__metadata__":{"num_samples":"7"}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        for number in [1.0_f32, 2.0, 3.0] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        file
    }

    #[test]
    fn tensors_come_to_stand_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let (from, place) = (dir.path().join("from"), dir.path().join("place"));
        fs::write(&from, out_of_order()).unwrap();
        let ordered = put_in_order(&from, &place).unwrap();
        assert_eq!(ordered.metadata["num_samples"], "7");
        assert_eq!(ordered.place, place);
        let file = Bytes::from(fs::read(&place).unwrap());
        assert_eq!(ordered.bytes, file.len() as u64);
        let tensors: Tensors = [
            ("a".to_owned(), Tensor::from_f32(vec![1], &[3.0]).unwrap()),
            ("b".to_owned(), Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap()),
        ]
        .into_iter()
        .collect();
        assert_eq!(file, safetensors::write(&tensors, &Metadata::new()));
        // Once more, it stays what it is.
        let again = put_in_order(&place, &dir.path().join("elsewhere")).unwrap();
        assert_eq!((again.place, again.bytes), (place, ordered.bytes));
    }

    #[test]
    fn what_is_no_such_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let (from, place) = (dir.path().join("from"), dir.path().join("place"));
        let whole = out_of_order();
        let mut lying = whole.clone();
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        for bytes in [&b""[..], b"{\"update\":{}}", &whole[..20], &whole[..whole.len() - 1], &lying]
        {
            fs::write(&from, bytes).unwrap();
            let why = put_in_order(&from, &place).unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
            assert!(!place.exists());
        }
    }
}
