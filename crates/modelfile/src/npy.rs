//! NumPy's format for one array: a header that is a Python dictionary, then the numbers.
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>)

use bytes::Bytes;
use protocol::{
    DType, Slot, Tensor,
    tensor::{RANK_MAX, ShapeError},
};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Numbers begin at a multiple of this.
const ALIGN: usize = 64;
/// Longest header that is read; ours have some hundred bytes.
const HEADER_LEN_MAX: usize = 1 << 16;

/// What is wrong with an array.
pub(crate) enum Flaw {
    What(String),
    /// It is of a type that tensors do not have.
    Descr(String),
}

/// How the numbers lie, as the header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// The array in `file`.
pub(crate) fn read(file: &Bytes) -> Result<Tensor, Flaw> {
    let flaw = |what: &str| Flaw::What(what.to_owned());
    let rest = file.strip_prefix(MAGIC).ok_or_else(|| flaw("does not begin like a NumPy array"))?;
    let (len, start) = match rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 6),
        [version, ..] => return Err(Flaw::What(format!("version {version} is not known"))),
        [] => return Err(flaw("ends in its header")),
    };
    if len > HEADER_LEN_MAX {
        return Err(Flaw::What(format!("its header of {len} bytes is too long")));
    }
    let text = rest.get(start..start + len).ok_or_else(|| flaw("ends in its header"))?;
    let text = std::str::from_utf8(text).map_err(|_| flaw("its header is no text"))?;
    let header = parse(text)
        .ok_or_else(|| Flaw::What(format!("its header is not understood: {:?}", brief(text))))?;
    let data = file.slice(MAGIC.len() + start + len..);
    tensor(header, data)
}

fn tensor(header: Header, data: Bytes) -> Result<Tensor, Flaw> {
    let Header { descr, fortran_order, shape } = header;
    let (order, kind) = descr.split_at(descr.len().min(1));
    let dtype = match (order, kind) {
        ("<" | ">" | "=", "f8") => DType::F64,
        ("<" | ">" | "=", "f4") => DType::F32,
        ("<" | ">" | "=", "f2") => DType::F16,
        ("|", "i1") => DType::I8,
        (_, _) => return Err(Flaw::Descr(brief(&descr))),
    };
    let size = dtype.size();
    let data = if order == ">" { swapped(&data, size) } else { data };
    let failed = |why: ShapeError| Flaw::What(why.to_string());
    let slot = Slot { dtype, shape };
    // Holds that the numbers fill the shape, before anything is done by its extents.
    let tensor = Tensor::typed(slot, data).map_err(failed)?;
    if !fortran_order || tensor.shape().len() < 2 {
        return Ok(tensor);
    }
    let data = transposed(tensor.data(), tensor.shape(), size);
    Tensor::typed(tensor.slot().clone(), data).map_err(failed)
}

fn swapped(data: &[u8], size: usize) -> Bytes {
    data.chunks(size).flat_map(|number| number.iter().rev().copied()).collect()
}

/// Column-major numbers in row-major order.
fn transposed(data: &[u8], shape: &[usize], size: usize) -> Bytes {
    let mut strides = vec![];
    let mut stride = 1;
    for extent in shape {
        strides.push(stride);
        stride *= extent;
    }
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..data.len() / size {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&data[at * size..(at + 1) * size]);
        for (i, extent) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
    out.into()
}

/// What stands before the numbers of a tensor; `None` for a type that NumPy does not have.
pub(crate) fn header(slot: &Slot) -> Option<Vec<u8>> {
    let descr = match slot.dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::I8 => "|i1",
        DType::BF16 => return None,
    };
    let extents: Vec<String> = slot.shape.iter().map(ToString::to_string).collect();
    let comma = if extents.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", extents.join(", "));
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let before = MAGIC.len() + 4;
    let len = (before + text.len() + 1).next_multiple_of(ALIGN) - before;
    text.extend(std::iter::repeat_n(' ', len - 1 - text.len()));
    text.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    let len = u16::try_from(len).expect("16 extents are short");
    out.extend(len.to_le_bytes());
    out.extend(text.into_bytes());
    Some(out)
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                let (text, after) = quoted(value)?;
                descr.replace(text.to_owned()).is_none().then_some(after)?
            }
            "fortran_order" => {
                let (truth, after) = match value.strip_prefix("True") {
                    Some(after) => (true, after),
                    None => (false, value.strip_prefix("False")?),
                };
                fortran_order.replace(truth).is_none().then_some(after)?
            }
            "shape" => {
                let (inner, after) = value.strip_prefix('(')?.split_once(')')?;
                shape.replace(extents(inner)?).is_none().then_some(after)?
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn extents(text: &str) -> Option<Vec<usize>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let extents: Vec<usize> =
        parts.take(RANK_MAX + 1).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    (extents.len() <= RANK_MAX).then_some(extents)
}

fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_numpy_writes_it() {
        let header =
            parse("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4), }   \n").unwrap();
        let expected = Header { descr: "<f4".to_owned(), fortran_order: true, shape: vec![3, 4] };
        assert_eq!(header, expected);
        let scalar = parse("{\"shape\": (), 'fortran_order': False, 'descr': '|i1'}").unwrap();
        assert_eq!(scalar.shape, Vec::<usize>::new());
        for bad in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}",
            "{'novel': 1, 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn columns_become_rows() {
        assert_eq!(transposed(&[1, 4, 2, 5, 3, 6], &[2, 3], 1), [1, 2, 3, 4, 5, 6][..]);
        assert_eq!(
            transposed(&[1, 5, 3, 7, 2, 6, 4, 8], &[2, 2, 2], 1),
            [1, 2, 3, 4, 5, 6, 7, 8][..]
        );
    }
}
