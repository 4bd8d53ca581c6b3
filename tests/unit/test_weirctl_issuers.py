"""Which parts get to know the user's proxy where issuers of tokens are configured."""

from pathlib import Path

import pytest

from meshkit.settings import HOME_VARIABLE
from weirctl import config
from weirctl.parts import build_parts
from weirctl.surroundings import Surroundings

_PROVIDER = "providers: {openai: {base_url: 'https://api.openai.com/v1', api_key_env: OPENAI_API_KEY}}"
_ISSUER = """
postgres_dsn: postgresql://u:p@h/d
auth:
  issuers:
    work: {{issuer: "https://x", audiences: [weir], {keys}, org: acme, team: all, scopes: [chat]}}
"""


@pytest.mark.parametrize(
    ("text", "knowing"),
    [
        (_ISSUER.format(keys='jwks_url: "https://x/keys"'), ["auth", "cloud_adapter"]),
        (_ISSUER.format(keys="jwks_file: keys.json"), ["cloud_adapter"]),
        ("postgres_dsn: postgresql://u:p@h/d\nauth: {}\n", ["cloud_adapter"]),
    ],
)
def test_auth_knows_the_proxy_where_it_fetches_keys(text: str, knowing: list[str], tmp_path: Path) -> None:
    """A proxy's URL may hold a password: only those get it that reach out; no provider's secret comes along."""
    path = tmp_path / "weir.yaml"
    path.write_text(f"{text}\n{_PROVIDER}")
    environment = {
        HOME_VARIABLE: str(tmp_path),
        "HTTPS_PROXY": "http://ada:pw@proxy",
        "OPENAI_API_KEY": "sk-x",
    }
    read = config.read(path, environment, sandbox=False)
    parts = build_parts(read, Surroundings(environment, tmp_path, None, False, print))  # noqa: FBT003 - no sandbox
    assert sorted(part.name for part in parts if "HTTPS_PROXY" in part.environment) == knowing
    assert [part.name for part in parts if "OPENAI_API_KEY" in part.environment] == ["cloud_adapter"]
