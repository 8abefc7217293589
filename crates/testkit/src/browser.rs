//! A browser for tests: a script that is started as a browser is, and somebody who looks at what it opens.

use crate::plugin::plugin_script;
use epithet_devidp::{Page, Person, sign_in_blocking};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A program to name in `$BROWSER` or `--browser`. Each address that it is started with is opened by a [`Person`] who
/// signs in, or kept for the test when there is none.
#[derive(Debug)]
pub struct FakeBrowser {
    program: PathBuf,
    pipe: PathBuf,
    opened: Arc<Mutex<Vec<String>>>,
    pages: Mutex<Receiver<Result<Page, String>>>,
    urls: Mutex<Receiver<String>>,
    thread: Option<JoinHandle<()>>,
}

/// A line that ends the thread which reads the pipe; no address looks like it.
const END: &str = "end of the browser";

impl FakeBrowser {
    /// A browser in front of which `person` sits: they sign in wherever it leads.
    ///
    /// # Panics
    /// When its files cannot be made in `folder`.
    pub fn with_person(folder: &Path, person: Person) -> Self {
        Self::start(folder, Some(person))
    }

    /// A browser with nobody in front of it: it only says what it was asked to open.
    ///
    /// # Panics
    /// When its files cannot be made in `folder`.
    pub fn with_nobody(folder: &Path) -> Self {
        Self::start(folder, None)
    }

    fn start(folder: &Path, person: Option<Person>) -> Self {
        let pipe = folder.join("browser.pipe");
        // Whoever runs the browser may be another user than the test's.
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &pipe, FileType::Fifo, mode, 0).expect("a pipe can be made in the test's folder");
        std::fs::set_permissions(&pipe, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .expect("a pipe of ours");
        let script = format!("#!/bin/sh\nprintf '%s\\n' \"$1\" > '{}'\n", pipe.display());
        let program = plugin_script(folder, "browser", &script);
        // Open for both, so that it never ends while the thread reads.
        let reader = open_pipe(&pipe).expect("the pipe that was just made");
        let opened: Arc<Mutex<Vec<String>>> = Arc::default();
        let (send_page, pages) = channel();
        let (send_url, urls) = channel();
        let seen = Arc::clone(&opened);
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if line == END {
                    return;
                }
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line.clone());
                let _ = send_url.send(line.clone());
                if let Some(person) = person.clone() {
                    let send_page = send_page.clone();
                    // Browsers open several pages at once.
                    std::thread::spawn(move || {
                        let page = sign_in_blocking(&line, &person).map_err(|error| error.to_string());
                        let _ = send_page.send(page);
                    });
                }
            }
        });
        Self {
            program,
            pipe,
            opened,
            pages: Mutex::new(pages),
            urls: Mutex::new(urls),
            thread: Some(thread),
        }
    }

    /// The program to name as the browser.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Every address that it was asked to open so far.
    pub fn opened(&self) -> Vec<String> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next address that it is asked to open.
    pub fn next_url(&self, timeout: Duration) -> Option<String> {
        self.urls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(timeout)
            .ok()
    }

    /// Waits for the next page on which a login ended, or for the reason why it did not.
    pub fn next_page(&self, timeout: Duration) -> Option<Result<Page, String>> {
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(timeout)
            .ok()
    }
}

fn open_pipe(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

impl Drop for FakeBrowser {
    fn drop(&mut self) {
        // When the folder went first, the thread cannot be told; it then waits until the tests end, and harms nobody.
        let told = open_pipe(&self.pipe).and_then(|mut pipe| writeln!(pipe, "{END}"));
        if let Some(thread) = self.thread.take()
            && told.is_ok()
        {
            let _ = thread.join();
        }
    }
}
