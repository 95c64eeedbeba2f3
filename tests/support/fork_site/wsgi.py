"""The application."""

from __future__ import annotations

import gc
import os

from django.core.wsgi import get_wsgi_application

from tests.support.fork_site import master
from tests.support.programs import removal

application = get_wsgi_application()
# As sites that preload do, so that the workers share their memory.
gc.freeze()
removal.take_out(os.environ["FORK_SITE_WITHOUT"])
master.warm_up()
