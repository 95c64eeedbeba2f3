"""A pooled backend made into another one."""

from __future__ import annotations

from typing import Any, ClassVar

from poollife.pools.base import PoolKey
from tests.support.engines.composed import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Each tenant has a database of its own, under the same alias."""

    tenant: ClassVar[str] = ""

    def pool_key(self) -> PoolKey:
        return super().pool_key()._replace(database=self.tenant)

    def get_connection_params(self) -> dict[str, Any]:
        return {**super().get_connection_params(), "database": self.tenant}
