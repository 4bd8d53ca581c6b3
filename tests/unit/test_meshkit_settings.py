"""weir.yaml as a process reads it: variables, unknown keys, every fault at once."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from meshkit.settings import MeshSettings, SettingsError, Strict, build, load, parse
from meshkit.variables import VariableError, expand


class One(Strict):
    """One kind."""

    kind: Literal["one"]
    size: int = 1
    even: int = 0

    @model_validator(mode="after")
    def _is_even(self) -> Self:
        if self.even % 2:
            raise ValueError("even: is odd")
        return self


class Two(Strict):
    """Another kind."""

    kind: Literal["two"]
    sides: int


Name = Annotated[str, Field(pattern="^[a-z.]+$")]


class Block(Strict):
    """A nested block."""

    name: str = "n"
    limit: int = 1
    one_of: dict[Name, Annotated[One | Two, Field(discriminator="kind")]] = Field(default_factory=dict)


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
        ("[1]", "mapping"),
        ("just text", "mapping"),
        ("a: b: c", "weir.yaml:1:5: not YAML"),
        ("a:\n\t- b", ":2:1: not YAML"),
        ("router: {", ":1:10: not YAML"),
        ("a: 1\nb: \x00", ":2:4: not YAML"),
        ("router: !!python/none x", ":1:9: not YAML"),
        ("[" * 5_000, "not YAML"),
        ("workers: 1\nworkers: 2", ":2:1: workers: named twice in one mapping, first in line 1"),
        ("{[1]: 2}", ":1:2: not YAML"),
        ("router: *nowhere", ":1:9: not YAML"),
        ("<<: 3", ":1:5: not YAML"),
        ("drain_s: !!int sk-secret", ":1:10: not YAML: not a int"),
        ("drain_s: 2026-13-45", ":1:10: not YAML"),
    ],
)
def test_what_is_no_settings_file(text: str, said: str) -> None:
    """Each is one line that says what is wrong."""
    (fault,) = _faults(text)
    assert said in fault
    assert "sk-secret" not in fault


def test_unknown_keys_and_variables_are_all_named() -> None:
    """Every fault of the file is told at once, in the file's order, each with line and column."""
    faults = _faults("wrokers: 2\nworkers: ${N}\nzebra: {}\nrouter:\n  name: ${M}\n")
    assert [fault.split(": ")[:2] for fault in faults] == [
        ["weir.yaml:1:1", "wrokers"], ["weir.yaml:2:10", "workers"], ["weir.yaml:3:1", "zebra"],
        ["weir.yaml:5:9", "router.name"],
    ]  # fmt: skip
    assert faults[0].endswith("unknown key (did you mean 'workers'?)")
    assert "(known: auth, cloud_adapter," in faults[2]
    assert "${M} is not set" in faults[3]


def _loaded(tmp_path: Path, text: str) -> list[str]:
    """The faults of a file, without its name."""
    path = tmp_path / "weir.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(Own, {"WEIR_CONFIG": str(path)})
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_load_tells_every_fault_with_its_place(tmp_path: Path) -> None:
    """Unknown keys and values that do not fit, in blocks too, each with file, line, column and key."""
    faults = _loaded(
        tmp_path, "wrokers: 2\nworkers: 0\nrouter: {limit: many,\n         limt: 3, colour: red}\n"
    )
    assert [fault.split(": ")[:2] for fault in faults] == [
        ["1:1", "wrokers"], ["2:10", "workers"], ["3:17", "router.limit"], ["4:10", "router.limt"],
        ["4:19", "router.colour"],
    ]  # fmt: skip
    assert "did you mean 'limit'?" in faults[3]
    assert "known: limit, name, one_of" in faults[4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("router: {one_of: {a: {kind: one, size: x}}}", "1:40: router.one_of.a.size: Input should be"),
        (
            "router: {one_of: {a: {kind: two, sise: 1}}}",
            "1:34: router.one_of.a.sise: unknown key (did you mean",
        ),
        ("router:\n  one_of:\n    a:\n      kind: two", "4:7: router.one_of.a.sides: Field required"),
        ("router: {one_of: {'a b': {kind: one}}}", "1:19: router.one_of.a b: not a good name"),
        ("router: {one_of: {a.b: {kind: one, even: 3}}}", "1:42: router.one_of.a.b.even: is odd"),
        ("router:\n  one_of:\n    a: &x {kind: one}\n\n    b: {<<: *x, even: 5}", "5:23: router.one_of.b"),
        ("router: {one_of: {a: &x {kind: one}, b: {<<: *x, even: 5}}}", "1:56: router.one_of.b.even: is odd"),
        ("router: {one_of: {a: &x {kind: one, even: 3}, b: {<<: *x}}}", "1:43: router.one_of.a.even: is odd"),
        ("router: &r {limit: x}", "1:20: router.limit"),
        ("router: {limit: ${V}}", "1:18: not YAML"),
        ("router: {limit: '${V}'}", "1:17: router.limit: ${V} is not set"),
        ("router: 5", "1:9: router: Input should be"),
        ("router:\n  name: sk-secret\n  limit: sk-secret", "3:10: router.limit"),
        ("router: [sk-secret]", "1:9: router: Input should be"),
    ],
)
def test_where_faults_stand(tmp_path: Path, text: str, expected: str) -> None:
    """Tags of unions, missing keys, names, validators' own words, aliases, merge keys: each has its place."""
    faults = _loaded(tmp_path, text)
    assert any(fault.startswith(expected) for fault in faults), faults
    assert "sk-secret" not in "".join(faults)


def test_a_value_that_could_not_be_read_is_not_judged_again(tmp_path: Path) -> None:
    """A variable that is missing where a number belongs is one fault, not two."""
    (fault,) = _loaded(tmp_path, "workers: ${NOT_SET}\n")
    assert fault.startswith("1:10: workers: ${NOT_SET} is not set")


@given(text=st.text(alphabet="abwork: {}[]\n-&*!'\"#|>?%@,0${}<", max_size=40))
def test_no_text_is_too_odd(text: str) -> None:
    """Whatever a file holds, reading it ends in keys or in faults."""
    with suppress(SettingsError):
        parse(text, {})


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
        ({"transport": "uds"}, "cloud_adapter", 0, "unix:/state/run/mesh/cloud_adapter-0.sock", 9465),
        ({"transport": "uds", "topology": "compact"}, "auth", 0, "unix:/state/run/mesh/router-0.sock", 9464),
    ],
)
def test_where_services_listen(
    extra: dict[str, Any], service: Any, worker: int, address: str, metrics_port: int
) -> None:
    """Every process has an address and a metrics port of its own, by transport and topology."""
    settings = build(Own, extra, {"WEIR_HOME": "/state"})
    listen = settings.listen(service, worker)
    assert (listen.address, listen.metrics_port) == (address, metrics_port)


@pytest.mark.parametrize(
    ("extra", "service", "server"),
    [({}, "auth", "auth"), ({}, "router", "router"), ({"topology": "compact"}, "auth", "router")],
)
def test_over_mtls_both_sides_prove_themselves(extra: dict[str, Any], service: Any, server: Any) -> None:
    """It is the default; in the compact topology the router's process answers for all."""
    settings = build(Own, {"mtls": {"trust_domain": "acme.example"}, **extra}, {"WEIR_HOME": "/state"})
    security = settings.listen(server if server == "router" else service).security
    assert (security.transport, security.trust_domain) == ("mtls", "acme.example")
    assert security.own is not None
    assert security.own.spiffe_id == f"spiffe://acme.example/{server}"
    towards = settings.towards(service, "edge")
    assert towards is not None
    assert towards.server == server
    assert towards.own.directory == Path("/state/tls/edge")


def test_certificates_may_lie_elsewhere() -> None:
    """Where cert-manager puts them, for example."""
    settings = build(Own, {"mtls": {"certificates": "/etc/weir", "made_by": "others"}}, {})
    assert settings.certificate_files("router").key == Path("/etc/weir/router/tls.key")


def test_under_istio_sidecars_listen_in_between() -> None:
    """A service is reached by its name, listens for the pod's address, and has no certificate of its own."""
    document = {"transport": "mesh", "mesh": {"namespace": "ai", "hosts": {"auth": "auth.id.svc"}}}
    settings = build(Own, document, {})
    assert settings.address("cloud_adapter") == "cloud-adapter:50072"
    assert settings.address("auth") == "auth.id.svc:50071"
    listen = settings.listen("auth")
    assert listen.address == "0.0.0.0:50071"
    assert (listen.security.own, listen.security.namespace) == (None, "ai")
    assert settings.towards("auth", "router") is None


@pytest.mark.parametrize("transport", ["loopback", "uds"])
def test_other_transports_prove_nothing(transport: str) -> None:
    """And need no certificates."""
    settings = build(Own, {"transport": transport}, {})
    assert settings.towards("auth", "router") is None
    assert settings.listen("auth").security.own is None
