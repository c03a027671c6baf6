//! Which tokens of end users count, and what is said of those that do not.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanout_host::claims::{ClaimsError, Verifier, VerifierError, build_verifier};
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::secrets::secrets_of;
use serde_json::{Value, json};

use crate::issuer::{Address, Signer, encode};

const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters";

/// When all these tests take place, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn parse(jwt: &str) -> (Config, Environment) {
    let environment = Environment::from_iter([("JWT_SECRET", SECRET), ("SHORT", "changeme")]);
    let text = format!("[server]\njwt = {{ {jwt} }}\n");
    (Config::parse("fanout.toml", &text, Path::new(""), &environment).unwrap(), environment)
}

fn verifier(jwt: &str) -> Verifier {
    let (config, environment) = parse(jwt);
    Verifier::new(config.server.jwt.as_ref().unwrap(), &environment).unwrap()
}

fn by_secret(more: &str) -> Verifier {
    verifier(&format!("secret = \"${{JWT_SECRET}}\"{more}"))
}

fn by_address(address: &Address) -> Verifier {
    verifier(&format!("jwks_url = \"{}\"", address.url))
}

fn alice() -> Value {
    json!({ "sub": "alice", "role": "authenticated", "iss": "https://x.example/auth", "aud": "authenticated", "exp": NOW + 60 })
}

/// Alice's claims with others in their place; null takes one out.
fn alice_but(other: &Value) -> Value {
    let mut claims = alice();
    for (name, value) in other.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn verify(verifier: &Verifier, token: &str, seconds: u64) -> Result<Value, ClaimsError> {
    let token = verifier.verify(token, at(seconds)).await?;
    Ok(Value::Object(token.claims().unwrap().as_ref().clone()))
}

#[tokio::test]
async fn a_token_that_holds_has_its_claims_and_says_until_when() {
    let token = Signer::secret(SECRET).sign("any", &alice());
    let verified = by_secret("").verify(&token, at(NOW)).await.unwrap();
    assert_eq!(verified.expose(), token);
    assert_eq!(Value::Object(verified.claims().unwrap().as_ref().clone()), alice());
    // Clocks may differ by half a minute.
    assert!(!verified.is_expired(at(NOW + 89)) && verified.is_expired(at(NOW + 90)));
}

#[tokio::test]
async fn time_issuer_and_audience_are_checked() {
    let (secret, loose) = (Signer::secret(SECRET), by_secret(""));
    let strict = by_secret(", issuer = \"https://x.example/auth\", audience = \"authenticated\"");
    for (but, by_strict, by_loose) in [
        (json!({}), None, None),
        (json!({ "exp": NOW - 29 }), None, None),
        (json!({ "exp": NOW - 30 }), Some(ClaimsError::Expired), Some(ClaimsError::Expired)),
        (json!({ "exp": NOW as f64 + 0.5 }), None, None),
        (json!({ "exp": null }), Some(ClaimsError::NoExpiry), Some(ClaimsError::NoExpiry)),
        (json!({ "exp": "tomorrow" }), Some(ClaimsError::NoExpiry), Some(ClaimsError::NoExpiry)),
        (json!({ "exp": -1 }), Some(ClaimsError::NoExpiry), Some(ClaimsError::NoExpiry)),
        (json!({ "exp": 1e300 }), Some(ClaimsError::NoExpiry), Some(ClaimsError::NoExpiry)),
        (json!({ "nbf": NOW + 30 }), None, None),
        (json!({ "nbf": NOW + 31 }), Some(ClaimsError::NotYet), Some(ClaimsError::NotYet)),
        (json!({ "nbf": "now" }), Some(ClaimsError::NotYet), Some(ClaimsError::NotYet)),
        (json!({ "iss": "https://y.example/auth" }), Some(ClaimsError::Issuer), None),
        (json!({ "iss": "https://x.example/auth/" }), Some(ClaimsError::Issuer), None),
        (json!({ "iss": null }), Some(ClaimsError::Issuer), None),
        (json!({ "aud": "anon" }), Some(ClaimsError::Audience), None),
        (json!({ "aud": ["a", "authenticated"] }), None, None),
        (json!({ "aud": [] }), Some(ClaimsError::Audience), None),
        (json!({ "aud": null }), Some(ClaimsError::Audience), None),
    ] {
        let token = secret.sign("any", &alice_but(&but));
        assert_eq!(verify(&strict, &token, NOW).await.err(), by_strict, "strict: {but}");
        assert_eq!(verify(&loose, &token, NOW).await.err(), by_loose, "loose: {but}");
    }
}

#[tokio::test]
async fn what_is_no_token_or_was_changed_is_refused() {
    let (secret, verifier) = (Signer::secret(SECRET), by_secret(""));
    let claims = alice().to_string();
    let good = secret.sign("any", &alice());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let admin = encode(alice_but(&json!({ "role": "service_role" })).to_string().as_bytes());
    let none = encode(br#"{"alg":"none"}"#);
    for (token, why) in [
        (String::new(), ClaimsError::Malformed),
        ("opaque".to_owned(), ClaimsError::Malformed),
        ("a.b.c".to_owned(), ClaimsError::Malformed),
        (signed.to_owned(), ClaimsError::Malformed),
        (format!("{good}.more"), ClaimsError::Signature),
        (format!("{signed}."), ClaimsError::Signature),
        (format!("{signed}.{}", &signature[1..]), ClaimsError::Signature),
        (format!("{header}.{admin}.{signature}"), ClaimsError::Signature),
        (format!("{none}.{admin}."), ClaimsError::Malformed),
        (Signer::secret("another secret of more than 32 bytes").sign("any", &alice()), ClaimsError::Signature),
        (
            secret.sign_as(&json!({ "alg": "HS512" }), &claims),
            ClaimsError::Algorithm("a shared `secret` verifies HS256 alone"),
        ),
        (secret.sign_as(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims), ClaimsError::Malformed),
        (secret.sign_as(&json!({ "alg": "HS256" }), "[]"), ClaimsError::Malformed),
        (secret.sign_as(&json!({ "alg": "HS256" }), "no JSON"), ClaimsError::Malformed),
        (Signer::ec().sign("any", &alice()), ClaimsError::Algorithm("a shared `secret` verifies HS256 alone")),
    ] {
        assert_eq!(verify(&verifier, &token, NOW).await, Err(why), "{token}");
    }
}

/// The examples of RFC 7515, A.1 and A.2: made by nobody here.
#[tokio::test]
async fn the_standards_own_example_holds() {
    let key = json!({
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB"
    });
    let address = Address::of(&[key]);
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let verifier = by_address(&address);
    let claims = verify(&verifier, token, 1_300_819_379).await.unwrap();
    assert_eq!(claims, json!({ "iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true }));
    assert_eq!(verify(&verifier, token, NOW).await, Err(ClaimsError::Expired));
}

#[tokio::test]
async fn a_published_key_verifies_what_it_is_published_for_and_nothing_else() {
    let (ec, ed, rsa, secret) = (Signer::ec(), Signer::ed(), Signer::rsa(), Signer::secret(SECRET));
    let mut for_secrecy = ec.jwk("enc");
    for_secrecy["use"] = json!("enc");
    let unknown = json!({ "kty": "XYZ", "kid": "new", "alg": "XY256" });
    let keys = [unknown, ec.jwk("ec"), ed.jwk("ed"), rsa.jwk("rsa"), secret.jwk("secret"), for_secrecy];
    let address = Address::of(&keys);
    let verifier = by_address(&address);
    for (signer, name) in [(&ec, "ec"), (&ed, "ed"), (&rsa, "rsa")] {
        assert_eq!(verify(&verifier, &signer.sign(name, &alice()), NOW).await, Ok(alice()), "{name}");
    }
    let unnamed = ec.sign_as(&json!({ "alg": "ES256" }), &alice().to_string());
    assert_eq!(verify(&verifier, &unnamed, NOW).await, Ok(alice()));
    let public = ClaimsError::Algorithm("the keys at its `jwks_url` are public, and HS256 needs a secret one");
    let modulus = rsa.jwk("rsa")["n"].as_str().unwrap().to_owned();
    for (token, why) in [
        (ec.sign("ed", &alice()), ClaimsError::UnknownKey),
        (ec.sign("enc", &alice()), ClaimsError::UnknownKey),
        (ec.sign("gone", &alice()), ClaimsError::UnknownKey),
        (Signer::ec().sign("ec", &alice()), ClaimsError::Signature),
        // What a forger tries who has read the keys: to sign with one as if it were the secret.
        (secret.sign("secret", &alice()), public.clone()),
        (Signer::secret(&modulus).sign("rsa", &alice()), public),
        // The key is published for RS256.
        (rsa.sign_as(&json!({ "alg": "RS512", "kid": "rsa" }), &alice().to_string()), ClaimsError::UnknownKey),
    ] {
        assert_eq!(verify(&verifier, &token, NOW).await, Err(why), "{token}");
    }
    // Nobody makes the gateway ask more often than every few seconds.
    assert_eq!(address.requests(), 1);
}

#[tokio::test]
async fn keys_are_fetched_for_the_first_token_for_unknown_names_and_when_they_are_old() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let address = Address::of(&[old.jwk("old")]);
    let verifier = by_address(&address);
    assert_eq!(address.requests(), 0);
    let (by_old, by_new) = (old.sign("old", &alice()), new.sign("new", &alice_but(&json!({ "exp": NOW + 9_000 }))));
    for _ in 0..3 {
        assert!(verify(&verifier, &by_old, NOW).await.is_ok());
    }
    assert_eq!(address.requests(), 1);
    address.publish(&[old.jwk("old"), new.jwk("new")]);
    assert_eq!(verify(&verifier, &by_new, NOW + 4).await, Err(ClaimsError::UnknownKey));
    assert_eq!(address.requests(), 1);
    assert!(verify(&verifier, &by_new, NOW + 5).await.is_ok());
    assert_eq!(address.requests(), 2);
    // One that is taken back is known for ten minutes.
    address.publish(&[]);
    assert!(verify(&verifier, &by_new, NOW + 604).await.is_ok());
    assert_eq!(address.requests(), 2);
    assert_eq!(verify(&verifier, &by_new, NOW + 605).await, Err(ClaimsError::UnknownKey));
    assert_eq!(address.requests(), 3);
}

#[tokio::test]
async fn while_keys_cannot_be_had_those_that_are_known_hold() {
    let (known, other) = (Signer::ec(), Signer::ec());
    let address = Address::of(&[]);
    let verifier = by_address(&address);
    let unavailable = Err(ClaimsError::Unavailable { retry_after: Duration::from_secs(5) });
    let long = alice_but(&json!({ "exp": NOW + 9_000 }));
    let (by_known, by_other) = (known.sign("known", &long), other.sign("other", &long));
    address.fail();
    assert_eq!(verify(&verifier, &by_known, NOW).await, unavailable);
    // Not asked again at once: users would wait for what was just refused.
    assert_eq!(verify(&verifier, &by_known, NOW + 4).await, unavailable);
    let before = address.requests();
    for nonsense in ["no JSON", "{}", "[]"] {
        address.answer(nonsense.to_owned());
    }
    assert_eq!(verify(&verifier, &by_known, NOW + 5).await, unavailable);
    address.publish(&[known.jwk("known")]);
    assert_eq!(verify(&verifier, &by_known, NOW + 10).await, Ok(long.clone()));
    assert_eq!(address.requests(), before + 2);
    address.fail();
    for seconds in [700, 702, 4_000] {
        assert_eq!(verify(&verifier, &by_known, NOW + seconds).await, Ok(long.clone()), "{seconds}");
    }
    // Whether this one counts cannot be known, which is not the token's fault.
    assert_eq!(verify(&verifier, &by_other, NOW + 4_001).await, unavailable);
}

#[tokio::test]
async fn many_tokens_at_once_ask_for_the_keys_once() {
    let key = Signer::ec();
    let address = Address::of(&[key.jwk("k")]);
    let (verifier, token) = (by_address(&address), key.sign("k", &alice()));
    let one = || verify(&verifier, &token, NOW);
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    assert!([a, b, c, d].iter().all(Result::is_ok));
    assert_eq!(address.requests(), 1);
}

#[tokio::test]
async fn a_verifier_that_replaces_another_goes_on_with_its_keys() {
    let key = Signer::ec();
    let address = Address::of(&[key.jwk("k")]);
    let (before, token) = (by_address(&address), key.sign("k", &alice()));
    assert!(verify(&before, &token, NOW).await.is_ok());
    address.fail();
    let after = by_address(&address);
    after.learn_from(&before);
    assert_eq!(verify(&after, &token, NOW).await, Ok(alice()));
    let elsewhere = verifier("jwks_url = \"http://127.0.0.1:9/keys\"");
    elsewhere.learn_from(&before);
    assert!(matches!(verify(&elsewhere, &token, NOW).await, Err(ClaimsError::Unavailable { .. })));
}

#[test]
fn what_tokens_cannot_be_verified_by_is_said_at_the_start() {
    let refused = |jwt: &str| {
        let (config, environment) = parse(jwt);
        let error = build_verifier(config.server.jwt.as_ref(), &environment).unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        assert!(!error.to_string().contains("changeme"), "{error}");
        format!("{error}{cause}")
    };
    assert_eq!(
        refused("secret = \"${SHORT}\""),
        "fanout.toml:2:18: `secret` of `jwt` must have at least 32 bytes, as HS256 demands (RFC 7518), and has 8"
    );
    assert_eq!(
        refused("secret = \"${ABSENT}\""),
        "fanout.toml:2:18: `secret` needs the environment variable `ABSENT`, which is not set"
    );
    assert_eq!(
        refused("jwks_url = \"http://x.example/keys\""),
        "fanout.toml:2:20: `jwks_url` of `jwt` cannot be used: `http://x.example/keys` is not encrypted: whoever stands in \
         between could change what it says, so it must come by https (or from this machine)"
    );
    assert!(refused("jwks_url = \"x.example/keys\"").contains("is no address"));
    let short = parse("secret = \"${SHORT}\"");
    let error = Verifier::new(short.0.server.jwt.as_ref().unwrap(), &short.1).unwrap_err();
    assert!(matches!(error, VerifierError::Short { bytes: 8, .. }));
}

#[test]
fn the_secret_is_hidden_and_printed_nowhere() {
    let (config, environment) = parse("secret = \"${JWT_SECRET}\"");
    assert_eq!(secrets_of(&config, &environment).hide(&format!("it is {SECRET}")), "it is [redacted JWT_SECRET]");
    let verifier = Verifier::new(config.server.jwt.as_ref().unwrap(), &environment).unwrap();
    assert!(!format!("{config:?} {verifier:?}").contains("super-secret"));
}
