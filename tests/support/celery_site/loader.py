"""Celery's own loader, with a look at what a task leaves behind."""

from celery.loaders.app import AppLoader

from tests.support.celery_site.notes import held_here, note


class Loader(AppLoader):  # type: ignore[misc]  # Celery has no types
    def on_process_cleanup(self) -> None:
        """Nothing is called after this for a task, however that ended."""
        note("task over", held=held_here())
