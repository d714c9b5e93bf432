//! The byte form of a partial sum: what one aggregator hands to the next one up.
//!
//! All numbers are little-endian. `AILPSUM1`, the element type's name in four bytes, then as
//! `u64` the width, the updates and the samples; then strip by strip (1024 coordinates, the last
//! may be shorter) an `f64` of each coordinate, and as `u16` the number of further planes, of each
//! as `u16` the number of its entries, and each entry as a `u16` place and an `f64`. Equal sums
//! have equal bytes, whatever the order in which they were summed.

use std::{
    io::{self, Read, Write},
    marker::PhantomData,
};

use super::{Partial, planes::Planes};
use crate::{Element, linear::STRIP};

const MAGIC: &[u8; 8] = b"AILPSUM1";
/// More planes than any sum needs.
const PLANES_MAX: u16 = 64;
/// Sums of a larger magnitude do not come from updates.
const SUM_MAX: f64 = 1e290;

/// Why bytes are no partial sum.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    #[error("these bytes are no partial sum")]
    Magic,
    #[error("the partial sum is of {found:?}, expected {expected}")]
    Element { found: String, expected: &'static str },
    #[error("the partial sum has {found} weights, expected {expected}")]
    Width { found: u64, expected: usize },
    #[error("the partial sum holds {found}, which no updates add up to")]
    Sum { found: f64 },
    #[error("the partial sum of {updates} updates claims {total} samples")]
    Samples { updates: u64, total: u64 },
    #[error("the partial sum has {found} planes, at most {PLANES_MAX}")]
    Planes { found: u16 },
    #[error("place {found} in a strip of {len} is not one, or not in order")]
    Place { found: u16, len: usize },
    #[error("the partial sum goes on after its end")]
    TooLong,
    #[error("cannot read or write the partial sum")]
    Io(#[from] io::Error),
}

impl<T: Element> Partial<T> {
    pub fn write_to(&self, to: &mut dyn Write) -> Result<(), PartialError> {
        to.write_all(MAGIC)?;
        to.write_all(&name::<T>())?;
        for number in [self.width as u64, self.updates, self.total] {
            to.write_all(&number.to_le_bytes())?;
        }
        for strip in &self.strips {
            let (top, lower) = strip.canonical();
            let mut bytes: Vec<u8> = top.into_iter().flat_map(f64::to_le_bytes).collect();
            bytes.extend((lower.len() as u16).to_le_bytes());
            for plane in lower {
                bytes.extend((plane.len() as u16).to_le_bytes());
                for (at, value) in plane {
                    bytes.extend(at.to_le_bytes());
                    bytes.extend(value.to_le_bytes());
                }
            }
            to.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write_to`] wrote, to the end; takes no more memory than there are bytes.
    pub fn read_from(width: usize, from: &mut dyn Read) -> Result<Self, PartialError> {
        if take::<8>(from)? != *MAGIC {
            return Err(PartialError::Magic);
        }
        let element = take::<4>(from)?;
        if element != name::<T>() {
            let found = String::from_utf8_lossy(&element).trim_end().to_owned();
            return Err(PartialError::Element { found, expected: T::NAME });
        }
        let [found, updates, total] = [number(from)?, number(from)?, number(from)?];
        if found != width as u64 {
            return Err(PartialError::Width { found, expected: width });
        }
        if total < updates || (updates == 0) != (total == 0) {
            return Err(PartialError::Samples { updates, total });
        }
        let mut strips = vec![];
        for start in (0..width).step_by(STRIP) {
            strips.push(read_strip(STRIP.min(width - start), from)?);
        }
        if from.read(&mut [0])? != 0 {
            return Err(PartialError::TooLong);
        }
        Ok(Self { width, updates, total, strips, element: PhantomData })
    }
}

fn read_strip(len: usize, from: &mut dyn Read) -> Result<Planes, PartialError> {
    let mut bytes = vec![0; len * size_of::<f64>()];
    from.read_exact(&mut bytes)?;
    let mut planes = Planes::new(len);
    for (at, bytes) in bytes.as_chunks().0.iter().enumerate() {
        planes.set(0, at, sound(*bytes)?);
    }
    let count = u16::from_le_bytes(take(from)?);
    if count > PLANES_MAX {
        return Err(PartialError::Planes { found: count });
    }
    for plane in 0..usize::from(count) {
        let mut next = 0;
        for _ in 0..u16::from_le_bytes(take(from)?) {
            let found = u16::from_le_bytes(take(from)?);
            let at = usize::from(found);
            if at < next || at >= len {
                return Err(PartialError::Place { found, len });
            }
            next = at + 1;
            planes.set(plane + 1, at, sound(take(from)?)?);
        }
    }
    Ok(planes)
}

fn sound(bytes: [u8; 8]) -> Result<f64, PartialError> {
    let found = f64::from_le_bytes(bytes);
    if found.abs() <= SUM_MAX { Ok(found) } else { Err(PartialError::Sum { found }) }
}

fn number(from: &mut dyn Read) -> Result<u64, PartialError> {
    Ok(u64::from_le_bytes(take(from)?))
}

fn take<const N: usize>(from: &mut dyn Read) -> Result<[u8; N], PartialError> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The element type's name, with a space behind it.
fn name<T: Element>() -> [u8; 4] {
    let mut name = [b' '; 4];
    name[..T::NAME.len()].copy_from_slice(T::NAME.as_bytes());
    name
}
