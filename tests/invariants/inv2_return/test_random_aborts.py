"""Invariants 2 and 3 on a real server, while clients leave and tasks end, at random."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from servers import MariaDB
from tests.support.threads_site.serving import SiteServer
from tests.support.web_server import PATIENCE, eventually

pytestmark = pytest.mark.slow

REQUESTS = 2_000
#: At once; more than there are sessions.
CLIENTS = 16
LIMIT = 6
#: Seconds, at most: of a question's work, and until somebody gives up.
PAUSE, TIME = 0.01, 0.03
WAYS = ("cursor", "variable", "orm", "rolled_back", "to_thread", "stream")
ENDS = ("always", "in_time", "unless_cancelled")


class Question:
    """One request, and how it is to end."""

    def __init__(self, number: int, dice: random.Random) -> None:
        self.way = dice.choice(WAYS)
        self.end = "always" if self.way == "stream" else dice.choice(ENDS)
        self.leaves = dice.random() < 0.25
        pause, limit = dice.uniform(0, PAUSE), dice.uniform(0, TIME)
        self.patience = limit if self.leaves else PATIENCE
        # A stream is Django's, all else also somebody's who has only PoolASGIMiddleware.
        beside = self.way != "stream" and dice.random() < 0.5
        path = f"{'/starlette' if beside else ''}/question/{self.way}/{number}"
        self._path = f"{path}?pause={pause}&limit={limit}&end={self.end}"
        self._right = f"{number} {number} {number} " if self.way == "stream" else str(number)

    async def ask(self, port: int) -> str:
        """What came of it, in a word."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {self._path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            async with asyncio.timeout(self.patience):
                return self._judge((await reader.read()).decode())
        except TimeoutError:
            return "left" if self.leaves else "no answer"
        finally:
            # Without a close, as when a phone loses its network.
            writer.transport.abort()

    def _judge(self, answer: str) -> str:
        head, _, body = answer.partition("\r\n\r\n")
        status = head.split()[1]
        if status == "504":
            return f"not {self.end}"
        return "right" if (status, body) == ("200", self._right) else f"wrong: {self._path} {status} {body}"


async def ask_all(questions: list[Question], port: int) -> Counter[str]:
    gate, results = asyncio.Semaphore(CLIENTS), Counter[str]()

    async def ask(question: Question) -> None:
        async with gate:
            results[await question.ask(port)] += 1

    await asyncio.gather(*map(ask, questions))
    return results


def test_nothing_is_out_and_no_answer_is_wrong(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path
) -> None:
    name = new_database()
    mariadb.execute(f"CREATE TABLE {name}.visits (id INT PRIMARY KEY)")
    pool = {"pool_size": LIMIT, "max_overflow": 0, "timeout": PATIENCE}
    entry = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql", "POOL": pool}
    dice = random.Random(1)
    questions = [Question(number, dice) for number in range(1, REQUESTS + 1)]
    with SiteServer("uvicorn", tmp_path / "log", pooled=True, DATABASES={"default": entry}) as server:
        results = asyncio.run(ask_all(questions, server.port))
        eventually("nothing is out", lambda: server.pool()["out"] == 0)
        assert server.stats()["most_sockets"] <= LIMIT
        assert "Traceback" not in server.log, server.log
        # And all of it can be had still.
        last = [Question(number, random.Random(number)) for number in range(3 * LIMIT)]
        last = [question for question in last if not question.leaves and question.end == "always"]
        assert asyncio.run(ask_all(last, server.port)) == {"right": len(last)}
    assert not {result for result in results if result.startswith(("wrong", "no answer"))}, results
    # In each way, many.
    ends = ("right", "left", "not in_time", "not unless_cancelled")
    assert min(results[end] for end in ends) > 50, results
    assert mariadb.execute(f"SELECT COUNT(*) FROM {name}.visits WHERE id < 0") == [(0,)]
