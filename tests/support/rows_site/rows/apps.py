"""An app that queries as soon as it is ready."""

from django.apps import AppConfig

from tests.support.rows_site.rows import early
from tests.support.rows_site.settings import SITE


class RowsConfig(AppConfig):
    """Looks at every database before the test runner could make one for the tests."""

    name = "tests.support.rows_site.rows"
    label = "rows"

    def ready(self) -> None:
        if SITE["look_early"]:
            early.look()
