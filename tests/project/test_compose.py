"""docker-compose.yml: its syntax, and that what it names is there. No engine runs it here."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import Any

import pytest
import yaml
from django.utils.module_loading import import_string

from poollife.conf import PoolOptions
from tests.support import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DESKS = {name: service for name, service in COMPOSE["services"].items() if "command" in service}
#: What the specification (https://github.com/compose-spec/compose-spec) calls keys of a service.
KEYS = {"image", "working_dir", "volumes", "command", "environment", "healthcheck", "ports", "depends_on"}

#: The variables of the servers' images that name the database, its user and the password, by ENGINE.
ACCOUNTS = {
    "poollife.backends.mysql": ("MYSQL_DATABASE", "MYSQL_USER", "MYSQL_PASSWORD"),
    "poollife.backends.postgresql": ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"),
}


def test_only_keys_of_the_specification() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"services"}
    assert {key for service in COMPOSE["services"].values() for key in service} <= KEYS


def test_images_have_a_version() -> None:
    images = {service["image"] for service in COMPOSE["services"].values()}
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+", image) for image in images)
    assert {"mariadb:11.4", "mysql:8.4", "postgres:17.6"} == images - {DESKS["desk-on-mysql"]["image"]}


@pytest.mark.parametrize("name", DESKS)
def test_a_desk(name: str) -> None:
    """It waits for a server that says when it is ready, and knows how to reach it."""
    desk: dict[str, Any] = DESKS[name]
    (server,) = desk["depends_on"]
    assert desk["depends_on"][server] == {"condition": "service_healthy"}
    assert COMPOSE["services"][server]["healthcheck"]["test"][0] == "CMD"
    database = json.loads(desk["environment"]["POOLLIFE_DEMO_DATABASE"])
    accounts = COMPOSE["services"][server]["environment"]
    given = [database[key] for key in ("HOST", "NAME", "USER", "PASSWORD")]
    variables = ACCOUNTS[database["ENGINE"]]
    assert given == [server, *(accounts[name] for name in variables)]
    assert import_string(f"{database['ENGINE']}.base.DatabaseWrapper")
    assert PoolOptions.from_settings("default", database)


def test_what_a_desk_runs_is_there() -> None:
    shell, option, script = DESKS["desk-on-mysql"]["command"]
    assert (shell, option) == ("sh", "-c")
    (configuration,) = re.findall(r"gunicorn -c (\S+)", script)
    assert (ROOT / configuration).is_file()
    (module,) = re.findall(r"python -m (\S+)", script)
    assert find_spec(module)
    assert "POOLLIFE_DEMO_DATABASE" in (ROOT / "demo" / "settings.py").read_text()


def test_ports_are_this_machines_alone_and_differ() -> None:
    ports = [port for desk in DESKS.values() for port in desk["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)
