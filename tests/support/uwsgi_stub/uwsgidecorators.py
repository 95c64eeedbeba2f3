"""A stub of the module that uWSGI brings: the part of it that has to do with forks."""

from __future__ import annotations

from collections.abc import Callable

import uwsgi

if uwsgi.masterpid() == 0:
    raise Exception("you have to enable the uWSGI master process to use this module")

postfork_chain: list[Callable[[], object]] = []


def postfork(function: Callable[[], object]) -> None:
    postfork_chain.append(function)


def postfork_chain_hook() -> None:
    for function in postfork_chain:
        function()


uwsgi.post_fork_hook = postfork_chain_hook
