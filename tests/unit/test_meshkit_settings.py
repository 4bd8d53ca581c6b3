"""weir.yaml as a process reads it: variables, unknown keys, every fault at once."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.settings import MeshSettings, SettingsError, Strict, build, load, parse
from meshkit.variables import VariableError, expand


class Block(Strict):
    """A nested block."""

    name: str = "n"
    limit: int = 1


class Own(MeshSettings):
    """A service's settings."""

    default_model: str | None = None
    router: Block = Block()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${SET}", "value"),
        ("a-${SET}-${SET}", "a-value-value"),
        ("${SET:-other}", "value"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${UNSET:-}", ""),
        ("${UNSET:-http://host:80/?a=b c}", "http://host:80/?a=b c"),
        ("${UNSET:-a:-b}", "a:-b"),
        ("$${SET}", "${SET}"),
        ("$SET $$ 5$", "$SET $$ 5$"),
        ("${NESTED}", "${SET}"),
        ("${UNSET:-$5}", "$5"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    """Variables are replaced as a shell does, once."""
    assert expand(text, {"SET": "value", "EMPTY": "", "NESTED": "${SET}"}) == expected


@pytest.mark.parametrize(
    "text", ["${UNSET}", "${}", "${1A}", "${A-b}", "${A:?b}", "${A", "${A:-${B}}", "${A B}"]
)
def test_expand_refuses(text: str) -> None:
    """A variable without a value, and every other form, is refused by name."""
    with pytest.raises(VariableError, match=r"\$\{"):
        expand(text, {"A": "1"} if text != "${A:-${B}}" else {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("8", 8), ("1.5", 1.5), ("true", True), ("null", None), ("", None), ("text", "text"), ("0123a", "0123a"),
        ("2026-01-01", "2026-01-01"), ("a: b", "a: b"), ("x\nmodels: {}", "x\nmodels: {}"), ("[1]", "[1]"),
        ("{a: 1}", "{a: 1}"), ("'", "'"), ('"', '"'), ("}", "}"), ("# no comment", "# no comment"),
        ("!!python/object:os.system", "!!python/object:os.system"), ("&a", "&a"), ("- 1", "- 1"), ("<<", "<<"),
    ],
)  # fmt: skip
def test_a_plain_variable_is_one_value(value: str, expected: object) -> None:
    """A plain value that is one variable is a number, a boolean, null or text; nothing adds structure."""
    assert parse("default_model: ${V}", {"V": value}) == {"default_model": expected}


@given(value=st.text())
def test_no_value_adds_keys(value: str) -> None:
    """Whatever a variable holds, the keys of the file stay what they are."""
    document = parse("default_model: ${V}\nrouter:\n  name: 'x ${V}'\nworkers: 2\n", {"V": value})
    assert set(document) == {"default_model", "router", "workers"}
    assert document["router"] == {"name": f"x {value}"}
    assert not isinstance(document["default_model"], dict | list)


@pytest.mark.parametrize(
    "text", ['default_model: "${V}"', "default_model: '${V}'", "default_model: ${V}${E}"]
)
def test_quoted_and_mixed_values_stay_text(text: str) -> None:
    """Quotes keep a number text, as they do in YAML."""
    assert parse(text, {"V": "12", "E": ""}) == {"default_model": "12"}


def test_keys_and_comments_are_left_alone() -> None:
    """A variable in a key is no variable; one in a comment need not be set."""
    assert parse("# ${UNSET}\nrouter:\n  ${A}: 1 # ${UNSET}\n", {"A": "b"}) == {"router": {"${A}": 1}}


def test_an_alias_is_expanded_once() -> None:
    """A value that two places share is the same in both."""
    document = parse("router: &r\n  name: ${V}\nauth: *r\n", {"V": "${V}"})
    assert document == {"router": {"name": "${V}"}, "auth": {"name": "${V}"}}


def _faults(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, environment or {})
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "mapping"), ("just text", "mapping"), ("a: b: c", "line 1: not YAML"), ("a:\n\t- b", "line 2"),
        ("router: {", "not YAML"), ("\x00", "not YAML"), ("router: !!python/none x", "not YAML"),
        ("[" * 5_000, "not YAML"), ("workers: 1\nworkers: 2", "workers: named twice"), ("{[1]: 2}", "not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_settings_file(text: str, said: str) -> None:
    """Each is one line that says what is wrong."""
    (fault,) = _faults(text)
    assert said in fault


def test_unknown_keys_and_variables_are_all_named() -> None:
    """Every fault of the file is told at once, with the line of each variable."""
    faults = _faults("wrokers: 2\nworkers: ${N}\nmodles: {}\nrouter:\n  name: ${M}\n")
    assert [fault.split(" ")[0] for fault in faults] == ["line", "line", "modles:", "wrokers:"]
    assert faults[0].startswith("line 2: ${N}")
    assert faults[1].startswith("line 5: ${M}")


def test_load_tells_every_fault_with_the_file(tmp_path: Path) -> None:
    """Unknown keys and values that do not fit, in blocks too, come in one error, each line with the file's name."""
    path = tmp_path / "weir.yaml"
    path.write_text("wrokers: 2\nworkers: 0\nrouter: {limit: many, colour: red}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(Own, {"WEIR_CONFIG": str(path)})
    faults = str(caught.value).splitlines()
    assert all(fault.startswith(f"{path}: ") for fault in faults)
    for name in ("wrokers", "workers", "router.limit", "router.colour"):
        assert any(name in fault for fault in faults)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_load_names_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A missing file, and one that is not UTF-8."""
    path = tmp_path / "weir.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(path)):
        load(Own, {"WEIR_CONFIG": str(path)})


def test_load_reads_own_keys_only(tmp_path: Path) -> None:
    """Keys of other services are theirs to check; the environment says where state lies."""
    path = tmp_path / "weir.yaml"
    path.write_text("workers: ${N:-3}\ndrain_s: 2.5\nledger: {anything: 1}\n", encoding="utf-8")
    settings = load(Own, {"WEIR_CONFIG": str(path), "WEIR_HOME": "/state", "WEIR_POSTGRES_DSN": "host=/run"})
    assert (settings.workers, settings.drain_s, settings.home) == (3, 2.5, Path("/state"))
    assert settings.postgres_dsn == "host=/run"
    assert load(Own, {}).workers == 1


@pytest.mark.parametrize(
    ("extra", "service", "worker", "address", "metrics_port"),
    [
        ({}, "auth", 0, "127.0.0.1:50071", 9464),
        ({}, "router", 2, "127.0.0.1:50053", 9476),
        ({"topology": "compact"}, "ledger", 0, "127.0.0.1:50051", 9466),
        ({"transport": "uds"}, "cloud_adapter", 0, "unix:/state/run/cloud_adapter-0.sock", 9465),
        ({"transport": "uds", "topology": "compact"}, "auth", 0, "unix:/state/run/router-0.sock", 9464),
    ],
)
def test_where_services_listen(
    extra: dict[str, Any], service: Any, worker: int, address: str, metrics_port: int
) -> None:
    """Every process has an address and a metrics port of its own, by transport and topology."""
    settings = build(Own, extra, {"WEIR_HOME": "/state"})
    listen = settings.listen(service, worker)
    assert (listen.address, listen.metrics_port) == (address, metrics_port)
