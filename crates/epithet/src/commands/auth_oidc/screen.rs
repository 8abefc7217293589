//! What the login has to say, on the terminal of those who wait; and the browser.

use epithet_oidc::browser::{self, BrowserChoice, BrowserError};
use epithet_oidc::{LoginUi, Notice};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::pin::Pin;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use url::Url;

/// The largest QR code that a small terminal shows, in modules.
const QR_MAX: usize = 57;

/// The login's voice: progress when the broker listens, stderr when run by hand.
pub(super) struct Screen {
    browser: BrowserChoice,
    is_plugin: bool,
    /// What is typed when run by hand; kept, so that no line is lost between two questions.
    typed: Option<Lines<BufReader<Stdin>>>,
}

impl Screen {
    pub(super) fn new(browser: BrowserChoice, is_plugin: bool) -> Self {
        Self {
            browser,
            is_plugin,
            typed: None,
        }
    }
}

impl LoginUi for Screen {
    fn show(&mut self, notice: &Notice) {
        epithet_plugin::progress(&notice.to_string());
        if let (
            Notice::Browser {
                code_after: Some(_), ..
            },
            true,
        ) = (notice, self.is_plugin)
        {
            epithet_plugin::progress("(Or at once, in another terminal: epithet login --flow device)");
        }
        if let Notice::DeviceCode {
            complete: Some(complete),
            ..
        } = notice
            && let Some(code) = qr_code(complete.as_str())
        {
            epithet_plugin::progress(&code);
        }
        if let Notice::Paste { deliver_to, .. } = notice {
            epithet_plugin::offer_paste(deliver_to.as_str());
        }
    }

    fn open_browser(&mut self, url: &Url) -> Result<(), BrowserError> {
        browser::open(&self.browser, url)
    }

    fn pasted(&mut self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(async move {
            // As a plugin, stdin was the state; what is pasted at the waiting terminal comes to the listener instead.
            if self.is_plugin {
                return None;
            }
            let typed = self
                .typed
                .get_or_insert_with(|| BufReader::new(tokio::io::stdin()).lines());
            typed.next_line().await.ok().flatten()
        })
    }
}

/// The address as a QR code, when it fits a terminal.
fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok().filter(|code| code.width() <= QR_MAX)?;
    Some(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build(),
    )
}
