//! The authorization endpoint and its login page (RFC 6749, section 4.1; OpenID Connect Core, section 3.1.2).

use crate::claims::{self, NAME_MAX};
use crate::html::escape;
use crate::ledger::AuthorizationRequest;
use crate::page::{page, problem};
use crate::parameters::{Parameters, Repeated};
use crate::provider::Provider;
use crate::routes::query;
use crate::token::{milliseconds, read_form};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use std::sync::Arc;
use url::Url;

/// Why an authorization request does not lead to a login page.
#[derive(Debug)]
enum Fault {
    /// Nobody can be told but the person: where the answer would go is not certain.
    Page(String),
    /// The client is told, by a redirect: an error code of RFC 6749 or Core, and a sentence.
    Client {
        redirect_uri: String,
        state: Option<String>,
        code: &'static str,
        sentence: &'static str,
    },
}

/// `GET /authorize`: checks the request and shows the login page.
pub(crate) async fn begin(State(provider): State<Arc<Provider>>, uri: Uri) -> Response {
    provider.count(|requests| &mut requests.authorizations);
    let checked = query(&uri)
        .map_err(|Repeated(name)| Fault::Page(format!("The parameter {name} came twice.")))
        .and_then(|parameters| Ok((check(&parameters, &provider.settings.client_id)?, parameters)));
    match checked {
        Ok((request, parameters)) => {
            let suggestion = parameters.get("login_hint").filter(|hint| claims::is_name(hint));
            let suggestion = suggestion.unwrap_or(&provider.settings.default_user).to_owned();
            let opened = provider.ledger().open_page(request.clone(), provider.now_ms());
            match opened {
                Ok(id) => login_page(StatusCode::OK, &provider, &request, &id, &suggestion, None),
                Err(_) => problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Too many logins",
                    "Too many login pages are open. Restart the demo.",
                ),
            }
        }
        Err(Fault::Page(what)) => problem(StatusCode::BAD_REQUEST, "This login cannot begin", &what),
        Err(Fault::Client {
            redirect_uri,
            state,
            code,
            sentence,
        }) => redirect(
            &provider,
            &redirect_uri,
            state.as_deref(),
            &[("error", code), ("error_description", sentence)],
        ),
    }
}

/// The request's parameters, each checked.
fn check(parameters: &Parameters, client_id: &str) -> Result<AuthorizationRequest, Fault> {
    if parameters.get("client_id") != Some(client_id) {
        return Err(Fault::Page(format!(
            "The only client of this provider is {client_id}."
        )));
    }
    let Some(redirect_uri) = parameters.get("redirect_uri") else {
        return Err(Fault::Page("The parameter redirect_uri is missing.".to_owned()));
    };
    if !is_loopback(redirect_uri) {
        return Err(Fault::Page(
            "The redirect_uri must be http:// to 127.0.0.1, [::1] or localhost, at any port, without a fragment.".to_owned(),
        ));
    }
    let state = parameters.get("state").map(ToOwned::to_owned);
    let refuse = |code, sentence| {
        Err(Fault::Client {
            redirect_uri: redirect_uri.to_owned(),
            state: state.clone(),
            code,
            sentence,
        })
    };
    if parameters.get("request").is_some() {
        return refuse("request_not_supported", "the request parameter is not supported");
    }
    if parameters.get("request_uri").is_some() {
        return refuse(
            "request_uri_not_supported",
            "the request_uri parameter is not supported",
        );
    }
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => return refuse("unsupported_response_type", "response_type must be code"),
        None => return refuse("invalid_request", "response_type is missing"),
    }
    if parameters
        .get("response_mode")
        .is_some_and(|mode| mode != "query")
    {
        return refuse("invalid_request", "response_mode must be query");
    }
    let scope = parameters.get("scope").unwrap_or_default();
    if !scope.split(' ').any(|word| word == "openid") {
        return refuse("invalid_scope", "scope must contain openid");
    }
    let Some(challenge) = parameters.get("code_challenge") else {
        return refuse("invalid_request", "code_challenge is missing: PKCE is required");
    };
    if parameters.get("code_challenge_method") != Some("S256") {
        return refuse("invalid_request", "code_challenge_method must be S256");
    }
    if challenge.len() != 43
        || !challenge
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return refuse(
            "invalid_request",
            "code_challenge is not the base64url form of a SHA-256",
        );
    }
    if parameters
        .get("prompt")
        .is_some_and(|prompt| prompt.split(' ').any(|word| word == "none"))
    {
        // There are no sessions: every login asks.
        return refuse("login_required", "a person has to sign in");
    }
    Ok(AuthorizationRequest {
        redirect_uri: redirect_uri.to_owned(),
        nonce: parameters.get("nonce").map(ToOwned::to_owned),
        challenge: challenge.to_owned(),
        scope: scope.to_owned(),
        audience: parameters
            .get("resource")
            .or(parameters.get("audience"))
            .map(ToOwned::to_owned),
        state,
    })
}

/// Whether answers may go there: this machine, whatever the port (RFC 8252, section 7.3).
fn is_loopback(redirect_uri: &str) -> bool {
    let Ok(url) = Url::parse(redirect_uri) else {
        return false;
    };
    url.scheme() == "http"
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
        && matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"))
}

fn login_page(
    status: StatusCode,
    provider: &Provider,
    request: &AuthorizationRequest,
    id: &str,
    suggestion: &str,
    complaint: Option<&str>,
) -> Response {
    let target = Url::parse(&request.redirect_uri).ok();
    let origin = target
        .as_ref()
        .map(|url| url.origin().ascii_serialization())
        .unwrap_or_default();
    // A source in a Content-Security-Policy cannot name an IPv6 address; its scheme it can.
    let form_target = if origin.contains('[') {
        "http:"
    } else {
        origin.as_str()
    };
    let complaint = complaint
        .map(|text| format!("<p class=\"error\">{}</p>\n", escape(text)))
        .unwrap_or_default();
    let body = format!(
        "{complaint}<p><strong>{client}</strong> wants to know who you are. There is no password: choose any name.</p>\n\
         <form method=\"post\" action=\"/login\" autocomplete=\"off\">\n\
         <input type=\"hidden\" name=\"page\" value=\"{id}\">\n\
         <label for=\"name\">Name</label>\n\
         <input type=\"text\" id=\"name\" name=\"name\" value=\"{suggestion}\" maxlength=\"{NAME_MAX}\" required autofocus spellcheck=\"false\" autocapitalize=\"none\">\n\
         <button type=\"submit\" name=\"decision\" value=\"accept\">Sign in</button>\n\
         <button type=\"submit\" name=\"decision\" value=\"refuse\" class=\"second\" formnovalidate>Refuse</button>\n\
         </form>\n<p class=\"quiet\">The answer goes to <code>{origin}</code>.</p>",
        client = escape(&provider.settings.client_id),
        id = escape(id),
        suggestion = escape(suggestion),
        origin = escape(&origin),
    );
    page(status, "Sign in", &body, form_target)
}

/// `POST /login`: the person's answer goes to the client as a code or as an error.
pub(crate) async fn answer(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(form) = read_form(&headers, &body) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "This is not our form",
            "The form could not be read.",
        );
    };
    let now = provider.now_ms();
    let id = form.get("page").unwrap_or_default();
    let Some(request) = provider.ledger().page(id, now).cloned() else {
        return problem(
            StatusCode::BAD_REQUEST,
            "This page is over",
            "It was answered before or is too old. Start the login again.",
        );
    };
    if form.get("decision") == Some("refuse") {
        provider.ledger().close_page(id, now);
        provider.count(|requests| &mut requests.refusals);
        let error = [
            ("error", "access_denied"),
            ("error_description", "the person refused to sign in"),
        ];
        return redirect(&provider, &request.redirect_uri, request.state.as_deref(), &error);
    }
    let name = form.get("name").unwrap_or_default().trim();
    if !claims::is_name(name) {
        let complaint = "A name is up to 64 letters, digits and . _ - + @ without blanks.";
        return login_page(
            StatusCode::UNPROCESSABLE_ENTITY,
            &provider,
            &request,
            id,
            name,
            Some(complaint),
        );
    }
    let code_life = milliseconds(provider.settings.code_life);
    let code = {
        let mut ledger = provider.ledger();
        ledger.close_page(id, now);
        ledger.make_code(&request, name, code_life, now)
    };
    let Ok(code) = code else {
        let error = [
            ("error", "temporarily_unavailable"),
            ("error_description", "too many logins at once"),
        ];
        return redirect(&provider, &request.redirect_uri, request.state.as_deref(), &error);
    };
    provider.count(|requests| &mut requests.logins);
    tracing::info!(user = name, "development login");
    redirect(
        &provider,
        &request.redirect_uri,
        request.state.as_deref(),
        &[("code", &code)],
    )
}

/// Sends the browser back to the client, with `iss` so that it knows who answers (RFC 9207).
fn redirect(
    provider: &Provider,
    redirect_uri: &str,
    state: Option<&str>,
    answer: &[(&str, &str)],
) -> Response {
    let Ok(mut target) = Url::parse(redirect_uri) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "This login cannot end",
            "The redirect_uri is not an address.",
        );
    };
    {
        let mut parameters = target.query_pairs_mut();
        parameters.extend_pairs(answer);
        if let Some(state) = state {
            parameters.append_pair("state", state);
        }
        parameters.append_pair("iss", &provider.issuer);
    }
    let headers = [
        (header::LOCATION, target.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "client_id=epithet&redirect_uri=http%3A%2F%2F127.0.0.1%3A4000%2Fcallback&response_type=code\
        &scope=openid+email&state=s&nonce=n&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
        &code_challenge_method=S256";

    fn checked(text: &str) -> Result<AuthorizationRequest, Fault> {
        check(&Parameters::parse(text.as_bytes()).unwrap(), "epithet")
    }

    #[test]
    fn a_good_request_is_taken_with_all_it_says() {
        let request = checked(GOOD).unwrap();
        assert_eq!(request.redirect_uri, "http://127.0.0.1:4000/callback");
        assert_eq!(
            (request.state.as_deref(), request.nonce.as_deref()),
            (Some("s"), Some("n"))
        );
        assert_eq!(request.scope, "openid email");
    }

    #[test]
    fn each_fault_is_told_to_the_one_who_can_be_told() {
        for (from, to) in [
            ("client_id=epithet", "client_id=other"),
            ("client_id=epithet&", ""),
            ("redirect_uri=http%3A%2F%2F127.0.0.1%3A4000%2Fcallback&", ""),
            ("127.0.0.1%3A4000", "evil.example"),
            ("127.0.0.1%3A4000", "127.0.0.1.evil.example"),
            ("http%3A%2F%2F127", "http%3A%2F%2Fu%40127"),
            ("http%3A%2F%2F", "https%3A%2F%2F"),
            ("callback", "callback%23f"),
        ] {
            assert!(
                matches!(checked(&GOOD.replace(from, to)), Err(Fault::Page(_))),
                "{from} -> {to}"
            );
        }
        for (from, to, expected) in [
            (
                "response_type=code",
                "response_type=token",
                "unsupported_response_type",
            ),
            ("response_type=code&", "", "invalid_request"),
            ("openid", "profile", "invalid_scope"),
            ("&code_challenge_method=S256", "", "invalid_request"),
            ("S256", "plain", "invalid_request"),
            ("E9Mel", "E9Me", "invalid_request"),
            ("state=s", "state=s&prompt=none", "login_required"),
            ("state=s", "state=s&request=x", "request_not_supported"),
            ("state=s", "state=s&response_mode=fragment", "invalid_request"),
        ] {
            match checked(&GOOD.replace(from, to)) {
                Err(Fault::Client { code, state, .. }) => {
                    assert_eq!((code, state.as_deref()), (expected, Some("s")), "{from} -> {to}");
                }
                other => panic!("{from} -> {to}: {other:?}"),
            }
        }
    }
}
