"""A node of a private Galera cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from servers.mariadb import MariaDB
from servers.missing import Missing
from servers.ports import free_port

#: The paths where distributions have the library.
LIBRARIES = (
    "/usr/lib/libgalera_smm.so",
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
)

#: The folder of the script by which a node takes the data that it has for those of the cluster.
SCRIPTS = Path(__file__).parent / "galera_scripts"


def library() -> Path:
    """Return the path of Galera's library.

    :raises Missing: if it is not installed.
    """
    for path in map(Path, LIBRARIES):
        if path.exists():
            return path
    raise Missing("missing: Galera; python3 tools/system_packages.py installs it")


class GaleraNode(MariaDB):
    """A node of a cluster on this machine. The first node makes the cluster, and the others join it.

    All nodes begin with copies of the same data, so no node has to send them to another one: the servers need
    none of the scripts for that, which are in another package.
    """

    name = "Galera"

    def __init__(
        self,
        others: Sequence[GaleraNode] = (),
        *,
        folder: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Prepare a node; ``start()`` starts it.

        :param others: nodes of the cluster; none: this node makes it.
        :param folder: as for all servers.
        :param options: of the server.
        """
        super().__init__(folder, options=options)
        self.group_port = free_port(self.host)
        self._transfer_port = free_port(self.host)
        self._others = tuple(others)

    def isolate(self, isolated: bool = True) -> None:
        """Cut the node off from the other nodes, but not from its clients; or end that."""
        self.execute(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(isolated)}'")

    @property
    def state(self) -> str:
        """The state of the node, as it says itself, such as "Synced" or "Initialized"."""
        ((_, state),) = self.execute("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        return str(state)

    def _make_data(self, data: Path) -> None:
        """Make the system tables and the users, and have them be the state of a cluster at its beginning.

        A node that joins with this state gets only what was written since.
        """
        folder = self.folder / "maker"
        for kind in (MariaDB, GaleraNode):
            with kind(folder=folder):
                pass
        shutil.move(folder / "data", data)
        shutil.copy(data / "grastate.dat", data / "given")
        shutil.rmtree(folder)

    def _command(self) -> list[str]:
        addresses = ",".join(f"{self.host}:{each.group_port}" for each in self._others)
        provider = (
            f"gmcast.listen_addr=tcp://{self.host}:{self.group_port}",
            f"ist.recv_addr={self.host}:{self._transfer_port}",
            "gcache.size=32M",
        )
        return [
            *("env", f"PATH={SCRIPTS}:{os.environ.get('PATH', os.defpath)}"),
            *(word for word in super()._command() if not word.startswith("--init-file=")),
            "--wsrep-on=ON",
            f"--wsrep-provider={library()}",
            f"--wsrep-cluster-address=gcomm://{addresses}",
            f"--wsrep-provider-options={';'.join(provider)}",
            f"--wsrep-node-address={self.host}:{self.group_port}",
            "--wsrep-sst-method=given",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            *(() if self._others else ("--wsrep-new-cluster",)),
        ]

    def _answers(self) -> bool:
        import MySQLdb

        try:
            return super()._answers() and self.state == "Synced"
        except MySQLdb.OperationalError:
            return False
