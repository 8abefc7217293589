//! The data types of the SSH protocol (RFC 4251 section 5), read without copying and written into a vector.
//!
//! Reading is total: whatever the bytes are, the answer is a value or [`Malformed`]. A reader that must have seen
//! everything ends with [`Reader::finish`], because what is left over is how two parsers come to disagree.

/// Bytes that are not what their format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field reaches past the end.
    #[error("it ends in the middle of a field")]
    Truncated,
    /// Bytes follow the last field.
    #[error("{0} bytes follow its last field")]
    Trailing(usize),
    /// A text field is not UTF-8.
    #[error("a text in it is not UTF-8")]
    NotText,
    /// A number is negative, or has zero bytes in front that it does not need.
    #[error("a number in it is not in its shortest form")]
    NotShortest,
    /// A field has a value that the format does not allow.
    #[error("it has a field with a value that is not allowed there")]
    Value,
}

/// Reads fields from the front of a byte slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// `byte`.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// `boolean`: only 0 and 1, although RFC 4251 lets a reader take any other value as true; writers must write 1.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Value),
        }
    }

    /// `uint32`.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// `uint64`.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// `string`, of any bytes.
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Truncated)?)
    }

    /// `string` that holds UTF-8 text.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.string()?).map_err(|_| Malformed::NotText)
    }

    /// `mpint` that is positive and in its shortest form; the answer has no leading zero byte.
    pub fn positive(&mut self) -> Result<&'a [u8], Malformed> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => Ok(rest),
            magnitude @ [1..=0x7f, ..] => Ok(magnitude),
            _ => Err(Malformed::NotShortest),
        }
    }

    /// Succeeds when nothing is left.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left)),
        }
    }
}

/// Writes fields to the end of a vector.
pub trait Put {
    /// `byte`.
    fn put_u8(&mut self, value: u8);
    /// `uint32`.
    fn put_u32(&mut self, value: u32);
    /// `uint64`.
    fn put_u64(&mut self, value: u64);
    /// `string`. No string of ours comes near the 4 GiB that its length field allows.
    fn put_string(&mut self, value: impl AsRef<[u8]>);
    /// `mpint` of a positive number, given with or without leading zero bytes.
    fn put_positive(&mut self, magnitude: &[u8]);
    /// `string` whose content `write` puts there.
    fn put_nested(&mut self, write: impl FnOnce(&mut Self));
}

/// The length field of a string.
fn length_field(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("a string that we write is shorter than 4 GiB")
        .to_be_bytes()
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_string(&mut self, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.extend_from_slice(&length_field(value.len()));
        self.extend_from_slice(value);
    }

    fn put_positive(&mut self, magnitude: &[u8]) {
        let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
        let magnitude = &magnitude[zeros..];
        let sign_byte = usize::from(magnitude.first().is_some_and(|byte| *byte >= 0x80));
        self.extend_from_slice(&length_field(magnitude.len() + sign_byte));
        self.extend_from_slice(&[0][..sign_byte]);
        self.extend_from_slice(magnitude);
    }

    fn put_nested(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.len();
        self.put_u32(0);
        write(self);
        let length = length_field(self.len() - start - 4);
        self[start..start + 4].copy_from_slice(&length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_string_may_not_reach_past_the_end() {
        for bytes in [&b""[..], b"\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\xffx"] {
            assert_eq!(
                Reader::new(bytes).string(),
                Err(Malformed::Truncated),
                "{bytes:?}"
            );
        }
        let mut reader = Reader::new(b"\0\0\0\x01xy");
        assert_eq!(reader.string(), Ok(&b"x"[..]));
        assert_eq!(reader.finish(), Err(Malformed::Trailing(1)));
    }

    #[test]
    fn numbers_have_one_form_only() {
        let read = |bytes: &[u8]| {
            let mut blob = Vec::new();
            blob.put_string(bytes);
            Reader::new(&blob).positive().map(<[u8]>::to_vec)
        };
        assert_eq!(read(&[1, 0, 1]), Ok(vec![1, 0, 1]));
        assert_eq!(read(&[0, 0x80]), Ok(vec![0x80]));
        for bad in [&[][..], &[0], &[0, 0x7f], &[0, 0, 0x80], &[0x80], &[0xff, 1]] {
            assert_eq!(read(bad), Err(Malformed::NotShortest), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in ".{0,40}", number in any::<u64>(), magnitude in proptest::collection::vec(any::<u8>(), 1..70)) {
            prop_assume!(magnitude.iter().any(|byte| *byte != 0));
            let mut blob = Vec::new();
            blob.put_nested(|inner| { inner.put_string(&text); inner.put_u64(number); });
            blob.put_positive(&magnitude);
            blob.put_u8(1);
            let mut outer = Reader::new(&blob);
            let mut inner = Reader::new(outer.string().unwrap());
            prop_assert_eq!(inner.text().unwrap(), text);
            prop_assert_eq!(inner.u64().unwrap(), number);
            prop_assert_eq!(inner.finish(), Ok(()));
            let stripped: Vec<u8> = magnitude.iter().copied().skip_while(|byte| *byte == 0).collect();
            prop_assert_eq!(outer.positive().unwrap(), stripped);
            prop_assert!(outer.boolean().unwrap());
            prop_assert_eq!(outer.finish(), Ok(()));
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), kinds in proptest::collection::vec(0u8..7, 0..8)) {
            let mut reader = Reader::new(&bytes);
            for kind in kinds {
                let _ = match kind {
                    0 => reader.u8().map(|_| ()),
                    1 => reader.u32().map(|_| ()),
                    2 => reader.u64().map(|_| ()),
                    3 => reader.string().map(|_| ()),
                    4 => reader.text().map(|_| ()),
                    5 => reader.positive().map(|_| ()),
                    _ => reader.boolean().map(|_| ()),
                };
            }
        }
    }
}
