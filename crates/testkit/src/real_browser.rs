//! A real browser (headless Chromium) with somebody in front of it who knows the pages of the certified provider.

use crate::node_package;
use crate::plugin::plugin_script;
use crate::wait::wait_until;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program to name as `--browser`. Each address that it is started with is opened in a Chromium of its own, in which
/// somebody does what was agreed.
#[derive(Debug)]
pub struct RealBrowser {
    folder: PathBuf,
    program: PathBuf,
}

/// What the somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitor<'n> {
    /// Signs in with this name, and agrees to everything.
    SignsIn(&'n str),
    /// Signs in with this name in a browser that runs elsewhere: it does not find its way back to this machine.
    SignsInElsewhere(&'n str),
    /// Goes back at the first page that offers it.
    Cancels,
}

impl RealBrowser {
    /// Makes the program. `folder` is for its files and belongs to whoever runs the tests.
    ///
    /// # Panics
    /// When `node`, `npm` or Chromium is missing.
    pub fn with(folder: &Path, visitor: Visitor<'_>) -> Self {
        let programs = [
            "/usr/bin/chromium",
            "/usr/bin/chromium-browser",
            "/usr/bin/google-chrome",
        ];
        assert!(
            programs.iter().any(|program| Path::new(program).exists()),
            "Chromium is not installed: apt-get install chromium"
        );
        let folder = folder.join("real-browser");
        fs::create_dir(&folder).expect("a folder of the test");
        let script = node_package::installed("browser").join("person.mjs");
        let (does, name, leaves) = match visitor {
            Visitor::SignsIn(name) => ("sign in", name, false),
            Visitor::SignsInElsewhere(name) => ("sign in", name, true),
            Visitor::Cancels => ("cancel", "", false),
        };
        let settings = json!({"does": does, "name": name, "leaves": leaves, "folder": folder});
        let script = format!(
            "#!/bin/sh\necho \"$1\" >> '{folder}/opened'\nexec node '{}' '{settings}' \"$1\"\n",
            script.display(),
            folder = folder.display(),
        );
        let program = plugin_script(&folder, "browser", &script);
        Self { folder, program }
    }

    /// The program to name as the browser.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Every address that it was asked to open so far.
    pub fn opened(&self) -> Vec<String> {
        let opened = fs::read_to_string(self.folder.join("opened")).unwrap_or_default();
        opened.lines().map(str::to_owned).collect()
    }

    /// Waits for the page on which the visit ended: an object with `url`, `title`, `text`, `background`, `loaded` and
    /// `complaints`, or only `url` for a browser elsewhere. Pictures of it are beside it, see [`picture`](Self::picture).
    ///
    /// # Panics
    /// When the visit went wrong or does not end.
    pub fn page(&self, timeout: Duration) -> Value {
        let page = wait_until(timeout, || fs::read(self.folder.join("page.json")).ok());
        let page = page.unwrap_or_else(|| panic!("the visit did not end; opened: {:?}", self.opened()));
        let page: Value = serde_json::from_slice(&page).expect("the browser's script writes JSON");
        assert!(page["error"].is_null(), "the visit went wrong: {page}");
        page
    }

    /// The picture of the last page in `light` or `dark`, as PNG.
    ///
    /// # Panics
    /// When there is none.
    pub fn picture(&self, scheme: &str) -> Vec<u8> {
        fs::read(self.folder.join(format!("page-{scheme}.png"))).expect("the visit ended on our page")
    }
}
