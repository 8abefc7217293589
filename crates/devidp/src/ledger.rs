//! Who agreed to what, and which codes and tokens came of it. Everything is in memory and ends with the provider.
//!
//! Each function takes the time, in milliseconds of Unix time, and does one step of the protocol; the routes only
//! translate. A login and everything refreshed from it is a *family*: when a spent code or refresh token turns up
//! again, somebody else has a copy, and the whole family ends (RFC 9700, section 4.14.2).

mod devices;

use crate::pkce;
use crate::random::random_text;
use devices::Device;
use std::collections::{HashMap, HashSet};

/// Entries of one kind that are kept at once; past it new ones are refused until old ones expire.
const ENTRIES_MAX: usize = 100_000;
/// How long a login page can be answered.
const PAGE_LIFE_MS: i64 = 10 * 60 * 1000;

/// What a person agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) user: String,
    pub(crate) scope: String,
    /// When the person signed in, in seconds.
    pub(crate) auth_time: i64,
    /// For whom the access token is, when the client asked for somebody in particular.
    pub(crate) audience: Option<String>,
}

/// An authorization request that was checked and now waits for a person.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizationRequest {
    pub(crate) redirect_uri: String,
    pub(crate) state: Option<String>,
    pub(crate) nonce: Option<String>,
    /// The PKCE challenge (RFC 7636), always of method S256.
    pub(crate) challenge: String,
    pub(crate) scope: String,
    pub(crate) audience: Option<String>,
}

/// Why a grant is refused: the errors of RFC 6749, section 5.2, and RFC 8628, section 3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    InvalidGrant(&'static str),
    AuthorizationPending,
    SlowDown,
    AccessDenied,
    ExpiredToken,
    /// Too much is going on; the client may try later.
    Full,
}

/// A login and all that came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Family(u64);

struct FamilyRecord {
    consent: Consent,
    revoked: bool,
}

struct Code {
    consent: Consent,
    redirect_uri: String,
    challenge: String,
    nonce: Option<String>,
    expires: i64,
    spent_for: Option<Family>,
}

struct TokenRecord {
    family: Family,
    expires: i64,
    spent: bool,
}

/// A grant that was good: what to put into the tokens.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) family: Family,
    pub(crate) consent: Consent,
    pub(crate) nonce: Option<String>,
}

/// All that the provider remembers.
#[derive(Default)]
pub(crate) struct Ledger {
    pages: HashMap<String, (AuthorizationRequest, i64)>,
    codes: HashMap<String, Code>,
    families: HashMap<Family, FamilyRecord>,
    families_made: u64,
    refresh_tokens: HashMap<String, TokenRecord>,
    access_tokens: HashMap<String, TokenRecord>,
    devices: HashMap<String, Device>,
}

impl Ledger {
    // --- the login page ---

    /// Remembers a request while a person looks at the login page; gives the page's name for it.
    pub(crate) fn open_page(&mut self, request: AuthorizationRequest, now: i64) -> Result<String, Refusal> {
        make_room(&mut self.pages, |(_, expires)| *expires > now)?;
        let id = random_text();
        self.pages.insert(id.clone(), (request, now + PAGE_LIFE_MS));
        Ok(id)
    }

    /// The request behind a page, which stays open: the person may have mistyped.
    pub(crate) fn page(&self, id: &str, now: i64) -> Option<&AuthorizationRequest> {
        self.pages
            .get(id)
            .filter(|(_, expires)| *expires > now)
            .map(|(request, _)| request)
    }

    /// Ends a page: it is answered once.
    pub(crate) fn close_page(&mut self, id: &str, now: i64) -> Option<AuthorizationRequest> {
        self.pages
            .remove(id)
            .filter(|(_, expires)| *expires > now)
            .map(|(request, _)| request)
    }

    // --- authorization codes ---

    /// A code for `user`, who agreed to `request`.
    pub(crate) fn make_code(
        &mut self,
        request: &AuthorizationRequest,
        user: &str,
        life_ms: i64,
        now: i64,
    ) -> Result<String, Refusal> {
        // A spent code is kept as long as its family, so that a replay is noticed.
        let families = &self.families;
        make_room(&mut self.codes, |code| {
            code.expires > now
                || code
                    .spent_for
                    .is_some_and(|family| families.contains_key(&family))
        })?;
        let code = random_text();
        self.codes.insert(
            code.clone(),
            Code {
                consent: Consent {
                    user: user.to_owned(),
                    scope: request.scope.clone(),
                    auth_time: now / 1000,
                    audience: request.audience.clone(),
                },
                redirect_uri: request.redirect_uri.clone(),
                challenge: request.challenge.clone(),
                nonce: request.nonce.clone(),
                expires: now + life_ms,
                spent_for: None,
            },
        );
        Ok(code)
    }

    /// Takes a code in (RFC 6749, section 4.1.3), with the PKCE verifier that only the client which asked can know.
    pub(crate) fn redeem_code(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: i64,
    ) -> Result<Granted, Refusal> {
        let Some(known) = self.codes.get(code) else {
            return Err(Refusal::InvalidGrant("the authorization code is not known"));
        };
        if let Some(family) = known.spent_for {
            self.revoke_family(family);
            return Err(Refusal::InvalidGrant(
                "the authorization code was used before; its tokens are revoked",
            ));
        }
        if known.expires <= now {
            return Err(Refusal::InvalidGrant("the authorization code has expired"));
        }
        if known.redirect_uri != redirect_uri {
            return Err(Refusal::InvalidGrant(
                "redirect_uri is not the one of the authorization request",
            ));
        }
        if !pkce::fits(verifier, &known.challenge) {
            return Err(Refusal::InvalidGrant(
                "code_verifier does not fit the code_challenge",
            ));
        }
        let (consent, nonce) = (known.consent.clone(), known.nonce.clone());
        let family = self.begin_family(&consent)?;
        if let Some(known) = self.codes.get_mut(code) {
            known.spent_for = Some(family);
        }
        Ok(Granted {
            family,
            consent,
            nonce,
        })
    }

    // --- tokens ---

    /// A new login. Families that have no token left are forgotten when there are many.
    fn begin_family(&mut self, consent: &Consent) -> Result<Family, Refusal> {
        if self.families.len() >= ENTRIES_MAX {
            let tokens = self.refresh_tokens.values().chain(self.access_tokens.values());
            let in_use: HashSet<Family> = tokens.map(|token| token.family).collect();
            self.families.retain(|family, _| in_use.contains(family));
        }
        if self.families.len() >= ENTRIES_MAX {
            return Err(Refusal::Full);
        }
        self.families_made += 1;
        let family = Family(self.families_made);
        self.families.insert(
            family,
            FamilyRecord {
                consent: consent.clone(),
                revoked: false,
            },
        );
        Ok(family)
    }

    /// A new refresh token of `family`.
    pub(crate) fn make_refresh_token(
        &mut self,
        family: Family,
        life_ms: i64,
        now: i64,
    ) -> Result<String, Refusal> {
        make_room(&mut self.refresh_tokens, |token| token.expires > now)?;
        let token = random_text();
        self.refresh_tokens.insert(
            token.clone(),
            TokenRecord {
                family,
                expires: now + life_ms,
                spent: false,
            },
        );
        Ok(token)
    }

    /// Remembers an access token, for `/userinfo` and `/revoke`.
    pub(crate) fn record_access_token(
        &mut self,
        token: &str,
        family: Family,
        life_ms: i64,
        now: i64,
    ) -> Result<(), Refusal> {
        make_room(&mut self.access_tokens, |token| token.expires > now)?;
        self.access_tokens.insert(
            token.to_owned(),
            TokenRecord {
                family,
                expires: now + life_ms,
                spent: false,
            },
        );
        Ok(())
    }

    /// Takes a refresh token in (RFC 6749, section 6). With `rotate` it was its last use.
    pub(crate) fn redeem_refresh_token(
        &mut self,
        token: &str,
        rotate: bool,
        now: i64,
    ) -> Result<Granted, Refusal> {
        let Some(known) = self.refresh_tokens.get_mut(token) else {
            return Err(Refusal::InvalidGrant("the refresh token is not known"));
        };
        let family = known.family;
        if known.spent {
            self.revoke_family(family);
            return Err(Refusal::InvalidGrant(
                "the refresh token was used before; the whole login is revoked",
            ));
        }
        if known.expires <= now {
            return Err(Refusal::InvalidGrant("the refresh token has expired"));
        }
        let record = self.families.get(&family).filter(|record| !record.revoked);
        let Some(record) = record else {
            return Err(Refusal::InvalidGrant("the refresh token is revoked"));
        };
        known.spent = rotate;
        Ok(Granted {
            family,
            consent: record.consent.clone(),
            nonce: None,
        })
    }

    /// Who an access token speaks for.
    pub(crate) fn access(&self, token: &str, now: i64) -> Option<&Consent> {
        let known = self
            .access_tokens
            .get(token)
            .filter(|known| known.expires > now)?;
        self.families
            .get(&known.family)
            .filter(|record| !record.revoked)
            .map(|record| &record.consent)
    }

    /// Revokes a token (RFC 7009): a refresh token takes its whole family along, an access token only itself.
    pub(crate) fn revoke(&mut self, token: &str) {
        if let Some(known) = self.refresh_tokens.get(token) {
            self.revoke_family(known.family);
        } else {
            self.access_tokens.remove(token);
        }
    }

    /// Revokes everything, as an administrator who ends all sessions does.
    pub(crate) fn revoke_all(&mut self) {
        for record in self.families.values_mut() {
            record.revoked = true;
        }
        self.codes.retain(|_, code| code.spent_for.is_some());
        self.devices.clear();
    }

    fn revoke_family(&mut self, family: Family) {
        if let Some(record) = self.families.get_mut(&family) {
            record.revoked = true;
        }
    }
}

/// Drops what is not `alive` once the map is large, and refuses when that was not enough.
fn make_room<T>(map: &mut HashMap<String, T>, alive: impl Fn(&T) -> bool) -> Result<(), Refusal> {
    if map.len() >= ENTRIES_MAX {
        map.retain(|_, value| alive(value));
    }
    if map.len() >= ENTRIES_MAX {
        Err(Refusal::Full)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const REDIRECT: &str = "http://127.0.0.1:4000/callback";

    fn request() -> AuthorizationRequest {
        AuthorizationRequest {
            redirect_uri: REDIRECT.into(),
            state: None,
            nonce: Some("n".into()),
            challenge: pkce::s256(VERIFIER),
            scope: "openid".into(),
            audience: None,
        }
    }

    fn invalid(result: Result<Granted, Refusal>) -> &'static str {
        match result {
            Err(Refusal::InvalidGrant(why)) => why,
            other => panic!("not an invalid grant: {other:?}"),
        }
    }

    #[test]
    fn a_code_is_good_once_for_its_client_s_verifier_and_address_and_only_in_time() {
        let mut ledger = Ledger::default();
        let code = ledger.make_code(&request(), "alice", 1000, 0).unwrap();
        assert!(invalid(ledger.redeem_code("x", REDIRECT, VERIFIER, 0)).contains("not known"));
        assert!(
            invalid(ledger.redeem_code(&code, "http://127.0.0.1:1/", VERIFIER, 0)).contains("redirect_uri")
        );
        assert!(invalid(ledger.redeem_code(&code, REDIRECT, &"a".repeat(43), 0)).contains("code_verifier"));
        assert!(invalid(ledger.redeem_code(&code, REDIRECT, "short", 0)).contains("code_verifier"));
        assert!(invalid(ledger.redeem_code(&code, REDIRECT, VERIFIER, 1000)).contains("expired"));
        let granted = ledger.redeem_code(&code, REDIRECT, VERIFIER, 999).unwrap();
        assert_eq!(granted.consent.user, "alice");
        assert_eq!(granted.nonce.as_deref(), Some("n"));
    }

    #[test]
    fn a_code_that_comes_twice_revokes_what_came_of_it() {
        let mut ledger = Ledger::default();
        let code = ledger.make_code(&request(), "alice", 1000, 0).unwrap();
        let granted = ledger.redeem_code(&code, REDIRECT, VERIFIER, 0).unwrap();
        let refresh = ledger.make_refresh_token(granted.family, 1000, 0).unwrap();
        ledger
            .record_access_token("access", granted.family, 1000, 0)
            .unwrap();
        assert!(ledger.access("access", 1).is_some());
        assert!(invalid(ledger.redeem_code(&code, REDIRECT, VERIFIER, 1)).contains("used before"));
        assert!(invalid(ledger.redeem_refresh_token(&refresh, true, 1)).contains("revoked"));
        assert!(ledger.access("access", 1).is_none());
    }

    #[test]
    fn reuse_of_a_rotated_refresh_token_ends_the_family_and_no_other() {
        let mut ledger = Ledger::default();
        let mut login = || {
            let code = ledger.make_code(&request(), "alice", 1000, 0).unwrap();
            let granted = ledger.redeem_code(&code, REDIRECT, VERIFIER, 0).unwrap();
            ledger.make_refresh_token(granted.family, 1000, 0).unwrap()
        };
        let (first, other) = (login(), login());
        let granted = ledger.redeem_refresh_token(&first, true, 0).unwrap();
        let second = ledger.make_refresh_token(granted.family, 1000, 0).unwrap();
        assert!(invalid(ledger.redeem_refresh_token(&first, true, 0)).contains("used before"));
        assert!(invalid(ledger.redeem_refresh_token(&second, true, 0)).contains("revoked"));
        assert!(ledger.redeem_refresh_token(&other, false, 0).is_ok());
        assert!(
            ledger.redeem_refresh_token(&other, true, 0).is_ok(),
            "without rotation it may be used again"
        );
        assert!(invalid(ledger.redeem_refresh_token("x", true, 0)).contains("not known"));
    }

    #[test]
    fn refresh_tokens_expire_and_can_be_revoked_one_by_one_and_all_together() {
        let mut ledger = Ledger::default();
        let mut login = || {
            let code = ledger.make_code(&request(), "alice", 1000, 0).unwrap();
            let granted = ledger.redeem_code(&code, REDIRECT, VERIFIER, 0).unwrap();
            ledger.make_refresh_token(granted.family, 1000, 0).unwrap()
        };
        let (a, b, c) = (login(), login(), login());
        assert!(invalid(ledger.redeem_refresh_token(&a, true, 1000)).contains("expired"));
        ledger.revoke(&b);
        ledger.revoke("unknown");
        assert!(invalid(ledger.redeem_refresh_token(&b, true, 1)).contains("revoked"));
        ledger.revoke_all();
        assert!(invalid(ledger.redeem_refresh_token(&c, true, 1)).contains("revoked"));
    }

    #[test]
    fn a_page_is_answered_once_and_in_time() {
        let mut ledger = Ledger::default();
        let id = ledger.open_page(request(), 0).unwrap();
        assert!(ledger.page(&id, 1).is_some());
        assert!(ledger.page(&id, PAGE_LIFE_MS).is_none());
        assert!(ledger.close_page(&id, 1).is_some());
        assert!(ledger.close_page(&id, 1).is_none());
    }
}
