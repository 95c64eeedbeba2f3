"""The status page, as Django answers it and as Chromium shows it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.db import connections
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.utils import override_settings
from django.utils.html import escape
from selenium.webdriver.common.keys import Keys

from poollife import auto_close_db, pool_stats
from poollife.board.page import page as own_page
from poollife.errors import PoolTimeout
from poollife.status_page import access, views
from poollife.threads import PooledThread
from poollife.work import Work
from tests.conftest import MakeAlias
from tests.operate.test_pool_status import Elsewhere
from tests.support.browser import Browser, chromium
from tests.support.pages import page
from tests.support.programs.running import run
from tests.support.status_site.running import STATES, StatusSite
from tests.support.web_server import eventually, fetch

ADDRESSES = ("", "status.json", *views.ASSETS)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def let_in(request: HttpRequest) -> bool:
    return request.headers.get("X-Secret") == "1"


INSIDE = {"ROOT_URLCONF": "tests.support.status_site.urls", "ALLOWED_HOSTS": ["testserver"]}


@pytest.fixture
def client() -> Iterator[Client]:
    with override_settings(**INSIDE, POOLLIFE_STATUS_ACCESS=let_in):
        yield Client(headers={"X-Secret": "1"})


# --- access -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_authentication_all_are_refused(address: str) -> None:
    with override_settings(**INSIDE):
        answer = Client().get(f"/pools/{address}")
    assert (answer.status_code, answer["Content-Type"]) == (403, "text/plain; charset=utf-8")
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("address", ADDRESSES)
def test_setting_decides(client: Client, address: str) -> None:
    assert client.get(f"/pools/{address}").status_code == 200
    assert Client().get(f"/pools/{address}").status_code == 403
    with override_settings(POOLLIFE_STATUS_ACCESS="tests.support.status_site.views.is_local"):
        assert Client().get(f"/pools/{address}").status_code == 200
        assert Client(REMOTE_ADDR="192.0.2.1").get(f"/pools/{address}").status_code == 403


def test_default_wants_an_active_member_of_the_staff() -> None:
    class User:
        def __init__(self, is_active: bool, is_staff: bool) -> None:
            self.is_active, self.is_staff = is_active, is_staff

    request = RequestFactory().get("/pools/")
    assert not access.is_staff(request)
    for active, staff in ((False, False), (True, False), (False, True), (True, True)):
        request.user = User(active, staff)  # type: ignore[assignment]
        assert access.is_staff(request) == (active and staff)


def test_staff_need_the_database_once_and_nobody_needs_it_without_a_session(entry: dict[str, Any]) -> None:
    pool = {"pool_size": 1, "max_overflow": 0, "timeout": 0.2}
    assert run("status_access", {**entry, "POOL": pool}) == {
        "nobody": [403, 0],
        "visitor": [403, 1],
        "known": [200, 1],
        "known again": [200, 0],
        "left": [200, 1],
        # That middleware would send the visitor to a page of the site.
        "login required": [403, 0],
        # A cookie of the page is worth nothing in the session of another user.
        "another session": [403, 1],
        "dry, nobody": [403, 0],
        "dry, member": [503, 0],
        "dry, known": [200, 0],
    }


def test_recipes_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLS_KEY", "1")
    found: dict[str, Any] = {}
    for block in page("docs/status-page.md").blocks:
        if "access.py" in block.text:
            exec(block.text, found)
    requests = RequestFactory()
    assert found["has_key"](requests.get("/", headers={"X-Pools-Key": "1"}))
    assert not found["has_key"](requests.get("/", headers={"X-Pools-Key": "2"}))
    assert found["is_internal"](requests.get("/", REMOTE_ADDR="10.20.1.1"))
    assert not found["is_internal"](requests.get("/", REMOTE_ADDR="10.21.1.1"))
    found["KEY"] = ""
    assert not found["has_key"](requests.get("/"))


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_only_get_and_head_are_answered(client: Client, address: str, method: str) -> None:
    assert getattr(client, method)(f"/pools/{address}").status_code == 405
    assert client.head(f"/pools/{address}").status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_headers(client: Client, address: str) -> None:
    headers = client.get(f"/pools/{address}").headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert (headers["X-Frame-Options"], policy["frame-ancestors"]) == ("DENY", "'none'")
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_html_has_neither_inline_scripts_nor_styles(client: Client) -> None:
    html = client.get("/pools/").content.decode()
    assert re.findall(r"<style|style=|\son\w+=|javascript:|https?:", html) == []
    assert re.findall(r"<script[^>]*>", html) == ['<script src="status.js" defer>']


# --- what it says -------------------------------------------------------------------------------------------


def test_page_of_a_dry_pool_borrows_nothing(client: Client, alias: str) -> None:
    keepers = [Elsewhere(lambda: connections[alias].ensure_connection()) for _ in range(2)]
    try:
        before = pool_stats()[alias]["checkouts"]
        assert client.get("/pools/").status_code == 200
        (pool,) = [
            each for each in client.get("/pools/status.json").json()["aliases"] if each["alias"] == alias
        ]
        assert (pool["out"], pool["idle"], pool["limit"], pool["word"]) == (2, 0, 2, "all out")
        assert pool_stats()[alias]["checkouts"] == before
    finally:
        for keeper in keepers:
            keeper.end()


def test_names_are_escaped(client: Client, alias: str) -> None:
    html = json = ""

    def look() -> None:
        nonlocal html, json
        connections[alias].ensure_connection()
        html = client.get("/pools/").content.decode()
        json = client.get("/pools/status.json").content.decode()

    # The client's own request ends other work of this thread.
    thread = PooledThread(target=lambda: Work(f"GET /{HOSTILE}").run(look), name=HOSTILE[:39])
    thread.start()
    thread.join()
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 2
    assert "<img" not in html
    assert HOSTILE in json


def test_time_out_is_shown_with_its_likeliest_cause(client: Client, make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "max_waiting": 0})
    keeper = Elsewhere(lambda: connections[alias].ensure_connection())
    try:
        with pytest.raises(PoolTimeout) as raised:
            auto_close_db(lambda: connections[alias].ensure_connection())()
    finally:
        keeper.end()
    (shown,) = [
        each for each in client.get("/pools/status.json").json()["timeouts"] if each["alias"] == alias
    ]
    assert shown["likeliest_cause"] == raised.value.likeliest_cause
    assert escape(raised.value.likeliest_cause) in client.get("/pools/").content.decode()


def test_without_a_board_the_page_says_why(client: Client) -> None:
    with override_settings(POOLLIFE_RUN_DIR=""):
        assert b"POOLLIFE_RUN_DIR is empty." in client.get("/pools/").content
        found = client.get("/pools/status.json").json()
    assert (found["no_board"], found["aliases"]) == ("POOLLIFE_RUN_DIR is empty", [])


def test_columns_of_tables_are_keys_of_the_json(client: Client, alias: str) -> None:
    keeper = Elsewhere(lambda: connections[alias].ensure_connection())
    try:
        found = client.get("/pools/status.json").json()
    finally:
        keeper.end()
    for table in views.TABLES:
        for row in found[table.key]:
            assert {column.key for column in table.columns} <= row.keys()
    assert found["holders"]
    assert own_page.missing is None


# --- in Chromium --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(_browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StatusSite]:
    with StatusSite(tmp_path_factory.mktemp("status_site")) as site:
        yield site


@pytest.fixture
def browser(_browser: Browser, site: StatusSite) -> Iterator[Browser]:
    """The browser, which is to report nothing, and to ask no other origin."""
    with _browser.new_tab():
        _browser.set_size(1000, 800)
        _browser.set_media(prefers_color_scheme="light")
        _browser.complaints(), _browser.requests()
        yield _browser
        complaints, requests = _browser.complaints(), _browser.requests()
    assert complaints == []
    assert {urlsplit(url).netloc for url in requests} == {f"127.0.0.1:{site.port}"}


def shows(browser: Browser, selector: str, text: str) -> None:
    eventually(f"{selector} shows {text!r}", lambda: text in browser.text(selector))


WORDS = {
    "quiet": ("good", "quiet"),
    "busy": ("good", "in use"),
    "dry": ("bad", "dry"),
    "dead": ("bad", "no server"),
}


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("state", STATES)
def test_page_follows_the_site_and_is_accessible(browser: Browser, site: StatusSite, state: str) -> None:
    site.bring_to("quiet" if state != "quiet" else "busy")
    browser.open(site.url)
    site.bring_to(state)
    level, word = WORDS[state]
    # The page was not loaded again by the test.
    shows(browser, ".pool .word", word)
    eventually(
        "it has numbers of its own", lambda: not browser.run("return document.querySelector('.plot').hidden")
    )
    assert browser.run("return document.querySelector('.pool').dataset.level") == level
    assert browser.run("return document.title").startswith(
        "default " if level == "bad" else "Connection pools"
    )
    rows = browser.run(
        "return [...document.querySelectorAll('[data-rows=holders] tbody tr')].map(e => e.innerText)"
    )
    assert len(rows) == site.pool()["out"]
    assert bool(rows) == (state in ("busy", "dry"))
    assert not any("secret" in row for row in rows)
    for scheme in ("light", "dark"):
        browser.set_media(prefers_color_scheme=scheme)
        for width in (1000, 360):
            browser.set_size(width, 800)
            assert browser.run("return document.documentElement.scrollWidth") == width
            assert browser.violations() == [], (scheme, width)


@pytest.mark.slow
@pytest.mark.servers
def test_json_of_a_dry_site_has_nothing_secret(site: StatusSite) -> None:
    """The site has ATOMIC_REQUESTS: a page that began a transaction would wait for a connection."""
    site.bring_to("dry")
    assert site.pool()["waiting"]
    for address in ADDRESSES:
        answer = fetch(site.port, f"/pools/{address}")
        assert answer.status == 200
        assert re.findall(rb"secret|token=|SELECT|PASSWORD", answer.body) == []


@pytest.mark.slow
@pytest.mark.servers
def test_plot_shows_what_the_tab_has_seen(browser: Browser, site: StatusSite) -> None:
    site.bring_to("busy")
    browser.open(site.url)
    shows(browser, ".pool .word", "in use")
    label = "return document.querySelector('.plot svg').getAttribute('aria-label') || ''"
    out = site.pool()["out"]
    eventually("busy is seen", lambda: f"at most {out} out and 0 waiting" in browser.run(label))
    site.bring_to("quiet")
    shows(browser, ".pool .word", "quiet")
    # What was seen before the page was loaded again is still known.
    browser.open(site.url)
    eventually("it draws", lambda: f"at most {out} out" in browser.run(label))
    drawn = browser.run("return [...document.querySelectorAll('.plot path')].map(e => e.getAttribute('d'))")
    assert not any("NaN" in path for path in drawn)
    assert all(path.startswith("M") for path in drawn)


@pytest.mark.slow
@pytest.mark.servers
def test_without_scripts_the_page_is_complete_and_loads_again(browser: Browser, site: StatusSite) -> None:
    site.bring_to("busy")
    browser.set_scripts(False)
    try:
        browser.open(site.url)
        html = fetch(site.port, "/pools/").body.decode()
        assert html.count("<td") >= 6 * site.pool()["out"]
        assert '<noscript><meta http-equiv="refresh"' in html
        loaded: list[str] = []

        def again() -> bool:
            loaded.extend(url for url in browser.requests() if url == site.url)
            return len(loaded) >= 2

        eventually("it loads again", again)
    finally:
        browser.set_scripts(True)
        browser.open(site.url)


@pytest.mark.slow
@pytest.mark.servers
def test_pause_by_the_keyboard_keeps_the_page_as_it_is(browser: Browser, site: StatusSite) -> None:
    site.bring_to("quiet")
    browser.open(site.url)
    shows(browser, ".pool .word", "quiet")
    button = browser.driver.find_element("id", "pause")
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element == button
    button.send_keys(Keys.SPACE)
    site.bring_to("busy")
    eventually("the numbers are known", lambda: browser.run("return latest?.aliases[0].word") == "in use")
    assert browser.text(".pool .word") == "quiet"
    button.send_keys(Keys.SPACE)
    assert browser.text(".pool .word") == "in use"


@pytest.mark.slow
@pytest.mark.servers
def test_page_says_that_its_numbers_are_old(browser: Browser, site: StatusSite) -> None:
    site.bring_to("quiet")
    browser.open(site.url)
    shows(browser, ".pool .word", "quiet")
    eventually("it has asked", lambda: browser.run("return latest !== null"))
    browser.set_offline(True)
    try:
        shows(browser, "#news", "No news since")
        assert browser.violations() == []
        assert browser.complaints()  # a request that failed
    finally:
        browser.set_offline(False)
    eventually("there is news", lambda: "No news" not in browser.text("#news"))
    browser.complaints()


@pytest.mark.slow
@pytest.mark.servers
def test_hostile_names_are_text(browser: Browser, site: StatusSite) -> None:
    site.bring_to("quiet")
    browser.open(site.url)
    with site.holding(f"/{quote(HOSTILE)}"):
        work = "[data-rows=holders] tbody td:nth-child(3)"
        eventually("it is shown", lambda: bool(browser.run(f"return document.querySelector('{work}')")))
        assert browser.text(work) == f"GET /{HOSTILE}"
        assert browser.run("return document.querySelectorAll('img, td *, script:not([src])').length") == 0
        # As the server wrote it.
        browser.open(site.url)
        assert browser.text(work) == f"GET /{HOSTILE}"
        assert browser.run("return document.querySelectorAll('img, td *, script:not([src])').length") == 0


@pytest.mark.slow
@pytest.mark.servers
def test_browser_enforces_the_policy(browser: Browser, site: StatusSite) -> None:
    """And so the other tests would see a script or a style that the policy forbids."""
    browser.open(site.url)
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script); document.body.setAttribute('style', 'color: red')"
    )
    assert browser.run("return window.ran") is None
    assert len([each for each in browser.complaints() if "Content Security Policy" in each]) == 2


@pytest.mark.slow
@pytest.mark.servers
def test_time_out_is_shown_with_its_whole_cause(browser: Browser, site: StatusSite) -> None:
    site.bring_to("quiet")
    browser.open(site.url)
    assert browser.run("return document.querySelector('[data-rows=timeouts]').hidden")
    fetch(site.port, "/late/")
    shows(browser, "[data-rows=timeouts] tbody", "x" * 100)
    for width in (1000, 360):
        browser.set_size(width, 800)
        assert browser.violations() == [], width
    browser.set_size(1000, 800)
    assert browser.run(
        "const { scrollWidth, clientWidth } = document.querySelector('[data-rows=timeouts] .scroll');"
        "return scrollWidth <= clientWidth"
    )


@pytest.mark.slow
@pytest.mark.servers
def test_process_that_was_killed_is_named_with_its_work(browser: Browser, site: StatusSite) -> None:
    site.bring_to("busy")
    browser.open(site.url)
    pid = site.status()["holders"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    shows(browser, "[data-rows=deaths] tbody", str(pid))
    assert not browser.run("return document.querySelector('[data-rows=deaths]').hidden")
    assert "GET /" in browser.text("[data-rows=deaths] tbody")
    assert browser.violations() == []


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("seconds", [0, 9.99, 10, 119.9, 120, 7199, 7200, 172799, 172800, 1e6])
def test_script_and_server_write_durations_alike(browser: Browser, site: StatusSite, seconds: float) -> None:
    from poollife.status_page.causes import duration

    browser.open(site.url)
    assert browser.run("return duration(arguments[0])", seconds) == duration(seconds)
