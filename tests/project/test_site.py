"""The documentation site: ``make docs`` builds it without a warning, and all of it works in a browser."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

import poollife
from servers import Missing
from tests.support import ROOT
from tests.support.browser import Browser, chromium
from tests.support.web_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.network]

FOLDER = ROOT / "build/docs"
#: Made by Sphinx: an index of names, and the page of the search, which a form leads to.
NOT_IN_THE_NAVIGATION = {"genindex.html", "py-modindex.html", "search.html"}
READ = """
return {
    links: [...document.querySelectorAll("a[href]")].map(each => each.href),
    navigation: [...document.querySelectorAll(".sidebar-tree a[href]")].map(each => each.href),
    ids: [...document.querySelectorAll("[id]")].map(each => each.id),
    images: [...document.images].filter(each => !each.naturalWidth).map(each => each.src),
}
"""


class Quiet(SimpleHTTPRequestHandler):
    """A web server for files that logs nothing."""

    def log_message(self, *args: Any) -> None:
        pass


class Site(NamedTuple):
    """The site as a browser has read it."""

    address: str
    #: By the name of the page's file.
    pages: dict[str, dict[str, list[str]]]
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def built() -> Path:
    """The site's folder, built by the target of the Makefile in its own environment."""
    done = subprocess.run(
        ["make", "docs", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not (ROOT / ".venv-docs/.installed").exists():
        raise Missing(f"missing: the packages of the extra docs, which pip could not install: {done.stdout}")
    assert done.returncode == 0, done.stdout
    return FOLDER


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(built: Path, address: str, browser: Browser) -> Site:
    """Each page, opened once."""
    names = [str(path.relative_to(built)) for path in built.rglob("*.html")]
    pages = {}
    for name in sorted(names):
        browser.open(address + name)
        pages[name] = browser.run(READ)
    return Site(address, pages, browser.complaints(), browser.requests())


def test_each_page_opens_without_an_error_and_asks_no_other_host(site: Site) -> None:
    assert len(site.pages) > 30
    assert site.complaints == []
    # Others are Chromium's own, and pictures that are a part of a page.
    asked = {urlsplit(url).netloc for url in site.requests if url.startswith("http")}
    assert asked == {urlsplit(site.address).netloc}
    assert [image for page in site.pages.values() for image in page["images"]] == []


def test_no_link_is_broken(site: Site, built: Path) -> None:
    broken = []
    checked = 0
    for name, page in site.pages.items():
        for link in page["links"]:
            target, anchor = urldefrag(link)
            if not target.startswith(site.address):
                continue
            checked += 1
            path = unquote(target.removeprefix(site.address)) or "index.html"
            known = site.pages.get(path)
            if not (built / path).is_file() or (known and anchor and unquote(anchor) not in known["ids"]):
                broken.append(f"{name}: {link}")
    assert checked > 1000
    assert broken == []


def test_every_page_is_reached_from_the_navigation_of_the_start_page(site: Site) -> None:
    reached = {
        urldefrag(link)[0].removeprefix(site.address) for link in site.pages["index.html"]["navigation"]
    }
    assert site.pages.keys() - NOT_IN_THE_NAVIGATION == reached | {"index.html"}


def test_search_finds_a_key_and_a_function(site: Site, browser: Browser) -> None:
    for term, page in (("lazy_begin", "settings.html"), ("drain_pool", "api.html")):
        browser.open(f"{site.address}search.html?q={term}")
        script = "return [...document.querySelectorAll('#search-results li a')].map(each => each.href)"
        eventually(
            f"the search finds {term} on {page}",
            lambda: any(page in link for link in browser.run(script)),  # noqa: B023
        )
    browser.open(f"{site.address}search.html?q=nosuchwordatall")
    eventually("the search finds nothing", lambda: "did not match" in browser.text("#search-results"))
    assert browser.complaints() == []


def test_api_page_has_each_public_name(site: Site) -> None:
    ids = [each for each in site.pages["api.html"]["ids"] if each.startswith("poollife.")]
    assert set(poollife.__all__) <= {each.rpartition(".")[2] for each in ids}
