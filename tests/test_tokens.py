"""Signed tokens of an issuer: what is taken, and that everything else is refused alike."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from jwt.algorithms import get_default_algorithms

from app.access import issuer_keys
from tests.access import make_key
from tests.books import new_key, open_account, post, transaction
from tests.conftest import Service, serve, settings_for

ISSUER, AUDIENCE = "https://issuer.test/", "tallystick"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(name: str | None, algorithm: str, private: Any, **changes: Any) -> dict[str, Any]:
    said = json.loads(get_default_algorithms()[algorithm].to_jwk(private.public_key()))
    return said | ({"kid": name} if name else {}) | {"alg": algorithm} | changes


KEYS = [
    jwk("rsa", "RS256", RSA),
    jwk("ec", "ES256", EC),
    jwk("ed", "EdDSA", ED),
    jwk("short", "RS256", SHORT),
    jwk("encrypts", "RS256", OTHER, use="enc"),
    jwk(None, "RS256", OTHER),
    {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "alg": "HS256"},
    {"kty": "nonsense", "kid": "nonsense"},
    jwk("as-hs", "RS256", RSA) | {"alg": "HS256"},
]


@dataclass
class Issuer:
    """Gives out its keys at an address of this machine, as often as it is asked."""

    keys: list[dict[str, Any]]
    asked: int = 0
    status: int = 200
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer(list(KEYS))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            body = json.dumps({"keys": issuer.keys}).encode()
            self.send_response(issuer.status)
            for header in ({"Content-Length": str(len(body))} | issuer.headers).items():
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    issuer.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
    yield issuer
    server.shutdown()
    server.server_close()


def settings(jwks: str) -> dict[str, Any]:
    return {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": jwks}


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str], issuer: Issuer) -> Iterator[Service]:
    with serve(new_database(), **settings(issuer.url)) as service, service.client() as operator:
        assert operator.post("/v1/ledgers", json={"name": "main"}).status_code == 201
        for path in ("shop:cash", "shop:sales", "bank"):
            open_account(operator, "main", path)
        yield service


def claims(service: Service, **changes: Any) -> dict[str, Any]:
    now = service.clock.now.timestamp()
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "till-7",
        "iat": int(now),
        "exp": now + 60,
        "tallystick": {"operations": ["read", "post"]},
    } | changes
    return {name: value for name, value in said.items() if value is not None}


def sign(
    said: dict[str, Any], private: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **header: Any
) -> str:
    return jwt.encode(said, private, algorithm, headers=({"kid": kid} if kid else {}) | header)


def raw(header: dict[str, Any], said: dict[str, Any], signature: Callable[[bytes], bytes] = lambda _: b"") -> str:
    """A token byte for byte, which no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, said)]
    signed = b".".join(parts)
    return b".".join([signed, base64.urlsafe_b64encode(signature(signed)).rstrip(b"=")]).decode()


def get(service: Service, token: str, path: str = "/v1/ledgers/main") -> httpx.Response:
    with service.client(token) as client:
        return client.get(path)


# What is taken


@pytest.mark.parametrize(
    ("private", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")]
)
def test_takes_a_token_signed_with_a_key_of_the_issuer(
    service: Service, private: Any, algorithm: str, kid: str
) -> None:
    token = sign(claims(service), private, algorithm, kid)
    assert get(service, raw({"alg": "RS256", "kid": "rsa"}, claims(service), rs256)).status_code == 200
    for _ in range(2):  # verified, and known
        assert get(service, token).status_code == 200
    assert get(service, sign(claims(service, aud=["other", AUDIENCE]), private, algorithm, kid)).status_code == 200


def test_a_token_may_do_what_its_claim_says_and_acts_as_its_subject(service: Service) -> None:
    scope = {"operations": ["post", "read"], "ledgers": ["main"], "account_prefix": "shop", "amount_max": "10"}
    with service.client(sign(claims(service, tallystick=scope))) as client, service.client() as operator:
        posted = post(client, "main", transaction("shop:cash", "shop:sales", 10))
        assert (posted.status_code, posted.json()["actor"]) == (201, "till-7")
        for body in (
            transaction("shop:cash", "shop:sales", 11),
            transaction("shop:cash", "bank"),
            transaction("shop:cash", "shop:sales", pending=True),
        ):
            assert post(client, "main", body).json()["code"] == "forbidden"
        for path in ("/v1/ledgers/other", "/v1/ledgers/main/events", "/v1/api-keys"):
            assert client.get(path).json()["code"] == "forbidden"
        # A key of the same prefix goes on where the token stopped.
        body, key = transaction("shop:cash", "shop:sales", 3), new_key()
        first = post(client, "main", body, key)
        with service.client(make_key(operator, account_prefix="shop")) as other:
            assert post(other, "main", body, key).json() == first.json()


def test_a_label_stands_before_the_subject(service: Service) -> None:
    scope = {"operations": ["post"], "label": "shop"}
    with service.client(sign(claims(service, sub="auth0|7", tallystick=scope))) as client:
        assert post(client, "main", transaction("shop:cash", "shop:sales")).json()["actor"] == "shop"


def test_metrics_call_a_bearer_by_the_label_and_never_by_the_subject(service: Service) -> None:
    for sub, scope in (("jane.doe", {"operations": ["read"]}), ("joe", {"operations": ["read"], "label": "exporter"})):
        with service.client(sign(claims(service, sub=sub, tallystick=scope))) as client:
            assert client.get("/v1/ledgers/main/events").status_code == 200
    with service.client() as operator:
        told = operator.get("/metrics").text
    assert 'consumer="token"' in told
    assert 'consumer="exporter"' in told
    assert "jane" not in told
    assert "joe" not in told


def test_a_token_ends_when_it_expires_also_if_it_is_known(service: Service) -> None:
    token = sign(claims(service, exp=service.clock.now.timestamp() + 5))
    assert get(service, token).status_code == 200
    service.clock.advance(14)  # clocks may be ten seconds apart
    assert get(service, token).status_code == 200
    service.clock.advance(1.1)
    assert get(service, token).status_code == 401


# What is not

LATER, EARLIER = timedelta(seconds=11), timedelta(seconds=-11)
PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
DER = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def hs256(key: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(key, signed, hashlib.sha256)


def rs256(signed: bytes) -> bytes:
    return RSA.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def at(service: Service, distance: timedelta) -> float:
    return (service.clock.now + distance).timestamp()


def tampered(service: Service) -> str:
    header, _, signature = sign(claims(service)).split(".")
    said = json.dumps(claims(service, sub="somebody-else")).encode()
    return ".".join((header, base64.urlsafe_b64encode(said).decode().rstrip("="), signature))


type Forge = Callable[[Service], str]
FORGED: dict[str, Forge] = {
    "alg none": lambda s: raw({"alg": "none", "kid": "rsa"}, claims(s)),
    "alg None": lambda s: raw({"alg": "None", "kid": "rsa"}, claims(s)),
    "no alg": lambda s: raw({"kid": "rsa"}, claims(s)),
    "alg of a list": lambda s: raw({"alg": ["RS256"], "kid": "rsa"}, claims(s)),
    "HS256 with the public key": lambda s: raw({"alg": "HS256", "kid": "rsa"}, claims(s), hs256(PEM)),
    "HS256 with the public key in binary": lambda s: raw({"alg": "HS256", "kid": "rsa"}, claims(s), hs256(DER)),
    "HS256 with a key that says so": lambda s: raw({"alg": "HS256", "kid": "as-hs"}, claims(s), hs256(PEM)),
    "HS256 with a secret of the issuer": lambda s: sign(claims(s), b"s" * 32, "HS256", "secret"),
    "RS256 with the public key as a secret": lambda s: raw({"alg": "RS256", "kid": "rsa"}, claims(s), hs256(PEM)),
    "another algorithm of the same key": lambda s: sign(claims(s), RSA, "PS256"),
    "another kind of key": lambda s: raw({"alg": "ES256", "kid": "rsa"}, claims(s), lambda _: b"x" * 64),
    "an empty ECDSA signature": lambda s: raw({"alg": "ES256", "kid": "ec"}, claims(s), lambda _: b"\0" * 64),
    "no signature": lambda s: raw({"alg": "RS256", "kid": "rsa"}, claims(s)),
    "other claims": tampered,
    "another key": lambda s: sign(claims(s), OTHER),
    "an unknown kid": lambda s: sign(claims(s), kid="unknown"),
    "no kid": lambda s: sign(claims(s), kid=None),
    "a kid that is a path": lambda s: sign(claims(s), kid="../../../../dev/null"),
    "a key with another use": lambda s: sign(claims(s), OTHER, kid="encrypts"),
    "a key of 1024 bits": lambda s: raw({"alg": "RS256", "kid": "short"}, claims(s), lambda _: b"x" * 128),
    "a key that the token brings": lambda s: sign(claims(s), OTHER, kid="own", jwk=jwk("own", "RS256", OTHER)),
    "an address that the token brings": lambda s: sign(claims(s), OTHER, kid="own", jku="http://127.0.0.1/"),
    "crit": lambda s: raw({"alg": "RS256", "kid": "rsa", "crit": ["exp"], "exp": 1}, claims(s), rs256),
    "crit that is known": lambda s: raw({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": True}, claims(s), rs256),
    "an empty crit": lambda s: raw({"alg": "RS256", "kid": "rsa", "crit": []}, claims(s), rs256),
    "b64 false": lambda s: raw({"alg": "RS256", "kid": "rsa", "b64": False}, claims(s), rs256),
    "expired": lambda s: sign(claims(s, exp=at(s, EARLIER))),
    "no exp": lambda s: sign(claims(s, exp=None)),
    "exp of text": lambda s: sign(claims(s, exp="9999999999")),
    "exp of truth": lambda s: sign(claims(s, exp=True)),
    "exp beyond numbers": lambda s: sign(claims(s, exp=10**400)),
    "exp of no number": lambda s: sign(claims(s, exp=float("nan"))),
    "exp without end": lambda s: sign(claims(s, exp=float("inf"))),
    "not yet valid": lambda s: sign(claims(s, nbf=at(s, LATER))),
    "issued in the future": lambda s: sign(claims(s, iat=at(s, LATER))),
    "nbf of text": lambda s: sign(claims(s, nbf="0")),
    "another audience": lambda s: sign(claims(s, aud="other")),
    "no audience": lambda s: sign(claims(s, aud=None)),
    "another issuer": lambda s: sign(claims(s, iss="https://issuer.test")),
    "no issuer": lambda s: sign(claims(s, iss=None)),
    "no subject and no label": lambda s: sign(claims(s, sub=None)),
    "a subject that is no label": lambda s: sign(claims(s, sub="a b")),
    "a subject that is a number": lambda s: raw({"alg": "RS256", "kid": "rsa"}, claims(s, sub=7), rs256),
    "the operator": lambda s: sign(claims(s, sub="operator")),
    "the ledger itself": lambda s: sign(claims(s, tallystick={"operations": ["read"], "label": "system"})),
    "no claim": lambda s: sign(claims(s, tallystick=None)),
    "a claim of text": lambda s: sign(claims(s, tallystick="read")),
    "no operations": lambda s: sign(claims(s, tallystick={})),
    "none of the operations": lambda s: sign(claims(s, tallystick={"operations": []})),
    "the operator's operation": lambda s: sign(claims(s, tallystick={"operations": ["operator"]})),
    "a bound that is misspelt": lambda s: sign(claims(s, tallystick={"operations": ["read"], "ledger": ["main"]})),
    "no ledgers": lambda s: sign(claims(s, tallystick={"operations": ["read"], "ledgers": []})),
    "an amount that is a number": lambda s: sign(claims(s, tallystick={"operations": ["read"], "amount_max": 5})),
    "an empty prefix": lambda s: sign(claims(s, tallystick={"operations": ["read"], "account_prefix": ""})),
    "a huge token": lambda s: sign(claims(s, more="x" * 8_000)),
    "a huger token": lambda s: sign(claims(s, more="x" * 40_000)),
    "a header that is deep": lambda s: f"{base64.urlsafe_b64encode(b'[' * 5_000).decode()}.e30.e30",
    "two parts": lambda s: sign(claims(s)).rsplit(".", 1)[0],
    "four parts": lambda s: sign(claims(s)) + ".x",
    "five parts, as if it were encrypted": lambda s: sign(claims(s)) + ".x.x",
    "nothing between dots": lambda s: "..",
    "another alphabet": lambda s: sign(claims(s)).replace("-", "+").replace("_", "/") + "=",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_refuses_alike_whatever_is_wrong(service: Service, forge: Forge) -> None:
    answer = get(service, forge(service))
    no_token = get(service, "a-secret-of-nobody")
    assert answer.status_code == 401
    assert {**answer.json(), "request_id": ""} == {**no_token.json(), "request_id": ""}
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    # And what is right still is.
    assert get(service, sign(claims(service))).status_code == 200


# Where the keys come from


def test_keys_come_from_a_file_too(database: str, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": KEYS}))
    with serve(database, **settings(str(tmp_path / "jwks.json"))) as service:
        assert get(service, sign(claims(service)), "/v1/ledgers").status_code == 200
        assert get(service, sign(claims(service), OTHER), "/v1/ledgers").status_code == 401


def test_unknown_names_have_the_issuer_asked_seldom_and_known_ones_never(service: Service, issuer: Issuer) -> None:
    for number in range(50):
        assert get(service, sign(claims(service), kid=f"invented-{number}")).status_code == 401
        assert get(service, sign(claims(service, jti=str(number)))).status_code == 200
    assert issuer.asked <= 2


def test_a_new_key_is_taken_and_one_that_is_gone_is_not(
    database: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a token of it was known."""
    monkeypatch.setattr(issuer_keys, "UNKNOWN_SECONDS", 0.5)
    issuer.keys = [jwk("old", "RS256", RSA)]
    try:
        with serve(database, **settings(issuer.url)) as service:
            old, new = (sign(claims(service), key, kid=kid) for key, kid in ((RSA, "old"), (OTHER, "new")))
            assert [get(service, each, "/v1/ledgers").status_code for each in (old, new)] == [200, 401]
            issuer.keys = [jwk("new", "RS256", OTHER)]
            time.sleep(0.6)
            assert [get(service, each, "/v1/ledgers").status_code for each in (new, old)] == [200, 401]
            # What cannot be read leaves what there was.
            for issuer.status, issuer.headers in ((500, {}), (302, {"Location": "file:///etc/hostname"})):
                time.sleep(0.6)
                assert get(service, sign(claims(service), RSA, kid="old"), "/v1/ledgers").status_code == 401
                assert get(service, new, "/v1/ledgers").status_code == 200
    finally:
        issuer.keys, issuer.status, issuer.headers = list(KEYS), 200, {}


def test_an_issuer_that_cannot_be_reached_keeps_no_key_out(database: str) -> None:
    with serve(database, **settings("http://127.0.0.1:9/none")) as service, service.client() as operator:
        assert operator.get("/v1/ledgers").status_code == 200
        assert get(service, sign(claims(service)), "/v1/ledgers").status_code == 401


@pytest.mark.parametrize(
    "jwks",
    ["http://issuer.test/jwks", "http://127.0.0.1.issuer.test/", "ftp://issuer.test/", "file:///etc/x", "https://"],
)
def test_keys_are_asked_for_only_where_nobody_can_read_along(jwks: str) -> None:
    with pytest.raises(ValueError, match="JWT_JWKS must be"):
        settings_for("postgresql+asyncpg://nobody@localhost/none", **settings(jwks))


@pytest.mark.parametrize("missing", ["jwt_issuer", "jwt_audience", "jwt_jwks"])
def test_the_settings_of_tokens_belong_together(missing: str) -> None:
    with pytest.raises(ValueError, match="belong together"):
        settings_for("postgresql+asyncpg://nobody@localhost/none", **settings("keys.json") | {missing: ""})


def test_tokens_alone_are_enough_to_start_and_nobody_else_is_let_in(database: str, issuer: Issuer) -> None:
    with serve(database, api_key="", development=True, **settings(issuer.url)) as service:
        assert get(service, sign(claims(service)), "/v1/ledgers").status_code == 200
        assert get(service, "a-secret-of-nobody", "/v1/ledgers").status_code == 401
