//! A stand-in for a browser and the person in front of it: follows a login to its end, without a screen.
//!
//! It understands redirects, cookies and forms, which is all that login pages without scripts need: the pages of
//! [`DevProvider`](crate::DevProvider) and those of the npm package `oidc-provider`, among others.

use crate::cookies::Jar;
use crate::html::{self, Document, Field, Form};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use std::net::IpAddr;
use std::time::Duration;
use url::{Host, Url};

/// Requests that one login may need; more of them mean that the pages lead in a circle.
const STEPS_MAX: usize = 30;
/// A page's size; login pages have a few KiB.
const PAGE_MAX: usize = 1024 * 1024;
/// How long one request may take.
const STEP_DEADLINE: Duration = Duration::from_secs(30);

/// Who sits in front of the browser, and what they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name that is typed into login pages.
    pub name: String,
    /// The password, for pages that ask for one; test providers take any.
    pub password: String,
    /// Whether this person presses "Cancel" where others sign in.
    pub refuses: bool,
}

impl Person {
    /// Somebody with this name who signs in and agrees to everything.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: "any".to_owned(),
            refuses: false,
        }
    }

    /// The same person, who refuses.
    #[must_use]
    pub fn who_refuses(mut self) -> Self {
        self.refuses = true;
        self
    }
}

impl Default for Person {
    fn default() -> Self {
        Self::named("alice")
    }
}

/// The page on which a login ended: the client's own, or a provider's complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it is.
    pub url: Url,
    /// Its HTTP status.
    pub status: u16,
    /// Its text, as HTML.
    pub text: String,
}

/// Why a login did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The address to begin at is none.
    #[error("`{0}` is not an address that a browser could open")]
    Address(String),
    /// A page led away from this machine, where a stand-in for a person has no business.
    #[error("a login page leads to {0}, which is not on this machine")]
    NotLoopback(String),
    /// A request failed on its way.
    #[error("{url} could not be fetched")]
    Request {
        /// What was asked for, without its query.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// A redirect without a usable target.
    #[error("{0} redirects to no usable address")]
    Redirect(String),
    /// The page is larger than a login page can be.
    #[error("the page at {0} is larger than 1 MiB")]
    TooLarge(String),
    /// The pages lead in a circle, or a form came back again and again.
    #[error("the login did not end within {STEPS_MAX} pages; the last was {0}")]
    NoEnd(String),
    /// The system gave no thread or event queue.
    #[error("cannot start a browser's stand-in")]
    Start(#[source] std::io::Error),
}

/// Opens `url` and signs in as `person`, through all pages, to the one that has no form: the client's own.
///
/// Works on loopback addresses only. Takes no notice of proxies.
pub async fn sign_in(url: &str, person: &Person) -> Result<Page, SignInError> {
    let start = Url::parse(url).map_err(|_| SignInError::Address(url.chars().take(200).collect()))?;
    let client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(STEP_DEADLINE)
        .user_agent("epithet-devidp sign-in")
        .build()
        .map_err(|source| SignInError::Request {
            url: without_query(&start),
            source,
        })?;
    let mut browser = Browser {
        client,
        jar: Jar::default(),
    };
    let mut step = Step::Get(start);
    let mut has_refused = false;
    for _ in 0..STEPS_MAX {
        let url = step.url().clone();
        let (status, location, text) = browser.fetch(&step).await?;
        if status.is_redirection() {
            let target = location.and_then(|target| url.join(&target).ok());
            step = Step::Get(target.ok_or_else(|| SignInError::Redirect(without_query(&url)))?);
            continue;
        }
        let document = html::read(&text);
        let next = if !status.is_success() || has_refused {
            None
        } else if let Some(refusal) = refuse(&url, &document, person) {
            has_refused = true;
            Some(refusal)
        } else {
            agree(&url, &document, person)
        };
        match next {
            Some(next) => step = next,
            None => {
                return Ok(Page {
                    url,
                    status: status.as_u16(),
                    text,
                });
            }
        }
    }
    Err(SignInError::NoEnd(without_query(step.url())))
}

/// [`sign_in`] for callers without an asynchronous runtime, and for those inside one that may block.
pub fn sign_in_blocking(url: &str, person: &Person) -> Result<Page, SignInError> {
    std::thread::scope(|scope| {
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .map_err(SignInError::Start)?
                .block_on(sign_in(url, person))
        };
        match scope.spawn(work).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What to ask for next.
enum Step {
    Get(Url),
    Post(Url, Vec<(String, String)>),
}

impl Step {
    fn url(&self) -> &Url {
        match self {
            Self::Get(url) | Self::Post(url, _) => url,
        }
    }
}

/// A client that keeps cookies.
struct Browser {
    client: Client,
    jar: Jar,
}

impl Browser {
    /// One request: its status, where it redirects to, and its text.
    async fn fetch(&mut self, step: &Step) -> Result<(StatusCode, Option<String>, String), SignInError> {
        let url = step.url();
        require_loopback(url)?;
        let mut request = match step {
            Step::Get(url) => self.client.get(url.clone()),
            Step::Post(url, fields) => self.client.post(url.clone()).form(fields),
        };
        if let Some(cookies) = self.jar.header(url) {
            request = request.header(COOKIE, cookies);
        }
        let failed = |source| SignInError::Request {
            url: without_query(url),
            source,
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned);
        for cookie in response
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
        {
            self.jar.take(url, cookie);
        }
        let text = read(response).await.map_err(failed)?;
        let text = text.ok_or_else(|| SignInError::TooLarge(without_query(url)))?;
        Ok((status, location, text))
    }
}

/// How a person who refuses does it on this page: with a button, or a link called "Cancel". `None` when they do not
/// refuse or there is nothing here to refuse with; such a page is passed as everybody passes it.
fn refuse(url: &Url, document: &Document, person: &Person) -> Option<Step> {
    let form = document.forms.first().filter(|_| person.refuses)?;
    let says_no = |field: &&Field| {
        let no = ["refuse", "deny", "abort", "cancel"];
        field.kind == "submit" && (no.contains(&field.value.as_str()) || no.contains(&field.name.as_str()))
    };
    if let Some(button) = form.fields.iter().find(says_no) {
        return submit(url, form, person, Some(button));
    }
    let link = document
        .links
        .iter()
        .find(|link| link.text.to_ascii_lowercase().contains("cancel"))?;
    url.join(&link.target).ok().map(Step::Get)
}

/// Fills in the page's form and presses its first button. `None` when there is no form, or one that asks for a device's
/// code: that is on the device, and nobody here can see it.
fn agree(url: &Url, document: &Document, person: &Person) -> Option<Step> {
    let form = document.forms.first()?;
    if form
        .fields
        .iter()
        .any(|field| field.name == "user_code" && field.value.is_empty())
    {
        return None;
    }
    submit(
        url,
        form,
        person,
        form.fields.iter().find(|field| field.kind == "submit"),
    )
}

/// Fills a form in and sends it, with the button that was pressed.
fn submit(url: &Url, form: &Form, person: &Person, button: Option<&Field>) -> Option<Step> {
    let mut target = url.join(&form.action).ok()?;
    let mut fields = Vec::new();
    for field in form.fields.iter().filter(|field| !field.name.is_empty()) {
        let value = match field.kind.as_str() {
            "submit" | "button" | "reset" | "image" | "checkbox" | "radio" => continue,
            "password" => person.password.clone(),
            "hidden" => field.value.clone(),
            // A code that a page asks for is not a name; it is there already when the address brought it.
            _ if field.name == "user_code" => field.value.clone(),
            _ => person.name.clone(),
        };
        fields.push((field.name.clone(), value));
    }
    if let Some(button) = button.filter(|button| !button.name.is_empty()) {
        fields.push((button.name.clone(), button.value.clone()));
    }
    if form.is_post {
        return Some(Step::Post(target, fields));
    }
    target.query_pairs_mut().clear().extend_pairs(fields);
    Some(Step::Get(target))
}

fn require_loopback(url: &Url) -> Result<(), SignInError> {
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if is_loopback && url.scheme() == "http" {
        Ok(())
    } else {
        Err(SignInError::NotLoopback(without_query(url)))
    }
}

/// An address that can be printed: codes and states are in the query.
fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// A page's text, or `None` when it is too large.
async fn read(mut response: reqwest::Response) -> Result<Option<String>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > PAGE_MAX {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_fills_names_in_and_leaves_codes_and_hidden_fields_alone() {
        let url = Url::parse("http://127.0.0.1:1/x").unwrap();
        let page = html::read(
            "<form method=post action=/go><input type=hidden name=t value=1><input name=login>\
             <input name=user_code value=ABCD><input type=password name=password>\
             <button name=decision value=accept>Yes</button><button name=decision value=refuse>No</button></form>",
        );
        let fields =
            |person: &Person| match refuse(&url, &page, person).or_else(|| agree(&url, &page, person)) {
                Some(Step::Post(url, fields)) => (url.path().to_owned(), fields),
                _ => panic!("not a form that is posted"),
            };
        let (path, fields_of_alice) = fields(&Person::default());
        assert_eq!(path, "/go");
        let pairs: Vec<(&str, &str)> = fields_of_alice
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        let expected = [
            ("t", "1"),
            ("login", "alice"),
            ("user_code", "ABCD"),
            ("password", "any"),
            ("decision", "accept"),
        ];
        assert_eq!(pairs, expected);
        let unseen = html::read("<form method=post><input name=user_code></form>");
        assert!(agree(&url, &unseen, &Person::default()).is_none());
        let (_, fields_of_bob) = fields(&Person::named("bob").who_refuses());
        assert_eq!(
            fields_of_bob.last(),
            Some(&("decision".to_owned(), "refuse".to_owned()))
        );
    }

    #[test]
    fn a_stand_in_stays_on_this_machine() {
        for url in [
            "http://127.0.0.1.evil.test/",
            "http://example.com/",
            "https://127.0.0.1/",
            "file:///etc/passwd",
        ] {
            assert!(require_loopback(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/"] {
            assert!(require_loopback(&Url::parse(url).unwrap()).is_ok(), "{url}");
        }
    }
}
