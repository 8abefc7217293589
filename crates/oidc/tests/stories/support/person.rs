//! A person with a browser, as a login sees them.

use epithet_oidc::browser::BrowserError;
use epithet_oidc::{LoginUi, Notice};
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

type Browse = Box<dyn FnMut(Url) -> Option<JoinHandle<()>> + Send>;

/// Remembers what was shown; the browser does what it is told.
pub(crate) struct Person {
    pub(crate) shown: Vec<Notice>,
    pub(crate) visits: Vec<JoinHandle<()>>,
    browse: Browse,
    pastes: Option<mpsc::Receiver<String>>,
    on_paste: Option<Browse>,
}

impl Person {
    /// Logs in like anybody.
    pub(crate) fn with_browser() -> Self {
        Self::browsing(|url| async move {
            visit(&url).await;
        })
    }

    /// Does something else with the address.
    pub(crate) fn browsing<F: Future<Output = ()> + Send + 'static>(
        mut act: impl FnMut(Url) -> F + Send + 'static,
    ) -> Self {
        Self {
            shown: Vec::new(),
            visits: Vec::new(),
            browse: Box::new(move |url| Some(tokio::spawn(act(url)))),
            pastes: None,
            on_paste: None,
        }
    }

    /// Has no browser here.
    pub(crate) fn without_browser() -> Self {
        Self {
            shown: Vec::new(),
            visits: Vec::new(),
            browse: Box::new(|_| None),
            pastes: None,
            on_paste: None,
        }
    }

    /// Has a browser elsewhere and pastes what it makes of the address.
    pub(crate) fn pasting<F: Future<Output = Vec<String>> + Send + 'static>(
        mut act: impl FnMut(Url) -> F + Send + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        let on_paste: Browse = Box::new(move |url| {
            let (sender, act) = (sender.clone(), act(url));
            Some(tokio::spawn(async move {
                for line in act.await {
                    let _ = sender.send(line).await;
                }
            }))
        });
        Self {
            pastes: Some(receiver),
            on_paste: Some(on_paste),
            ..Self::without_browser()
        }
    }

    /// Everything that was shown, as on a terminal.
    pub(crate) fn terminal(&self) -> String {
        self.shown.iter().map(|notice| format!("{notice}\n")).collect()
    }
}

impl LoginUi for Person {
    fn show(&mut self, notice: &Notice) {
        if let (Notice::Paste { url, .. }, Some(act)) = (notice, &mut self.on_paste) {
            self.visits.extend(act(url.clone()));
        }
        self.shown.push(notice.clone());
    }

    fn open_browser(&mut self, url: &Url) -> Result<(), BrowserError> {
        let visit = (self.browse)(url.clone()).ok_or(BrowserError::NoneFound)?;
        self.visits.push(visit);
        Ok(())
    }

    fn pasted(&mut self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(async {
            match &mut self.pastes {
                Some(pastes) => pastes.recv().await,
                None => None,
            }
        })
    }
}

/// A browser that follows nothing by itself.
pub(crate) fn browser() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Where the provider sends the browser after the person agreed.
pub(crate) async fn redirect_of(url: &Url) -> Url {
    let response = browser().get(url.clone()).send().await.unwrap();
    Url::parse(response.headers()["location"].to_str().unwrap()).unwrap()
}

/// Goes to the provider and comes back; status and text of the last page.
pub(crate) async fn visit(url: &Url) -> (u16, String) {
    fetch(redirect_of(url).await).await
}

pub(crate) async fn fetch(url: Url) -> (u16, String) {
    let response = browser().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}
