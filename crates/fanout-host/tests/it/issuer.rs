//! An issuer of tokens: it signs them, and publishes its keys on loopback.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

/// What tokens are signed with.
pub enum Signer {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    Secret(Vec<u8>),
}

impl Signer {
    pub fn ec() -> Self {
        let (random, way) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(way, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(way, document.as_ref(), &random).unwrap())
    }

    pub fn ed() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    /// Of 2048 bits, made by openssl: ring makes none.
    pub fn rsa() -> Self {
        let args = ["genpkey", "-algorithm", "RSA", "-outform", "DER"];
        let made = std::process::Command::new("openssl").args(args).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // What is around the key differs between its versions.
        let pair = RsaKeyPair::from_pkcs8(&made.stdout).or_else(|_| RsaKeyPair::from_der(&made.stdout));
        Self::Rsa(Box::new(pair.unwrap()))
    }

    pub fn secret(secret: &str) -> Self {
        Self::Secret(secret.as_bytes().to_vec())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
            Self::Secret(_) => "HS256",
        }
    }

    /// The public key; a secret's own bytes, which no issuer would publish.
    pub fn jwk(&self, name: &str) -> Value {
        let mut jwk = match self {
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
            Self::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) }),
            Self::Rsa(pair) => {
                let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e) })
            }
            Self::Secret(bytes) => json!({ "kty": "oct", "k": encode(bytes) }),
        };
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        jwk["kid"] = json!(name);
        jwk
    }

    /// A token with this header and these claims, whatever they say.
    pub fn sign_as(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.as_bytes()));
        let (random, bytes) = (SystemRandom::new(), signed.as_bytes());
        let signature = match self {
            Self::Ec(pair) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }

    /// A token as an issuer would make it.
    pub fn sign(&self, name: &str, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": self.algorithm(), "kid": name, "typ": "JWT" }), &claims.to_string())
    }
}

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where keys are published. It answers until the test ends.
pub struct Address {
    pub url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What is answered; `None`: the connection breaks.
    body: Option<String>,
    requests: usize,
}

impl Address {
    /// Publishes these keys.
    pub fn of(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { body: None, requests: 0 }));
        let address = Self { url, state: Arc::clone(&state) };
        address.publish(keys);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), Vec::new());
                let mut piece = [0; 1024];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(0) | Err(_) => break,
                        Ok(bytes) => head.extend_from_slice(&piece[..bytes]),
                    }
                }
                let mut state = state.lock().unwrap();
                state.requests += 1;
                if let Some(body) = &state.body {
                    let head =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                }
            }
        });
        address
    }

    pub fn publish(&self, keys: &[Value]) {
        self.answer(json!({ "keys": keys }).to_string());
    }

    pub fn answer(&self, body: String) {
        self.state.lock().unwrap().body = Some(body);
    }

    /// From now on connections break.
    pub fn fail(&self) {
        self.state.lock().unwrap().body = None;
    }

    /// How often it was asked.
    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }
}
