//! Programs over http and https.

use super::{FetchError, Settings, source::shown};

/// The body behind the address; never more than the limit is read.
pub(super) fn get(url: &str, settings: &Settings) -> Result<Vec<u8>, FetchError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .max_redirects(settings.redirects_max)
        .http_status_as_error(false)
        // One request now and then: nothing stays open, and no memory is held.
        .max_idle_connections(0)
        .build();
    let failed = |error| {
        if matches!(error, ureq::Error::BodyExceedsLimit(_)) {
            return FetchError::TooLarge { from: shown(url), bytes_max: settings.bytes_max };
        }
        FetchError::Http { url: shown(url), source: Box::new(error) }
    };
    let response = config.new_agent().get(url).call().map_err(failed)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(FetchError::Status { url: shown(url), status });
    }
    // The limit is the first size refused, and ours the last allowed.
    let limit = settings.bytes_max.saturating_add(1);
    response.into_body().into_with_config().limit(limit).read_to_vec().map_err(failed)
}
