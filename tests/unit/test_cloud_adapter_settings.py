"""The cloud adapter's settings, secrets, redaction, waits and errors."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dialects.openai_fault import Fault
from meshkit.errors import (
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    RateLimited,
    UpstreamError,
    WeirError,
)
from meshkit.settings import SettingsError, build, parse
from services.cloud_adapter import failure
from services.cloud_adapter.adapters.secret import secret_from_environment, secret_from_file
from services.cloud_adapter.domain.redaction import HIDDEN, redacted
from services.cloud_adapter.domain.retry_after import retry_after
from services.cloud_adapter.settings import CloudAdapterSettings, ProviderSettings

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)


def provider(**changes: Any) -> ProviderSettings:
    settings = build(CloudAdapterSettings, {"providers": {"p": {"base_url": "https://p/v1", **changes}}}, {})
    return settings.providers["p"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"base_url": "ftp://p/v1"}, "http or https"),
        ({"base_url": "p/v1"}, "http or https"),
        ({"base_url": "https://user:secret@p/v1"}, "no credentials"),
        ({"base_url": "https://p/v1?key=1"}, "no query"),
        ({"api_key_file": "a", "api_key_env": "B"}, "not both"),
        ({"api_key_file": "a", "api_keys": [{"env": "B"}]}, "not both"),
        ({"api_keys": [{"env": "A", "file": "b"}]}, "exactly one of file and env"),
        ({"api_keys": [{"weight": 2}]}, "exactly one of file and env"),
        ({"api_keys": [{"env": "A", "weight": 0}]}, "weight"),
        ({"api_version": "2024-10-21"}, "not of family openai_compatible"),
        ({"deployments": {"m": "d"}}, "not of family openai_compatible"),
        ({"azure_ad_token_file": "t"}, "not of family openai_compatible"),
        ({"family": "azure_openai"}, "needs api_version"),
        ({"family": "azure_openai", "api_version": "a&b=c"}, "api_version"),
        (
            {
                "family": "azure_openai",
                "api_version": "1",
                "azure_ad_token_file": "t",
                "api_key_env": "K",
            },
            "not both",
        ),
        ({"family": "azure_openai", "api_version": "1", "project": "p"}, "not of family azure_openai"),
        ({"family": "azure_openai", "api_version": "1", "base_url": "https://p/openai/"}, "without /openai"),
        ({"family": "other"}, "family"),
        ({"api_key_env": "not a name"}, "api_key_env"),
        ({"sandbox": True}, "loopback"),
        ({"connect_timeout_s": 0}, "connect_timeout_s"),
        ({"max_answer_bytes": 1 << 30}, "max_answer_bytes"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_are_refused(changes: dict[str, Any], fault: str) -> None:
    """What cannot be used is refused by name, and no secret in a URL is repeated."""
    with pytest.raises(SettingsError, match=fault) as caught:
        provider(**changes)
    assert "user:secret" not in str(caught.value)


def test_settings_defaults() -> None:
    """An absent block is no provider; a trailing slash is no part of the URL."""
    assert build(CloudAdapterSettings, {}, {}).providers == {}
    assert provider(base_url="https://p/v1/").base_url == "https://p/v1"


def test_api_version_of_a_yaml_file() -> None:
    """A version that YAML takes for a date is the version as it was written."""
    text = "providers: {p: {family: azure_openai, base_url: https://p, api_version: 2024-10-21}}"
    settings = build(CloudAdapterSettings, parse(text, {}), {})
    assert settings.providers["p"].api_version == "2024-10-21"


def test_variables_with_secrets() -> None:
    """Every variable that holds a secret is named, so that the process can be given those and no others."""
    assert provider(api_key_env="A").secret_variables == {"A"}
    assert provider(api_keys=[{"env": "A"}, {"file": "f"}, {"env": "B"}]).secret_variables == {"A", "B"}
    assert provider().secret_variables == frozenset()


@pytest.mark.parametrize(
    ("url", "loopback", "in_clear"),
    [
        ("http://127.0.0.1:8090/v1", True, False),
        ("http://[::1]:8090/v1", True, False),
        ("http://localhost/v1", True, False),
        ("http://10.0.0.1/v1", False, True),
        ("https://api.example/v1", False, False),
    ],
)
def test_where_a_provider_is(url: str, loopback: bool, in_clear: bool) -> None:  # noqa: FBT001 - a table's columns
    """Loopback is known by address and name; plain http to anywhere else is in clear."""
    settings = provider(base_url=url)
    assert (settings.on_loopback, settings.in_clear) == (loopback, in_clear)


def test_secret_is_never_shown(tmp_path: Path) -> None:
    """A secret is stripped, and its holder shows nothing of it."""
    path = tmp_path / "key"
    path.write_text("  sk-abc\n")
    path.chmod(0o600)
    found = secret_from_file(path)
    assert found.secret.get_secret_value() == "sk-abc"
    assert (found.problem, found.warning) == ("", "")
    assert "sk-abc" not in f"{found!r} {found.secret} {found.secret!r}"


@pytest.mark.parametrize("value", ["", "  \n", "two words", "sk-\u00e9", "sk-\x00", "a\nb"])
def test_values_that_are_no_secret(tmp_path: Path, value: str) -> None:
    """What is empty or cannot be a header is no secret, from a file as from a variable, and is not repeated."""
    path = tmp_path / "key"
    path.write_text(value)
    for found in (secret_from_file(path), secret_from_environment("K", {"K": value})):
        assert found.problem
        assert found.secret.get_secret_value() == ""
        assert not value.strip() or value.strip() not in found.problem


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-ab***yz.",
        "you sent Bearer abcdefgh",
        "header authorization: bearer abc.def",
        "the value xyz-secret was wrong",
        "weir_id_secret",
        "token eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 has expired",
    ],
)
def test_redaction(text: str) -> None:
    """The secret itself, whatever looks like a key, and whole bearer headers are hidden."""
    shown = redacted(text, ["xyz-secret", ""])
    assert HIDDEN in shown
    for part in ("ab***yz", "abcdefgh", "abc.def", "xyz-secret", "id_secret", "eyJ", "c2lnbmF0"):
        assert part not in shown


def test_redaction_knows_every_secret() -> None:
    """Of several secrets each is hidden whole, even where one is the beginning of another."""
    shown = redacted("first: abc-1, second: abc-1-long", ["abc-1", "abc-1-long"])
    assert shown == f"first: {HIDDEN}, second: {HIDDEN}"


def test_redaction_leaves_words_alone() -> None:
    """Ordinary text stays; control characters do not."""
    text = "maximum context length is 8\r\ntokens, ask-me-later"
    assert redacted(text, [""]) == "maximum context length is 8 tokens, ask-me-later"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, timedelta(seconds=2)),
        ({"retry-after": "0"}, timedelta(0)),
        ({"retry-after": "1.5"}, timedelta(seconds=1.5)),
        ({"retry-after-ms": "250", "retry-after": "9"}, timedelta(milliseconds=250)),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, timedelta(seconds=30)),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, timedelta(0)),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "Wed, 21 Oct 2036 07:28:30 GMT"}, None),
    ],
    ids=str,
)
def test_retry_after(headers: dict[str, str], wait: timedelta | None) -> None:
    """Seconds, milliseconds and dates are read; what is absurd or over a day is none."""
    assert retry_after(headers, NOW) == wait


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault("m", code="context_length_exceeded"), 400, ContextTooLong),
        (Fault("m", kind="exceed_context_size_error", status=400), 400, ContextTooLong),
        (Fault("m", code="content_filter"), 400, ContentFiltered),
        (Fault("m", code="content_policy_violation"), 403, ContentFiltered),
        (Fault("m", inner_code="ResponsibleAIPolicyViolation"), 400, ContentFiltered),
        (Fault("m", param="n"), 400, InvalidRequest),
        (Fault("m", code="insufficient_quota"), 429, UpstreamError),
        (Fault("m"), 429, RateLimited),
        (Fault("m", status=429), 503, UpstreamError),
        (Fault(""), 418, UpstreamError),
        (Fault("m"), 529, UpstreamError),
    ],
)
def test_refusals(fault: Fault, status: int, kind: type[WeirError]) -> None:
    """Codes say more than statuses, and the status of HTTP more than one that the error names."""
    error = failure.refused("p", "model-x", fault, status)
    assert type(error) is kind
    assert (error.details["delivered"], error.details["status"]) == ("false", str(status))


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault("m", code="rate_limit_exceeded"), "200", RateLimited),
        (Fault("m", code="content_filter"), "200", ContentFiltered),
        (Fault("m", code="invalid_prompt", param="input"), "200", InvalidRequest),
        (Fault("m", status=429), "429", RateLimited),
        (Fault("m", status=400), "400", InvalidRequest),
        (Fault("m"), "200", UpstreamError),
    ],
)
def test_errors_under_a_success(fault: Fault, status: str, kind: type[WeirError]) -> None:
    """A number in the error itself stands in for the status; without one the details say 200."""
    error = failure.error_for_an_answer("p", "model-x", fault, 200)
    assert type(error) is kind
    assert (error.details["delivered"], error.details["status"]) == ("false", status)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_account_errors_say_nothing_of_the_account(status: int) -> None:
    """A provider that refuses Weir's key is not the client's key error, and its text is dropped."""
    error = failure.refused(
        "p", "m", Fault("Incorrect API key provided: abc", code="invalid_api_key"), status
    )
    assert type(error) is UpstreamError
    assert "Incorrect" not in error.message
