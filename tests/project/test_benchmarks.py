"""``make bench`` measures what it says, in a short run."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import plots
from benchmarks.__main__ import PARTS, arguments, named
from benchmarks.bench import VIEWS
from benchmarks.cpu import KINDS as CPU_KINDS
from benchmarks.dialects import DIALECTS, MYSQL
from benchmarks.leaks import KINDS
from benchmarks.load import Load
from benchmarks.peers import BARE, LAZY, PATIENCE, PEERS, Peer
from benchmarks.process import Crew, Failed, Process
from benchmarks.report import print_cpu, print_throughput
from benchmarks.throughput import SCENARIOS, STOCK, Scenario, in_turn
from tests.support import ROOT

ALWAYS, ROLLBACK = "poollife, reset always", "poollife, reset rollback"
#: Round trips.
RESET = 4
QUARTILES = {"median", "lower", "upper"}
#: Scenarios of the short run: with and without TLS and a delay, two and three contenders, a new option.
MEASURED = ("tls_delay", "atomic", "half", "statement")
Capture = pytest.CaptureFixture[str]


def leaks_of(found: dict[str, Any], peer: str) -> set[str]:
    return {kind for kind, verdicts in found["leaks"].items() if verdicts[peer] == "LEAKS"}


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The parts that compare poollife with stock Django, in a short run."""
    rounds = ("--rounds=2", "--cycles=20", "--seconds=1", f"--scenarios={','.join(MEASURED)}")
    figures: dict[str, Any] = json.loads(bench("--json", "--parts=cpu,throughput", *rounds))
    return figures


@pytest.mark.slow
def test_a_short_run_has_all_parts_with_peers_and_queues() -> None:
    parts = "--parts=" + ",".join(name for name in PARTS if name not in {"cpu", "throughput", "forks"})
    found: dict[str, Any] = json.loads(
        bench(
            "--json",
            "--only=poollif",
            "--rounds=2",
            "--cycles=20",
            "--memory=40",
            "--seconds=1",
            "--jobs=50",
            parts,
        )
    )
    views = {name: [each["extra"] for each in views.values()] for name, views in found["round_trips"].items()}
    # A reset is a packet for what a change of user does not end, the change, SET NAMES, and at the next
    # checkout the isolation level.
    usual = [0, 3, 3, 5, 3]  # Django's own
    always = [RESET + each for each in usual]
    assert views == {"poollife": usual, LAZY: [0, 1, 1, 2, 0], ALWAYS: always, ROLLBACK: usual}
    assert found["leaks"].keys() == KINDS["mysql"].keys()
    assert len(KINDS["mysql"]) >= 20
    assert leaks_of(found, "poollife") == leaks_of(found, LAZY) == leaks_of(found, ALWAYS) == set()
    assert len(leaks_of(found, ROLLBACK)) >= 20
    assert found["cycles"].keys() == {BARE.name, "poollife", LAZY, ALWAYS, ROLLBACK}
    assert found["cycles"][BARE.name]["ratio"] == 1
    assert [step["cycles"] for step in found["memory"]["poollife"]] == [0, 10, 20, 30, 40]
    for part in "spike", "waiting", "outage":
        assert len(found[part]) == 3
    assert [len(kinds) for kinds in found["board"]] == [2, 2]
    assert all(each["with"] > 0 < each["without"] for kinds in found["board"] for each in kinds.values())
    assert [each["threads"] for each in found["sizing"]] == [8, 8, 16, 16]
    for each in found["sizing"]:
        assert each["checkouts"] > 0
        assert {0 <= each[key] <= 1 for key in ("waiting", "calculated", "simulated")} == {True}
    assert found["fair"].keys() == {*found["spike"], "poollife", LAZY, ALWAYS, ROLLBACK}
    assert all(each["wrong"] == 0 for each in found["last_ids"].values())
    assert all(each == {} for each in found["failed"].values())
    assert len(found["turns"]) == 4
    for ways in found["turns"].values():
        assert [each["ratio"] == 1 for each in ways.values()] == [True, False, False]
    assert all(each["given_up"] == 0 for name, each in found["fair"].items() if "poollife" in name)
    # Five were there, and a few are opened at a time.
    assert all(each["opened"] <= 8 for name, each in found["spike"].items() if "poollife" in name)


@pytest.mark.slow
def test_cpu_part_compares_each_kind_with_stock(found: dict[str, Any], capsys: Capture) -> None:
    assert found["cpu"].keys() == CPU_KINDS.keys()
    for contenders in found["cpu"].values():
        assert contenders.keys() == {"stock", "poollife"}
        assert set(contenders["stock"]["more"].values()) == {0}
        for each in contenders.values():
            assert each["us"].keys() == each["more"].keys() == QUARTILES
            assert each["us"]["median"] > 0
    print_cpu(found["cpu"], 2, 2)
    assert capsys.readouterr().out.count("| poollife ") == len(CPU_KINDS)


@pytest.mark.slow
def test_throughput_part_compares_each_contender_with_stock(found: dict[str, Any], capsys: Capture) -> None:
    assert found["failed"]["throughput"] == {}
    assert list(found["throughput"]) == list(MEASURED)
    measured = 0
    for name, scenario in found["throughput"].items():
        assert scenario["title"] == SCENARIOS[name].title
        # The tests have all packages, so an option that this version lacks is the only reason.
        assert scenario["left_out"] == SCENARIOS[name].missing()
        if scenario["left_out"] is None:
            measured += 1
            peers = [peer.name for peer in SCENARIOS[name].peers(MYSQL)]
            assert list(scenario["contenders"]) == peers
            assert set(scenario["contenders"][STOCK]["ratio"].values()) == {1}
            for each in scenario["contenders"].values():
                assert each.keys() == {"per_second", "cpu_us", "ratio"}
                assert each["per_second"].keys() == QUARTILES
                assert each["per_second"]["lower"] > 0
    assert measured >= 2
    print_throughput(found["throughput"], 2, 0.025)
    printed = capsys.readouterr().out
    assert printed.count("| poollife ") == measured
    assert printed.count("LEFT OUT: ") == len(MEASURED) - measured


def test_scenario_is_left_out_with_the_option_that_poollife_lacks() -> None:
    scenario = Scenario("a title", pool={"pool_size": 2, "no_such_option": 1})
    assert scenario.missing() == "this version of poollife has no POOL['no_such_option']"
    assert Scenario("a title").missing() is None


def test_plots_have_a_bar_for_each_peer_and_a_text_for_screen_readers(tmp_path: Path) -> None:
    views = {"one SELECT": {"extra": 5}, "atomic <&>": {"extra": 8}}
    found = {
        "round_trips": {"stock": views, "poollife": {name: {"extra": 0} for name in views}},
        "leaks": {
            "SET": {"stock": "LEAKS", "poollife": "-"},
            "lock": {"stock": "HANGS", "poollife": "-"},
            "LISTEN": {"stock": "-", "poollife": "-"},
        },
    }
    paths = plots.write(found, "mysql", tmp_path / "new")
    assert [path.name for path in paths] == [
        "bench-mysql-round-trips-1.svg",
        "bench-mysql-round-trips-2.svg",
        "bench-mysql-leaks.svg",
    ]
    for path, numbers in zip(paths, ([5, 0], [8, 0], [2, 0]), strict=True):
        tree = ElementTree.parse(path).getroot()
        title, background, *_ = tree
        assert f"stock {numbers[0]}, poollife 0" in str(title.text)
        bars = [each for each in tree if each.tag.endswith("rect") and each is not background]
        assert [float(each.attrib["width"]) for each in bars] == [plots.LONGEST, 1]
        assert [each.attrib["fill"] for each in bars] == [plots.OTHER, plots.OWN]


def test_plot_of_each_scenario_has_the_ratios_to_stock_django(tmp_path: Path) -> None:
    measured = {"stock": {"ratio": {"median": 1.0}}, "poollife": {"ratio": {"median": 0.937}}}
    found = {
        "throughput": {
            "atomic_delay": {"title": "an update, 1 ms", "left_out": None, "contenders": measured},
            "statement": {"title": "a wait", "left_out": "this version can't"},
        }
    }
    (path,) = plots.write(found, "postgresql", tmp_path)
    assert path.name == "bench-postgresql-throughput-atomic-delay.svg"
    title = str(ElementTree.parse(path).getroot()[0].text)
    assert title == "Requests per second, x stock Django: an update, 1 ms: stock 1.00, poollife 0.94"


@pytest.mark.parametrize("title", [scenario.title for scenario in SCENARIOS.values()])
def test_title_of_a_plot_is_broken_into_lines_that_fit(title: str) -> None:
    whole = f"Requests per second, x stock Django: {title}"
    tree = ElementTree.fromstring(plots.Plot("name", whole, {"stock": 1}).svg())
    texts = [each for each in tree if each.tag.endswith("text")]
    lines = [str(each.text) for each in texts if "font-weight" in each.attrib]
    assert " ".join(lines) == whole
    assert max(map(len, lines)) <= plots.LINE
    # No line of it is on the bars.
    heights = [int(each.attrib["y"]) for each in texts]
    assert heights == sorted(set(heights))


def test_each_picture_of_a_run_is_on_the_page_of_benchmarks_with_a_text() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    shown = re.findall(r"!\[[^\]]+\]\(images/([\w-]+\.svg)\)", text)
    assert sorted(shown) == sorted(path.name for path in (ROOT / "docs/images").glob("bench-*.svg"))


def test_plots_of_the_page_have_the_numbers_of_their_views() -> None:
    """Otherwise ``--plots docs/images`` would write the figures of another view into a picture."""
    paths = list((ROOT / "docs/images").glob("bench-*-round-trips-*.svg"))
    assert len(paths) == 2
    for path in paths:
        view = list(VIEWS)[int(path.stem.rpartition("-")[2]) - 1]
        assert f"Round trips beside the view's own: {view}: " in path.read_text()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--parts", "no_such_name"], "no_such_name: not among"),
        (["--scenarios", "no_such_name"], "no_such_name: not among"),
        (["--database", "postgresql", "--parts", "outage"], "not with postgresql: outage"),
    ],
)
def test_argument_that_can_not_be_measured_is_refused(given: list[str], reason: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments(given)
    assert reason in capsys.readouterr().err


def serve_once(answer: Callable[[bytes], bytes]) -> int:
    """Return the port of a server that takes one connection, and answers each piece of data."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            while data := connection.recv(1000):
                connection.sendall(answer(data))

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def test_relay_delays_data_each_way_and_passes_on_the_end() -> None:
    delay = 0.05
    beginning = {"host": "127.0.0.1", "port": serve_once(bytes.upper), "delay": delay}
    with (
        Process("the relay", "benchmarks.relay", beginning) as relay,
        socket.create_connection(("127.0.0.1", relay.greeting), timeout=30) as client,
    ):
        begin = time.monotonic()
        client.sendall(b"text")
        assert client.recv(1000) == b"TEXT"
        assert time.monotonic() - begin >= 2 * delay
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b""


def test_load_generator_counts_the_requests_of_its_connections() -> None:
    port = serve_once(
        lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"GET /path ")
    )
    requests, seconds = Load(None).drive(port, "/path", 1, 0.05)
    assert requests >= 1
    assert seconds >= 0.05


def test_load_generator_fails_with_the_response_that_is_no_success() -> None:
    port = serve_once(lambda data: b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(RuntimeError, match="500 Internal Server Error"):
        Load(None).drive(port, "/", 1, 0.05)


@pytest.mark.parametrize("database", DIALECTS)
def test_one_can_be_chosen_whose_name_begins_like_others(database: str) -> None:
    assert [peer.name for peer in named(database, "poollife")] == ["poollife"]
    assert [peer.name for peer in named(database, "poollife, ")] == [LAZY, ALWAYS, ROLLBACK]
    assert named(database, None) == list(PEERS[database])


def test_missing_package_is_named_with_the_error_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = tmp_path / "errors.json"
    monkeypatch.setattr("benchmarks.peers.NOT_INSTALLED", errors)
    peer = Peer("a peer", "", packages=("Django", "no-such-package"))
    assert peer.missing() == "no-such-package is not installed"
    errors.write_text('{"no-such-package": "ERROR: no such thing"}')
    assert peer.missing() == "no-such-package is not installed (ERROR: no such thing)"


@pytest.mark.parametrize("database", DIALECTS)
def test_options_of_the_server_stay_beside_those_of_a_pool(database: str) -> None:
    entry = {"NAME": "a name", "OPTIONS": {"sslmode": "disable"}}
    for peer in PEERS[database]:
        own = peer.database(entry, 1)
        assert own["OPTIONS"]["sslmode"] == "disable"
        assert own["ENGINE"] == peer.engine
    always = named(database, ALWAYS)[0].database(entry, 2, release="statement")["POOL"]
    assert always == {
        "pool_size": 2,
        "max_overflow": 0,
        "timeout": PATIENCE,
        "reset": "always",
        "release": "statement",
    }


def test_each_site_has_each_place_as_often_as_the_others() -> None:
    sites = ["a", "b", "c"]
    orders = [in_turn(sites, number) for number in range(6)]
    assert sorted(map("".join, orders)) == ["abc", "acb", "bac", "bca", "cab", "cba"]
    assert in_turn(sites[:0], 1) == []


def test_peer_that_fails_is_left_out_with_the_first_line_of_its_error() -> None:
    """The process answers other orders after an error, but a part goes on without it."""
    failed: dict[str, str] = {}
    with (
        Process("one", "benchmarks.load", None) as one,
        Process("other", "benchmarks.load", None) as other,
    ):
        crew = Crew([one, other], failed)
        port = serve_once(lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        def drive(process: Process) -> int:
            answer: tuple[int, float] = process.drive(port if process is other else 0, "/", 1, 0)
            return answer[0]

        assert dict(crew.each(drive)) == {"other": 1}
        assert failed.keys() == {"one"}
        assert failed["one"].startswith("ConnectionRefusedError: ")
        assert [name for name, _ in crew.each(lambda process: process.name)] == ["other"]


def test_peer_that_does_not_start_is_named_with_its_last_line() -> None:
    with pytest.raises(Failed, match=r"the process ended with status 1.*no_such_module"):
        Process("a peer", "benchmarks.no_such_module", None)


@pytest.mark.slow
def test_short_run_on_postgresql_counts_packets_and_wrong_keys() -> None:
    parts = "--parts=round_trips,cycles,last_ids,fair"
    short = ("--rounds=2", "--cycles=20", "--seconds=0.1", "--jobs=50")
    found: dict[str, Any] = json.loads(
        bench("--json", "--database=postgresql", "--only=poollife", parts, *short)
    )
    assert all(each == {} for each in found["failed"].values())
    views = [each["extra"] for each in found["round_trips"]["poollife"].values()]
    # Django's own: BEGIN and COMMIT, and those of a savepoint.
    assert views == [0, 2, 2, 4, 0]
    assert found["cycles"].keys() == {BARE.name, "poollife"}
    answers = found["last_ids"]["poollife"]
    assert answers["wrong"] == 0
    assert answers["right"] + answers["refused"] == 50
    assert found["fair"]["poollife"]["least"] > 0


@pytest.mark.slow
def test_who_is_not_there_is_named() -> None:
    missing = [peer for peer in PEERS["mysql"] if peer.missing()]
    for peer in missing:
        printed = bench("--only", peer.name, "--parts", "")
        assert f"MISSING: {peer.name}: {peer.missing()}, so it was not measured" in printed


@pytest.mark.slow
def test_forks_harm_neither_parent_nor_child() -> None:
    found = json.loads(bench("--json", "--only", "poollife", "--parts", "forks"))
    assert found["failed"] == {"forks": {}}
    verdicts = {kind: each["poollife"] for kind, each in found["forks"].items()}
    assert verdicts.pop("in a transaction, child queries") == "child refused"
    assert len(verdicts) == 8
    assert set(verdicts.values()) == {"ok"}


@pytest.mark.slow
def test_stock_leaks_what_poollife_is_there_for() -> None:
    """The table would be worth nothing if nothing leaked anywhere."""
    stock = "stock, CONN_MAX_AGE=600"
    assert len(leaks_of(json.loads(bench("--json", "--only", stock, "--parts", "leaks")), stock)) >= 25
