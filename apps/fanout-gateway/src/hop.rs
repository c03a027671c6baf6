//! Which gateways a request has passed: one that comes back to its own would go round for ever.
//!
//! From the header `fanout-hop` of a request. To the same header of the request that goes on to the upstream.
//!
//! The header holds a count and, behind it, the id of each gateway passed: `2, 9f86d081884c7d65, 60303ae22b998861`. The ids
//! tell a chain of gateways, which is fine, from a circle, which is not.

use fanout_host::keys::{KeysError, random_hex};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::error::ApiError;

/// The header's name.
pub(crate) static HOP: HeaderName = HeaderName::from_static("fanout-hop");

/// A chain longer than this is taken for a circle of gateways that hide their ids.
const HOPS_MAX: usize = 8;

/// How a gateway knows itself again: drawn when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayId {
    id: String,
    /// What nearly every request has passed: this one alone.
    alone: Hops,
}

/// The gateways that a request has passed, this one included: the header for the request that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hops(pub(crate) HeaderValue);

impl GatewayId {
    pub(crate) fn draw() -> Result<Self, KeysError> {
        random_hex::<8>().map(Self::of)
    }

    fn of(id: String) -> Self {
        let alone = HeaderValue::try_from(format!("1, {id}")).map_or(Hops(HeaderValue::from_static("1")), Hops);
        Self { id, alone }
    }

    /// Reads the header of a request that arrives here; absent means that it has passed none.
    ///
    /// # Errors
    /// 508 for a request that was here before, 400 for a header that is none.
    pub(crate) fn arrive(&self, header: Option<&HeaderValue>) -> Result<Hops, ApiError> {
        let Some(header) = header else { return Ok(self.alone.clone()) };
        let text = header.to_str().map_err(|_| not_a_count())?;
        let mut parts = text.split(',').map(str::trim);
        let count: usize = parts.next().unwrap_or_default().parse().map_err(|_| not_a_count())?;
        let mut passed: Vec<&str> = parts.collect();
        if passed.contains(&self.id.as_str()) || count >= HOPS_MAX {
            return Err(ApiError::new(
                StatusCode::LOOP_DETECTED,
                "loop",
                "this request came back to the gateway that sent it: `base_url` of [model], or FANOUT_UPSTREAM_URL, \
                 points at this gateway; point it at the Messages API",
            ));
        }
        passed.push(&self.id);
        let hops = format!("{}, {}", count + 1, passed.join(", "));
        HeaderValue::try_from(hops).map(Hops).map_err(|_| not_a_count())
    }
}

fn not_a_count() -> ApiError {
    ApiError::invalid(format!("the header `{}` must be a count, such as `1`; only gateways send it", HOP.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, answer: Result<&str, &str>) {
        let value = HeaderValue::from_str(header).unwrap();
        let hops = GatewayId::of("me".to_owned()).arrive(Some(&value));
        match (hops, answer) {
            (Ok(hops), Ok(next)) => assert_eq!(hops.0, next),
            (Err(error), Err(kind)) => assert_eq!(error.kind(), kind, "{header}"),
            (hops, _) => panic!("{header}: {hops:?}"),
        }
    }

    #[test]
    fn a_chain_is_counted_and_a_circle_is_refused() {
        check("0", Ok("1, me"));
        check("1", Ok("2, me"));
        check("2, a,b", Ok("3, a, b, me"));
        check("1, me", Err("api_error"));
        check("8", Err("api_error"));
        check("many", Err("invalid_request_error"));
        check("", Err("invalid_request_error"));
        assert_eq!(GatewayId::of("me".to_owned()).arrive(None).unwrap().0, "1, me");
    }
}
