//! Logging in with a code on another device.

use crate::device::{self, DeviceError};
use crate::flow::Flow;
use crate::http::FetchError;
use crate::login::{FlowError, LoggedIn, LoginError};
use crate::session::{FirstToken, Session};
use crate::token_endpoint::TokenEndpointError;
use crate::ui::{LoginUi, Notice};

impl Session<'_> {
    /// A code that the person enters on any device.
    pub(crate) async fn log_in_with_a_code(&mut self, ui: &mut dyn LoginUi) -> Result<LoggedIn, FlowError> {
        let Some(endpoint) = self.provider.device_authorization_endpoint.clone() else {
            return Err(FlowError::Unsuitable(
                "the provider has no device endpoint".to_owned(),
            ));
        };
        let code = match device::request_code(self.options, &self.provider, self.auth, &endpoint).await {
            Ok(code) => code,
            Err(TokenEndpointError::Refused(refusal)) if refusal.forbids_the_flow() => {
                return Err(FlowError::Unsuitable(refusal.to_string()));
            }
            Err(TokenEndpointError::Unavailable(FetchError::Status {
                status: status @ 400..=499,
                ..
            })) => {
                return Err(FlowError::Unsuitable(format!(
                    "the device endpoint answers with status {status}"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        ui.show(&Notice::code(&code));
        let endpoint = self.token_endpoint()?;
        let tokens = match device::wait(self.options, self.auth, &endpoint, &code).await {
            Ok(tokens) => tokens,
            Err(DeviceError::Expired) => return Err(LoginError::CodeExpired.into()),
            Err(DeviceError::Denied(refusal)) if !refusal.forbids_the_flow() => {
                return Err(LoginError::Refused(refusal).into());
            }
            Err(
                DeviceError::Endpoint(TokenEndpointError::Refused(refusal)) | DeviceError::Denied(refusal),
            ) if refusal.forbids_the_flow() => {
                return Err(FlowError::Unsuitable(refusal.to_string()));
            }
            Err(DeviceError::Denied(refusal)) => return Err(LoginError::Refused(refusal).into()),
            Err(DeviceError::Endpoint(error)) => return Err(error.into()),
        };
        let verified = self
            .verify(tokens, Some(FirstToken { nonce: None }), None)
            .await?;
        Ok(LoggedIn {
            verified,
            flow: Flow::Device,
        })
    }
}
