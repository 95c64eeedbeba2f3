"""The tickets that the desk starts with.

Each text follows from the number of its ticket, so a client can check the answers of the site.
"""

from __future__ import annotations

TICKETS = 400

_THINGS = ["printer", "coffee machine", "door lock", "projector", "mail server", "office plant", "lift"]
_TROUBLES = ["does not start", "is too loud", "asks for a password", "was better last year", "blinks"]
_PEOPLE = ["Ada", "Barbara", "Dennis", "Edsger", "Grace", "Ken", "Margaret", "Niklaus"]
_REMARKS = [
    "Same here since Monday.",
    "Have you tried switching it off and on again?",
    "I did, and now it is worse.",
    "Works for me. Which room is it?",
    "The room with the other {thing}.",
]
COMMENTS = len(_REMARKS)


def title(number: int) -> str:
    """Return the title of the ticket with this number."""
    return f"#{number}: the {thing(number)} {_pick(_TROUBLES, number)}"


def thing(number: int) -> str:
    """Return the thing that the ticket is about."""
    return _pick(_THINGS, number)


def text(number: int) -> str:
    """Return the text of the ticket."""
    return f"The {thing(number)} on floor {number % 9} needs a look."


def author(number: int) -> str:
    """Return the author of the ticket."""
    return _pick(_PEOPLE, number)


def remarks(number: int) -> list[tuple[str, str]]:
    """Return the comments on the ticket, each with its author."""
    return [(author(number + i), line.format(thing=thing(number))) for i, line in enumerate(_REMARKS, 1)]


def _pick(words: list[str], number: int) -> str:
    return words[number % len(words)]
