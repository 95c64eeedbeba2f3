"""The test runner of Django's suite for the comparison: Django's own, which writes each outcome to a file."""

from __future__ import annotations

import json
import os
import traceback
import unittest
from types import TracebackType
from typing import Any

from django.conf import settings
from django.test.runner import DiscoverRunner, ParallelTestSuite, RemoteTestResult, RemoteTestRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]  # the stubs leave it out

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class RecordingResult(unittest.TextTestResult):
    """A result that writes one line of JSON for each outcome.

    With --parallel it is in the parent, and the workers report to it.
    """

    def record(self, outcome: str, test: Any, reason: str = "") -> None:
        line = json.dumps([outcome, test.id(), reason]) + "\n"
        # Opened again each time: tests fork, and change the files that are open.
        with open(os.environ["CONFORMANCE_OUTCOMES"], "a") as file:  # noqa: PTH123  # tests patch pathlib
            file.write(line)

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self.record("passed", test)

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self.record("failed", test)

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self.record("failed", test)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.record("failed", test)

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self.record("skipped", test, reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.record("passed", test)

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self.record("failed", test)


class PlainRemoteResult(RemoteTestResult):
    """A result that sends text in place of tracebacks.

    A traceback can't be pickled without tblib, and would stop the run.
    """

    def addError(self, test: Any, err: ExcInfo) -> None:
        super().addError(test, as_text(err))

    def addFailure(self, test: Any, err: ExcInfo) -> None:
        super().addFailure(test, as_text(err))

    def addSubTest(self, test: Any, subtest: Any, err: ExcInfo | None) -> None:
        if err is not None:
            super().addFailure(test, as_text(err, f"{subtest}\n"))

    def addExpectedFailure(self, test: Any, err: ExcInfo) -> None:
        super().addExpectedFailure(test, as_text(err))


def as_text(err: ExcInfo, before: str = "") -> Any:
    """Return an exception with the same text that can be pickled."""
    text = before + "".join(traceback.format_exception(*err))
    return AssertionError, AssertionError(text), None


class PlainRemoteRunner(RemoteTestRunner):
    resultclass = PlainRemoteResult


class PlainParallelSuite(ParallelTestSuite):
    runner_class = PlainRemoteRunner


class RecordingRunner(DiscoverRunner):
    """The runner. runtests.py makes it after it has replaced MIDDLEWARE."""

    parallel_test_suite = PlainParallelSuite

    def load_tests_for_label(self, label: str, discover_kwargs: Any) -> Any:
        """Load the tests, and skip those that say nothing about these databases."""
        skipped = json.loads(os.environ.get("CONFORMANCE_SKIPPED", "{}"))
        tests = super().load_tests_for_label(label, discover_kwargs)
        for test in iter_test_cases(tests):
            if reason := skipped.get(test.id()):
                name = test.id().rpartition(".")[2]
                setattr(type(test), name, unittest.skip(reason)(getattr(type(test), name)))
        return tests

    def get_resultclass(self) -> Any:
        return RecordingResult

    def run_tests(self, *args: Any, **kwargs: Any) -> int:
        settings.MIDDLEWARE = [*json.loads(os.environ["CONFORMANCE_MIDDLEWARE"]), *settings.MIDDLEWARE]
        return super().run_tests(*args, **kwargs)
