"""Addresses as people type them: one spelling for each, a sentence for any other text, and only what a host's owner allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer import address
from transfer.endpoint import Endpoint
from transfer.errors import ChatError

from .asking import KEY, ask, said
from .endpoint_server import EndpointServer


@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "Https"]),
    host=st.sampled_from(["127.0.0.1", "localhost", "GPU-3.example.org", "[::1]", "a_b"]),
    port=st.none() | st.integers(1, 65535),
    path=st.lists(st.from_regex(r"[a-z][a-z.~_-]{0,6}", fullmatch=True), max_size=3),
    version=st.sampled_from(["", "/v1"]),
    tail=st.sampled_from(["", "/chat/completions"]),
    slashes=st.integers(0, 2),
    space=st.sampled_from(["", " ", "\n"]),
)
def test_an_address_is_the_same_however_it_is_typed(scheme, host, port, path, version, tail, slashes, space):
    path = "".join(f"/{step}" for step in path)
    place = f"{host}{'' if port is None else f':{port}'}"
    found = Endpoint(f"{space}{scheme}://{place}{path}{version}{tail}{'/' * slashes}{space}").url
    usual = {"http": 80, "https": 443}[scheme.lower()]
    place = place.lower().removesuffix(f":{usual}") if port == usual else place.lower()
    assert found == f"{scheme.lower()}://{place}{path}/v1"
    assert Endpoint(found).url == found  # and typing what is shown changes nothing


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://h/", "http://u:pw@"]))
def test_any_other_text_is_refused_in_a_sentence(text, begin):
    try:
        found = Endpoint(begin + text)
    except ChatError as refused:
        assert str(refused).endswith(".")
    else:
        assert found.url.isascii() and "@" not in found.url and Endpoint(found.url) == found and str(found)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "begins with http"),
        ("127.0.0.1:8000", "begins with http"),
        ("ftp://h/v1", "begins with http"),
        ("file:///etc/passwd", "begins with http"),
        ("http://me:secret@h/v1", "no password"),
        ("http://me@h", "no password"),
        ("http://h/v1?key=secret", r"no \?"),
        ("http://h/v1#secret", r"no \?"),
        ("http://", "no host"),
        ("http://h:0", "no host"),
        ("http://h:65536", "no host"),
        ("http://h:secret", "no host"),
        ("http://h\\secret", "no host"),
        ("http://h secret", "no host"),
        ("http://[::1", "no host"),
        ("http://h/a/../secret", "path"),
        ("http://h/%2e%2e/secret", "path"),
        ("http://h/a\tb", "path"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_repeating_it(typed, words):
    with pytest.raises(ChatError, match=words) as caught:
        Endpoint(typed)
    assert "secret" not in str(caught.value)


def test_versions_of_other_makers_are_kept():
    for url in ("https://a.example/api/paas/v4", "https://b.example/v1beta/openai", "https://c.example/api/v1"):
        assert Endpoint(url + "/").url == Endpoint(url + "/chat/completions").url == url


def test_how_an_endpoint_is_shown():
    found = Endpoint("http://127.0.0.1:8000/v1/", " qwen ", KEY)
    assert str(found) == "qwen at 127.0.0.1:8000" and KEY not in repr(found) and found.key == KEY
    assert str(Endpoint("https://h", "/models/of/mine/")) == "mine at h" and str(Endpoint("https://h")) == "h"
    assert str(Endpoint("http://[::1]:80", "owner/name")) == "owner/name at [::1]"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "nul\0"])
def test_a_key_that_no_header_takes_is_refused(key):
    with pytest.raises(ChatError, match="Copy it once more") as caught:
        Endpoint("http://h", "m", key)
    assert key not in str(caught.value)


@pytest.fixture
def server():
    with EndpointServer() as found:
        yield found


def test_a_hosted_page_asks_only_what_its_owner_allows(monkeypatch, server):
    monkeypatch.setattr(address, "HOSTED", True)
    monkeypatch.delenv("TRANSFERSCOPE_ENDPOINTS", raising=False)
    with pytest.raises(ChatError, match="owner allows"):
        Endpoint(server.url, "served")
    allowed = f"junk, ,HTTPS://API.example.org:443/, http://h:8000/team/v1/chat/completions,http://u:p@no/,{server.url}"
    monkeypatch.setenv("TRANSFERSCOPE_ENDPOINTS", allowed)
    for url in ("https://api.example.org", "https://api.example.org/any/v1", "http://h:8000/team", server.url):
        assert Endpoint(url).url.startswith(url)
    for url in (
        "http://api.example.org",  # the scheme
        "https://api.example.org:8443",  # the port
        "https://api.example.org.evil.org",  # the host
        "https://xapi.example.org",
        "http://h:8000/teamwork/v1",  # the path, at its boundary
        "http://h:8000/team/v1x",
        "http://h:8000",
        "http://no",
        "http://169.254.169.254/v1",
    ):
        with pytest.raises(ChatError, match="owner allows"):
            Endpoint(url)
    assert said(ask(server.url)) == "Ada Moss."
