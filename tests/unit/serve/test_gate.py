"""Another site in the same browser, another name, another machine: who is refused."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from effort_finetune.core.errors import UserError
from effort_finetune.serve.gate import POLICY, Gate, own_names
from effort_finetune.serve.page_address import chosen_token, listen
from effort_finetune.serve.page_app import page_app

TOKEN = "a-token-of-some-length"


@pytest.fixture
def ask(visitor):
    """Asks for the page with the gate of an address."""

    def asking(listened="127.0.0.1", token=None, allowed=(), base="http://127.0.0.1:8765", local=True):
        gate = Gate(own_names(listened, allowed, machine="box"), any_address=not local, token=token)
        return TestClient(page_app(visitor.page, gate, port=8765), base_url=base, follow_redirects=False)

    return asking


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:9000", "[::1]:8765", "127.0.0.1"])
def test_the_pages_own_names_pass(ask, host):
    assert ask().get("/state", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8765", "127.0.0.1.evil.example", "192.168.1.5:8765", "", "localhost.evil"]
)
def test_another_name_that_leads_here_is_refused(ask, host):
    for path in ("/", "/state", "/assets/main.js"):
        assert ask().get(path, headers={"host": host}).status_code == 403


def test_another_sites_page_is_refused(ask):
    client = ask()
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:8765",
        "http://127.0.0.1:9999",
        "file://",
    ):
        for method, path in (
            ("GET", "/state"),
            ("POST", "/batches"),
            ("POST", "/predict"),
            ("DELETE", "/batches/1"),
        ):
            assert client.request(method, path, headers={"origin": origin}).status_code == 403
    own = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert client.get("/state", headers=own).status_code == 200


def test_another_sites_picture_or_script_element_is_refused(ask):
    client = ask()
    for site in ("cross-site", "same-site"):
        assert client.get("/state", headers={"sec-fetch-site": site}).status_code == 403
        assert client.get("/records.csv", headers={"sec-fetch-site": site}).status_code == 403
        assert client.get("/", headers={"sec-fetch-site": site}).status_code == 200  # a link to the page


def test_every_answer_bears_the_policy(ask):
    client = ask()
    for answer in (
        client.get("/"),
        client.get("/state"),
        client.get("/nothing"),
        client.get("/", headers={"host": "x"}),
    ):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "'unsafe" not in POLICY


def test_beyond_this_machine_a_token_is_asked_for(ask):
    client = ask("0.0.0.0", token=TOKEN, base="http://192.168.1.5:8765", local=False)
    assert client.get("/state").status_code == 401
    shut = client.get("/")
    assert (shut.status_code, "token" in shut.text) == (401, True)
    assert client.get("/?token=wrong").status_code == 401
    assert client.get("/state", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert (
        client.get(f"/state?token={TOKEN}").status_code == 401
    )  # only the page itself takes it from an address
    opened = client.get(f"/?token={TOKEN}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/state").status_code == 200  # by the cookie


def test_beyond_this_machine_addresses_and_allowed_names_pass(ask):
    client = ask("0.0.0.0", token=TOKEN, allowed=["lab.example"], local=False)
    for host, status in (
        ("192.168.1.5:8765", 200),
        ("box:8765", 200),
        ("box.local:1", 200),
        ("lab.example", 200),
        ("evil.example", 403),
    ):
        answer = client.get("/state", headers={"host": host, "authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == status, host


def test_a_token_is_made_where_others_can_reach_the_page(monkeypatch):
    monkeypatch.delenv("EFFORT_FINETUNE_TOKEN", raising=False)
    assert chosen_token(None, local=True) is None
    assert len(chosen_token(None, local=False)) >= 32
    assert chosen_token(None, local=False) != chosen_token(None, local=False)
    monkeypatch.setenv("EFFORT_FINETUNE_TOKEN", TOKEN)
    assert chosen_token(None, local=True) == TOKEN
    for short in ("", "short", "sixteen characte", "ümlaut-ümlaut-ümlaut"):
        with pytest.raises(UserError, match="--token"):
            chosen_token(short, local=True)


def test_a_port_in_use_and_a_strange_address_are_one_line():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}.*--port 0"):
            listen("127.0.0.1", port)
    for address, asked in (("no.such.host.invalid", 0), ("127.0.0.1", 70000), ("203.0.113.7", 0)):
        with pytest.raises(UserError, match="--listen|--port"):
            listen(address, asked)
