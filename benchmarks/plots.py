"""Bar charts of a run, as SVG: ``make bench ARGS='--plots docs/images'``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

#: Pixels: of the picture, of the names on the left, of the longest bar, of a row and of the title.
WIDTH, LABELS, LONGEST, ROW, TITLE = 760, 270, 400, 30, 56
#: Characters of a line of the title that surely fit into the picture, and pixels from one line to the next.
LINE, LEADING = 76, 22
OWN, OTHER = "#1d4ed8", "#94a3b8"


class Plot(NamedTuple):
    """A bar for each peer."""

    #: The end of the file's name.
    name: str
    title: str
    bars: Mapping[str, float]
    #: The form of the numbers beside the bars.
    form: str = "{:g}"

    def svg(self) -> str:
        """Return the picture. The bars of poollife have another colour."""
        most = max(self.bars.values(), default=0) or 1
        lines = wrap(self.title, LINE)
        first = TITLE + LEADING * (len(lines) - 1)
        height = first + ROW * len(self.bars) + 14
        text = f"{self.title}: " + ", ".join(f"{name} {self._number(name)}" for name in self.bars)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            ' font-family="system-ui, sans-serif" font-size="14" fill="#0f172a" role="img">',
            f"<title>{escape(text)}</title>",
            f'<rect width="{WIDTH}" height="{height}" rx="12" fill="#f8fafc"/>',
        ]
        for row, line in enumerate(lines):
            top = 33 + LEADING * row
            parts.append(f'<text x="20" y="{top}" font-size="16" font-weight="600">{escape(line)}</text>')
        for row, (name, value) in enumerate(self.bars.items()):
            top, length = first + ROW * row, max(LONGEST * value / most, 1)
            colour = OWN if name.startswith("poollife") else OTHER
            parts += [
                f'<text x="{LABELS - 10}" y="{top + 19}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{LABELS}" y="{top + 5}" width="{length:.1f}" height="20" fill="{colour}"/>',
                f'<text x="{LABELS + length + 8:.1f}" y="{top + 20}">{self._number(name)}</text>',
            ]
        return "\n".join([*parts, "</svg>\n"])

    def _number(self, name: str) -> str:
        return self.form.format(self.bars[name])


def round_trips(found: dict[str, dict[str, Any]]) -> Iterator[Plot]:
    """Yield a plot for each kind of request."""
    views = next(iter(found.values()), {})
    for number, view in enumerate(views, 1):
        bars = {name: each[view]["extra"] for name, each in found.items()}
        yield Plot(f"round-trips-{number}", f"Round trips beside the view's own: {view}", bars)


def leaks(found: dict[str, dict[str, str]]) -> Iterator[Plot]:
    """Yield a plot of the numbers of kinds that reach the next borrower."""
    names = next(iter(found.values()), {})
    bars = {name: sum(each.get(name) in ("LEAKS", "HANGS") for each in found.values()) for name in names}
    yield Plot("leaks", f"Kinds of session state that reach the next borrower, of {len(found)}", bars)


def throughput(found: dict[str, dict[str, Any]]) -> Iterator[Plot]:
    """Yield a plot of the medians for each scenario that was measured."""
    for name, scenario in found.items():
        if not scenario["left_out"]:
            bars = {peer: each["ratio"]["median"] for peer, each in scenario["contenders"].items()}
            title = f"Requests per second, x stock Django: {scenario['title']}"
            yield Plot(f"throughput-{name.replace('_', '-')}", title, bars, "{:.2f}")


#: By part.
PLOTS: dict[str, Callable[[Any], Iterator[Plot]]] = {
    "round_trips": round_trips,
    "leaks": leaks,
    "throughput": throughput,
}


def write(found: dict[str, Any], database: str, folder: Path) -> list[Path]:
    """Write the plots of the parts that have one.

    :param found: the figures of a run, as ``--json`` prints them.
    :param database: the kind of server, with which the names of the files begin.
    :param folder: the folder, which is made if it is not there.
    :returns: the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for part, plots in PLOTS.items():
        for plot in plots(found[part]) if part in found else ():
            path = folder / f"bench-{database}-{plot.name}.svg"
            path.write_text(plot.svg())
            written.append(path)
    return written
