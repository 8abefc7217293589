//! Logging in where there is no browser: a code here, a person with a browser elsewhere (RFC 8628).

use crate::claims::{self, NAME_MAX};
use crate::html::escape;
use crate::page::{page, problem};
use crate::parameters::Repeated;
use crate::provider::Provider;
use crate::routes::query;
use crate::token::{TokenError, authenticate_client, invalid_request, milliseconds, read_form};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /device_authorization`: a device asks for its codes.
pub(crate) async fn begin(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    provider.count(|requests| &mut requests.devices);
    match codes(&provider, &headers, &body) {
        Ok(codes) => ([(header::CACHE_CONTROL, "no-store")], Json(codes)).into_response(),
        Err(error) => error.into_response(),
    }
}

fn codes(provider: &Provider, headers: &HeaderMap, body: &[u8]) -> Result<Value, TokenError> {
    let form = read_form(headers, body)?;
    authenticate_client(provider, headers, &form)?;
    let scope = form.get("scope").unwrap_or_default();
    if !scope.split(' ').any(|word| word == "openid") {
        return Err(invalid_request("scope must contain openid"));
    }
    let settings = &provider.settings;
    let codes = provider.ledger().make_device(
        scope,
        form.get("resource").or(form.get("audience")),
        milliseconds(settings.device_code_life),
        milliseconds(settings.device_interval),
        provider.now_ms(),
    )?;
    let page = format!("{}/device", provider.issuer);
    Ok(json!({
        "device_code": codes.device_code,
        "user_code": codes.user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", codes.user_code),
        "expires_in": settings.device_code_life.as_secs(),
        "interval": settings.device_interval.as_secs(),
    }))
}

/// `GET /device`: the page where a person enters the device's code.
pub(crate) async fn ask(State(provider): State<Arc<Provider>>, uri: Uri) -> Response {
    match query(&uri) {
        Ok(parameters) => {
            let code = parameters.get("user_code").unwrap_or_default();
            code_page(
                StatusCode::OK,
                &provider,
                code,
                &provider.settings.default_user,
                None,
            )
        }
        Err(Repeated(name)) => problem(
            StatusCode::BAD_REQUEST,
            "This page cannot open",
            &format!("The parameter {name} came twice."),
        ),
    }
}

fn code_page(
    status: StatusCode,
    provider: &Provider,
    code: &str,
    name: &str,
    complaint: Option<&str>,
) -> Response {
    let complaint = complaint
        .map(|text| format!("<p class=\"error\">{}</p>\n", escape(text)))
        .unwrap_or_default();
    let (code_focus, name_focus) = if code.is_empty() {
        ("autofocus", "")
    } else {
        ("", "autofocus")
    };
    let body = format!(
        "{complaint}<p><strong>{client}</strong> wants to log in on a device. Continue only when this code is the one \
         that the device shows.</p>\n\
         <form method=\"post\" action=\"/device\" autocomplete=\"off\">\n\
         <input type=\"hidden\" name=\"page\" value=\"{secret}\">\n\
         <label for=\"user_code\">Code</label>\n\
         <input type=\"text\" id=\"user_code\" name=\"user_code\" value=\"{code}\" maxlength=\"16\" required {code_focus} spellcheck=\"false\" autocapitalize=\"characters\">\n\
         <label for=\"name\">Name</label>\n\
         <input type=\"text\" id=\"name\" name=\"name\" value=\"{name}\" maxlength=\"{NAME_MAX}\" required {name_focus} spellcheck=\"false\" autocapitalize=\"none\">\n\
         <button type=\"submit\" name=\"decision\" value=\"accept\">Sign in</button>\n\
         <button type=\"submit\" name=\"decision\" value=\"refuse\" class=\"second\">Refuse</button>\n\
         </form>",
        client = escape(&provider.settings.client_id),
        secret = escape(&provider.page_secret),
        code = escape(code),
        name = escape(name),
    );
    page(status, "Sign in on a device", &body, "")
}

/// `POST /device`: the person's answer, which the device hears when it asks next.
pub(crate) async fn answer(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = match read_form(&headers, &body) {
        Ok(form) if form.get("page") == Some(provider.page_secret.as_str()) => form,
        _ => {
            return problem(
                StatusCode::BAD_REQUEST,
                "This is not our form",
                "The form did not come from this provider's page. Open the page again.",
            );
        }
    };
    let code = form.get("user_code").unwrap_or_default();
    let name = form.get("name").unwrap_or_default().trim();
    let refuses = form.get("decision") == Some("refuse");
    if !refuses && !claims::is_name(name) {
        let complaint = "A name is up to 64 letters, digits and . _ - + @ without blanks.";
        return code_page(
            StatusCode::UNPROCESSABLE_ENTITY,
            &provider,
            code,
            name,
            Some(complaint),
        );
    }
    let user = (!refuses).then_some(name);
    if !provider.ledger().answer_device(code, user, provider.now_ms()) {
        let complaint = "No device waits with this code. Look at it again, or start the login again.";
        return code_page(
            StatusCode::UNPROCESSABLE_ENTITY,
            &provider,
            code,
            name,
            Some(complaint),
        );
    }
    if refuses {
        provider.count(|requests| &mut requests.refusals);
        return page(
            StatusCode::OK,
            "Refused",
            "<p>The device will not be logged in. You can close this page.</p>",
            "",
        );
    }
    provider.count(|requests| &mut requests.logins);
    tracing::info!(user = name, "development login on a device");
    let text = format!(
        "<p>The device is logged in as <strong>{}</strong>. You can close this page.</p>",
        escape(name)
    );
    page(StatusCode::OK, "Signed in", &text, "")
}
