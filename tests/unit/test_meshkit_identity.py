"""Who a connection proves its other end to be: by certificate, by sidecar, and by what somebody made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.identity import FORWARDED, Security, forwarded_uri, from_certificate, from_sidecar

DOMAIN = "weir.local"
BY = "By=spiffe://cluster.local/ns/weir/sa/ledger"
ROUTER = "spiffe://cluster.local/ns/weir/sa/router"
EDGE = "spiffe://cluster.local/ns/weir/sa/edge"
HASH = "Hash=" + "0" * 64


def nearest(uri: str) -> str:
    """What the sidecar itself writes."""
    return f'{BY};{HASH};Subject="";URI={uri}'


@pytest.mark.parametrize(
    ("ids", "service"),
    [
        ([b"spiffe://weir.local/router"], "router"),
        ([b"spiffe://weir.local/cloud_adapter"], "cloud_adapter"),
        ([b"spiffe://weir.local/operator"], "operator"),
        ([b"spiffe://elsewhere.local/router"], ""),
        ([b"spiffe://weir.local/nobody"], ""),
        ([b"spiffe://weir.local/"], ""),
        ([b"spiffe://weir.local/x/router"], ""),
        ([b"spiffe://weir.local/router/"], ""),
        ([b"spiffe://weir.local/Router"], ""),
        ([b"https://weir.local/router"], ""),
        ([b"\xff\xfe"], ""),
        ([b"spiffe://weir.local/router", b"spiffe://weir.local/edge"], ""),
        ([], ""),
    ],
)
def test_a_certificate_names_a_service_of_our_trust_domain(ids: list[bytes], service: str) -> None:
    """One SPIFFE id, exactly ours; anything else is nobody."""
    assert from_certificate({"peer_spiffe_id": ids}, DOMAIN) == service


def test_a_connection_without_a_certificate_names_nobody() -> None:
    """As gRPC tells it of plain text."""
    assert from_certificate({}, DOMAIN) == ""
    assert from_certificate({"x509_common_name": [b"router"]}, DOMAIN) == ""


@pytest.mark.parametrize(
    ("header", "uri"),
    [
        (nearest(ROUTER), ROUTER),
        (f"URI={ROUTER}", ROUTER),
        (f"uri={ROUTER}", ROUTER),
        (f'{BY};URI="{ROUTER}"', ROUTER),
        (f'{BY};Subject="CN=a,O=b;c=\\"d\\"";URI={ROUTER};DNS=router.weir', ROUTER),
        # What somebody farther away said comes first, and counts for nothing.
        (f"{nearest(ROUTER)},{nearest(EDGE)}", EDGE),
        (f"{nearest(ROUTER)}, {nearest(EDGE)}", EDGE),
        (f"{nearest(ROUTER)},{BY};{HASH}", ""),
        (f"{nearest(ROUTER)},", ""),
        # A quote left open, or an escape left hanging, does not swallow what the sidecar appends.
        (f'URI={ROUTER};Subject=",{nearest(EDGE)}', EDGE),
        (f'URI={ROUTER};Subject="\\,{nearest(EDGE)}', EDGE),
        (f'URI={ROUTER};Subject="a\\",{nearest(EDGE)}', EDGE),
        (f'"URI={ROUTER}\\,{nearest(EDGE)}', EDGE),
        (f"URI={ROUTER};URI={EDGE}", ""),
        (f'Subject="URI={ROUTER}"', ""),
        (f'Subject="a;URI={ROUTER};b"', ""),
        (f'URI={ROUTER};Subject="', ""),
        (f'URI={ROUTER}"', ""),
        (f'URI="{ROUTER}\\""', ""),
        ("URI=", ""),
        ("", ""),
        (",", ""),
        (";;;===", ""),
        ('"', ""),
    ],
)
def test_the_last_element_alone_counts(header: str, uri: str) -> None:
    """The nearest proxy appends; the one URI of its element is who calls, and nothing before can change it."""
    assert forwarded_uri(header) == uri


@given(st.text(alphabet=st.sampled_from('",;=\\ URI' + EDGE), max_size=60))
def test_nothing_that_comes_before_reaches_into_the_last_element(before: str) -> None:
    """Whatever a caller wrote, the sidecar's word is read as it wrote it."""
    assert forwarded_uri(f"{before},{nearest(ROUTER)}") == ROUTER


@given(st.text(max_size=80))
def test_nonsense_names_nobody(header: str) -> None:
    """And raises nothing."""
    assert from_sidecar(((FORWARDED, header),), "cluster.local", "weir") == ""


@pytest.mark.parametrize(
    ("uri", "service"),
    [
        (ROUTER, "router"),
        ("spiffe://cluster.local/ns/weir/sa/cloud-adapter", "cloud_adapter"),
        ("spiffe://cluster.local/ns/weir/sa/cloud_adapter", ""),
        ("spiffe://cluster.local/ns/other/sa/router", ""),
        ("spiffe://other.local/ns/weir/sa/router", ""),
        ("spiffe://cluster.local/ns/weir/sa/default", ""),
        ("spiffe://cluster.local/ns/weir/sa/router/x", ""),
        ("spiffe://cluster.local/router", ""),
    ],
)
def test_the_sidecar_names_a_service_account_of_our_namespace(uri: str, service: str) -> None:
    """Its last part is the service, with - for _."""
    assert from_sidecar(((FORWARDED, nearest(uri)),), "cluster.local", "weir") == service


def test_without_the_sidecar_s_header_nobody_calls() -> None:
    """Nor with a binary one, which no proxy makes."""
    assert from_sidecar((), "cluster.local", "weir") == ""
    assert from_sidecar((("user-agent", "x"),), "cluster.local", "weir") == ""
    assert from_sidecar(((FORWARDED, b"URI=x"),), "cluster.local", "weir") == ""


def test_of_several_headers_the_last_counts() -> None:
    """A caller's own copy comes before the sidecar's."""
    headers = ((FORWARDED, nearest(ROUTER)), (FORWARDED, nearest(EDGE)))
    assert from_sidecar(headers, "cluster.local", "weir") == "edge"


@pytest.mark.parametrize("transport", ["loopback", "uds"])
def test_transports_that_prove_nothing(transport: str) -> None:
    """Not an empty proof, which would be refused, but none owed."""
    security = Security(transport="uds" if transport == "uds" else "loopback")
    assert security.who(object()) is None
