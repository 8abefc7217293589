//! Loading the CA key from a file that nobody else can read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use epithet_wire::SecretBytes;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::ca_key::CaKey;
use crate::ca_key_format::CaKeyFormatError;

/// The largest private key is rsa with 8192 bits, about 7 KiB.
const KEY_FILE_MAX: u64 = 64 * 1024;

/// Why a key file was not used.
#[derive(Debug, thiserror::Error)]
pub enum CaKeyError {
    /// It cannot be opened or read.
    #[error("cannot read the CA key {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a symbolic link.
    #[error("the CA key {path} is a symbolic link; name the file itself, so that nobody can exchange it", path = path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A directory, a pipe, a device.
    #[error("the CA key {path} is not a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else's file.
    #[error("the CA key {path} belongs to uid {owner}; it must belong to uid {ours} (who runs this) or root", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// Others can read or write it.
    #[error("the CA key {path} has mode {mode:04o}, so others can reach it; try: chmod 600 {path}", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Far larger than a key.
    #[error("the CA key {path} is larger than {KEY_FILE_MAX} bytes; is it a key?", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not a usable key.
    #[error("{path}: {source}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CaKeyFormatError,
    },
}

impl CaKey {
    /// Loads a private key in OpenSSH's format.
    ///
    /// The file must be a regular file, no symbolic link, owned by us or root, and closed to everybody else.
    /// `passphrase` is asked only when the key is encrypted; `None` means that nobody can give one. Opening an
    /// encrypted key takes a good part of a second, on purpose.
    ///
    /// # Errors
    /// [`CaKeyError`] names the file, what is wrong with it and what to do.
    pub fn load(
        path: impl AsRef<Path>,
        passphrase: impl FnOnce() -> Option<SecretBytes>,
    ) -> Result<Self, CaKeyError> {
        let path = path.as_ref();
        let pem = read_private(path)?;
        Self::from_openssh(&pem, passphrase).map_err(|source| CaKeyError::Format {
            path: path.into(),
            source,
        })
    }
}

/// The file's text, read through one descriptor so that what is checked is what is read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, CaKeyError> {
    let read_error = |source: io::Error| CaKeyError::Read {
        path: path.into(),
        source,
    };
    // Without blocking: opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::LOOP) => return Err(CaKeyError::Symlink { path: path.into() }),
        Err(error) => return Err(read_error(error.into())),
    };
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(CaKeyError::NotAFile { path: path.into() });
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours && metadata.uid() != 0 {
        return Err(CaKeyError::Owner {
            path: path.into(),
            owner: metadata.uid(),
            ours,
        });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(CaKeyError::Mode {
            path: path.into(),
            mode: metadata.mode() & 0o7777,
        });
    }
    if metadata.len() > KEY_FILE_MAX {
        return Err(CaKeyError::TooLarge { path: path.into() });
    }
    // The capacity is final, so no copy is left behind by growing.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(metadata.len())
        .read_to_string(&mut text)
        .map_err(read_error)?;
    Ok(text)
}
