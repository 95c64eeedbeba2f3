"""Plain language: a docstring says what its thing is or does, with a subject that has a name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("poollife", "servers", "tools", "demo", "benchmarks")
#: Pronouns and relative words, with which a docstring has no subject of its own.
OPENERS = {
    "what",
    "whether",
    "who",
    "whom",
    "whose",
    "whoever",
    "whatever",
    "which",
    "where",
    "why",
    "how",
    "when",
    "it",
    "its",
    "this",
    "that",
    "these",
    "those",
    "they",
    "them",
    "he",
    "she",
    "one",
    "ones",
    "some",
    "such",
    "somebody",
    "someone",
    "something",
    "anybody",
    "anything",
    "nobody",
    "nothing",
    "everybody",
    "all",
    "both",
    "neither",
    "none",
    "each",
    "others",
    "another",
    "there",
    "see",
    "same",
}
PHRASES = ("the same", "see there", "the one")


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if text := ast.get_docstring(node):
            name = getattr(node, "name", "module")
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)} {name}", text


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_opens_with_a_pronoun(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [
        f"{place}: {text.splitlines()[0]}"
        for path in files
        for place, text in docstrings(path)
        if text.split()[0].strip(",.:;`'").lower() in OPENERS or text.lower().startswith(PHRASES)
    ]
    assert found == []


def test_the_list_of_words_finds_one(tmp_path: Path) -> None:
    """A test that can't fail proves nothing."""
    path = Path(__file__)
    assert dict(docstrings(path))
    for text in ("Whether it is so.", "The same for a coroutine.", "What there is."):
        assert text.split()[0].lower() in OPENERS or text.lower().startswith(PHRASES)
