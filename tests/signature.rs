//! The signature check against vectors made by another implementation, and against properties.

use proptest::prelude::*;
use serde::Deserialize;
use tollgate::stripe::signature::{SignatureError, SignatureHeader, SigningSecret, Tolerance};

#[derive(Deserialize)]
struct Vector {
    name: String,
    secrets: Vec<String>,
    header: String,
    body_hex: String,
    now: i64,
    tolerance: u32,
    expect: String,
}

#[test]
fn every_vector_gives_what_it_says() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../fixtures/signatures.json")).unwrap();
    assert!(vectors.len() > 40);
    for vector in vectors {
        let secrets: Vec<_> = vector.secrets.iter().map(|secret| secret.parse().unwrap()).collect();
        let body = hex::decode(&vector.body_hex).unwrap();
        let result = vector.header.parse::<SignatureHeader>().and_then(|header| {
            header.verify(&body, &secrets, vector.now, Tolerance(vector.tolerance))
        });
        let outcome = result.as_ref().map_or_else(SignatureError::code, |()| "ok");
        assert_eq!(outcome, vector.expect, "{}", vector.name);
    }
}

const NOW: i64 = 1_700_000_000;

fn check(header: &str, body: &[u8], secret: &SigningSecret) -> Result<(), SignatureError> {
    header.parse::<SignatureHeader>()?.verify(
        body,
        std::slice::from_ref(secret),
        NOW,
        Tolerance::default(),
    )
}

proptest! {
    #[test]
    fn what_we_sign_we_accept(secret in "[!-~]{1,80}", body: Vec<u8>, skew in -300_i64..=300) {
        let secret: SigningSecret = secret.parse().unwrap();
        prop_assert_eq!(check(&secret.sign(NOW + skew, &body), &body, &secret), Ok(()));
    }

    #[test]
    fn one_bit_of_the_body_is_enough_to_refuse(
        body in prop::collection::vec(any::<u8>(), 1..500), at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let secret: SigningSecret = "whsec_x".parse().unwrap();
        let header = secret.sign(NOW, &body);
        let mut changed = body;
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(check(&header, &changed, &secret).is_err());
    }

    #[test]
    fn another_secret_is_refused(mine in "[a-z]{1,40}", theirs in "[a-z]{1,40}", body: Vec<u8>) {
        prop_assume!(mine != theirs);
        let (mine, theirs): (SigningSecret, SigningSecret) = (mine.parse().unwrap(), theirs.parse().unwrap());
        prop_assert!(check(&mine.sign(NOW, &body), &body, &theirs).is_err());
    }

    #[test]
    fn items_that_mean_nothing_change_nothing(noise in prop::collection::vec("[ -~&&[^,]]{0,20}", 0..8), at: prop::sample::Index) {
        let secret: SigningSecret = "whsec_x".parse().unwrap();
        let header = secret.sign(NOW, b"body");
        // Noise that is a timestamp of its own may only come after the true one.
        let (stamp, signature) = header.split_once(',').unwrap();
        let mut items = noise;
        items.insert(at.index(items.len() + 1), signature.to_owned());
        items.insert(0, stamp.to_owned());
        prop_assert_eq!(check(&items.join(","), b"body", &secret), Ok(()));
    }

    #[test]
    fn no_header_panics(header in ".{0,300}") {
        let secret: SigningSecret = "whsec_x".parse().unwrap();
        prop_assert!(check(&header, b"body", &secret).is_err());
    }
}
