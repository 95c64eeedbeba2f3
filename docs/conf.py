"""Sphinx's configuration of the documentation site; `make docs` builds it."""

from __future__ import annotations

import django
from django.conf import settings

import poollife

# autodoc imports the modules. Some of them need Django's settings, none needs a database.
settings.configure(USE_TZ=True)
django.setup()

project = "poollife"
author = "The poollife authors"
version = release = poollife.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
# Links to headings are GitHub's, where the same files are read, too.
myst_heading_anchors = 4
# For docs/changelog.md, which includes another file.
myst_enable_extensions = ["colon_fence"]
# Quotes and dashes stay as they were typed: many of them are parts of commands.
smartquotes = False
# Blocks without a language are commands.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Types without the names of their modules.
autodoc_typehints_format = "short"

html_theme = "furo"
html_favicon = "images/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"poollife {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
