"""The files around the code, for a host of repositories, git and an index of packages; pages of facts."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

import noxfile
from tests.support import ROOT
from tests.support.pages import page
from tools import release_check

GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: The extras for this project's own work.
OWN = {"demo", "bench", "docs", "release", "dev"}
FILES = ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github/PULL_REQUEST_TEMPLATE.md")


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.github-workflows", ".github/workflows/coverage.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
    ],
)
def test_file_keeps_the_schema_of_its_reader(schema: str, path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, ROOT / path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflow_has_each_cell_of_the_matrix() -> None:
    """One cell is that of `make test`."""
    jobs = read(GITHUB / "workflows/ci.yml")["jobs"]
    matrix = jobs["matrix"]["strategy"]["matrix"]
    cells = set(product(matrix["python"], matrix["django"], matrix["sqlalchemy"]))
    cells |= {(each["python"], each["django"], each["sqlalchemy"]) for each in matrix["include"]}
    (tested,) = (
        step["with"]["python-version"]
        for step in jobs["test"]["steps"]
        if "python-version" in step.get("with", {})
    )
    cells.add((tested, "5.2", "2.1"))
    assert cells == {tuple(cell.args) for cell in noxfile.CELLS}
    text = (GITHUB / "workflows/ci.yml").read_text()
    names = {"{1}-sqlalchemy{2}-python{0}".format(*cell) for cell in cells}
    assert (
        "(django${{ matrix.django }}-sqlalchemy${{ matrix.sqlalchemy }}-python${{ matrix.python }})" in text
    )
    assert {f"django{name}" for name in names} == {str(cell) for cell in noxfile.CELLS}


def test_page_of_versions_has_the_cells_and_the_oldest_drivers() -> None:
    versions = page("docs/versions.md")
    cells = {
        (row["Python"], django, sqlalchemy)
        for row in versions.table("Python | Django")
        for django in row["Django"].split(", ")
        for sqlalchemy in row["SQLAlchemy"].split(", ")
    }
    assert cells == {tuple(cell.args) for cell in noxfile.CELLS}
    drivers = {row["driver"]: row["supported"] for row in versions.table("driver | supported")}
    extras = PROJECT["project"]["optional-dependencies"]
    for name in ("mysql", "pymysql", "postgresql", "postgresql-psycopg2", "oracle", "jdbc"):
        driver, _, oldest = extras[name][0].partition(">=")
        assert drivers[driver].startswith(f"{oldest} and later")


def test_every_claim_about_pools_has_a_command_or_a_source() -> None:
    """docs/which-pool.md promises it: the last cell of each row of each table."""
    rows = [line for line in page("docs/which-pool.md").prose.splitlines() if line.startswith("|")]
    cells = [row.strip("| ").rpartition("|")[2].strip() for row in rows if not row.startswith("|---")]
    assert cells.count("shown by") == 4
    assert len(cells) > 25
    shown = re.compile(r"\]\(|`make |`tests/|`python manage\.py |`manage\.py ")
    assert [cell for cell in cells if cell != "shown by" and not shown.search(cell)] == []


def test_job_with_the_development_version_of_django_may_fail() -> None:
    job = read(GITHUB / "workflows/ci.yml")["jobs"]["django-main"]
    assert job["continue-on-error"] is True
    session = job["steps"][-1]["run"].removeprefix(".venv/bin/nox --session ")
    assert callable(getattr(noxfile, session))


def test_jobs_run_targets_that_exist() -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflows = [read(path) for path in (GITHUB / "workflows").glob("*.yml")]
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    made = [command.split()[1] for command in commands if command.startswith("make ")]
    assert len(made) >= 5
    assert set(made) - {".venv/.installed"} <= targets


def test_coverage_has_a_floor_and_runs_each_week_and_for_each_release() -> None:
    assert PROJECT["tool"]["coverage"]["report"]["fail_under"] >= 95
    assert PROJECT["tool"]["coverage"]["run"]["branch"]
    workflow = read(GITHUB / "workflows/coverage.yml")
    when = workflow[True]  # YAML's "on" is a value, not a text
    assert when.keys() >= {"schedule"}
    assert when["push"] == {"tags": ["v*"]}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make coverage WORKERS=4"]


def test_forms_for_issues_have_what_their_reader_requires() -> None:
    forms = [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = read(path)
        assert form.keys() >= {"name", "description", "body"}
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) >= 2


def test_hooks_run_programs_that_make_lint_runs() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint
    made = {line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()}
    hooks = {hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]}
    assert hooks == made


@pytest.mark.parametrize("name", FILES)
def test_links_of_project_files_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)", (ROOT / name).read_text())
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_release_check_knows_all_extras() -> None:
    assert PROJECT["project"]["optional-dependencies"].keys() == release_check.EXTRAS.keys() | OWN


def test_page_of_the_package_has_no_relative_link() -> None:
    """The index of packages shows README.md far from the other files."""
    (rule,) = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    shown = re.sub(rule["pattern"], rule["replacement"], (ROOT / "README.md").read_text())
    assert shown != (ROOT / "README.md").read_text()
    assert [
        target for target in re.findall(r"\]\(([^)\s]+)\)", shown) if not re.match(r"#|https://", target)
    ] == []
