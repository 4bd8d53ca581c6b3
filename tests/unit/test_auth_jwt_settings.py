"""`auth.issuers` and `auth.jwt` of weir.yaml: what is taken, and how each fault is told."""

from typing import Any

import pytest
import yaml

from meshkit.settings import SettingsError, build
from services.auth.settings import AuthSettings

_GOOD = """
auth:
  issuers:
    work:
      issuer: https://login.example/realms/weir
      audiences: [weir-gateway]
      jwks_url: https://login.example/realms/weir/protocol/openid-connect/certs
      org: acme
      team: { claim: department }
      owner: { claim: email }
      scopes:
        claim: realm_access.roles
        map: { weir-users: [chat, embed], weir-admins: [admin] }
      models: [gpt-*]
    ci:
      issuer: https://token.ci.example
      audiences: [https://weir.example]
      jwks_file: ci-keys.json
      org: acme
      team: ci
      scopes: [chat]
  jwt: { clock_skew_s: 10, keys_fresh_s: 300 }
"""


def _settings(**changes: Any) -> AuthSettings:
    """The good file, with its issuer `work` changed; None takes a key out."""
    document = yaml.safe_load(_GOOD)
    work = document["auth"]["issuers"]["work"] | changes
    document["auth"]["issuers"]["work"] = {name: value for name, value in work.items() if value is not None}
    return build(AuthSettings, document, {})


def test_the_example_is_taken() -> None:
    """Both ways to publish keys, fixed values and claims."""
    auth = _settings().auth
    assert set(auth.issuers) == {"work", "ci"}
    assert auth.jwt.clock_skew.total_seconds() == 10
    assert auth.jwt.max_lifetime.total_seconds() == 86_400


def test_nothing_is_trusted_by_default() -> None:
    """No issuer, 30 seconds of skew, 8 KiB."""
    auth = build(AuthSettings, {}, {}).auth
    assert auth.issuers == {}
    assert (auth.jwt.clock_skew_s, auth.jwt.max_token_bytes) == (30, 8_192)


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example",
        "https://login.example:8443/keys?v=2",
        "https://[2001:db8::1]/keys",
        "http://127.0.0.1:8080/keys",
        "http://[::1]/keys",
        "http://localhost/keys",
    ],
)
def test_good_urls(url: str) -> None:
    """Anywhere by https; on this machine by http as well."""
    assert _settings(jwks_url=url).auth.issuers["work"].jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "login.example/keys",
        "ftp://login.example/keys",
        "file:///etc/passwd",
        "https://",
        "https:///keys",
        "https://login.example:99999/keys",
        "https://login.example:x/keys",
        "https://ada@login.example/keys",
        "https://ada:secret@login.example/keys",
        "https://:secret@login.example/keys",
        "https://login.example/keys#x",
        "https://login.example/a b",
        "https://login.example/a\nb",
        "http://login.example/keys",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "http://[::ffff:10.0.0.1]/keys",
        "https://[::1/keys",
    ],
)
def test_bad_urls(url: str) -> None:
    """Named by their place; a password in one is not repeated."""
    with pytest.raises(SettingsError, match=r"auth\.issuers\.work\.jwks_url: ") as told:
        _settings(jwks_url=url)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"jwks_url": None}, "exactly one of jwks_url and jwks_file"),
        ({"jwks_file": "x.json"}, "exactly one of jwks_url and jwks_file"),
        ({"jwks_url": None, "jwks_file": "x.json", "ca_file": "ca.pem"}, "go with jwks_url"),
        ({"issuer": None}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"issuer": " https://x"}, "spaces at an end"),
        ({"issuer": "https://token.ci.example"}, "the same issuer as work"),
        ({"audiences": []}, "audiences"),
        ({"audiences": None}, "audiences"),
        ({"audiences": "weir"}, "audiences"),
        ({"audiences": [""]}, "audiences"),
        ({"org": None}, "org"),
        ({"org": ""}, "org"),
        ({"org": {"clam": "org"}}, "clam"),
        ({"org": {"claim": ""}}, "claim"),
        ({"team": {"claim": "a b"}}, "claim"),
        ({"scopes": None}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["chatt"]}, "no scope 'chatt'"),
        ({"scopes": ["chatt"]}, "usage:read"),
        ({"scopes": {"claim": "groups", "map": {}}}, "map"),
        ({"scopes": {"claim": "groups"}}, "map"),
        ({"scopes": {"claim": "groups", "map": {"x": []}}}, "map"),
        ({"scopes": {"claim": "groups", "map": {"x": ["root"]}}}, "no scope 'root'"),
        ({"models": ["a b"]}, "models"),
        ({"algorithms": ["HS256"]}, "algorithms"),
    ],
)
def test_every_fault_is_told(changes: dict[str, Any], told: str) -> None:
    """With the place in the file."""
    with pytest.raises(SettingsError, match="auth") as fault:
        _settings(**changes)
    assert told in str(fault.value)


@pytest.mark.parametrize(
    "block",
    [
        {"clock_skew_s": -1},
        {"clock_skew_s": 301},
        {"max_token_bytes": 8_193},
        {"keys_fresh_s": 600, "keys_stale_s": 599},
        {"keys_refetch_s": 0},
        {"skew": 1},
    ],
)
def test_faults_of_the_common_block(block: dict[str, float]) -> None:
    """Limits have limits."""
    with pytest.raises(SettingsError, match=r"auth\.jwt"):
        build(AuthSettings, {"auth": {"jwt": block}}, {})


def test_an_issuers_name_is_a_plain_word() -> None:
    """It becomes a label of metrics and of keys."""
    document = yaml.safe_load(_GOOD)
    document["auth"]["issuers"]["No Such"] = document["auth"]["issuers"].pop("work")
    with pytest.raises(SettingsError, match="issuers"):
        build(AuthSettings, document, {})
