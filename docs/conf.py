"""Settings of the site: ``make site`` builds it from these pages and from docstrings, without a network."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent / "src")]

project = "Polypath"
author = "Polypath's authors"
copyright = "Polypath's authors, Apache-2.0"
version = release = version_of("polypath")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "docstrings", "links", "pages", "fields"]
exclude_patterns = ["_build", "_ext", "results/reproduce", "start.md"]  # the index has the text of start.md
nitpicky = True

# Markdown
myst_heading_anchors = 4
myst_links_external_new_tab = False

# docstrings
autodoc_default_options = {"members": True, "ignore-module-all": True}  # each name once, where it is defined
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# names of other packages, whose inventories would need a network; and of modules by their usual short names
PACKAGES = [
    "torch",
    "numpy",
    "np",
    "pandas",
    "pd",
    "matplotlib",
    "networkx",
    "nx",
    "PIL",
    "msgspec",
    "starlette",
    "uvicorn",
]
STANDARD = ["collections", "concurrent", "contextlib", "os", "pathlib", "socket", "types", "typing"]
nitpick_ignore_regex = [(r"py:.*", rf"{package}\..*") for package in (*PACKAGES, *STANDARD)]

# appearance: the theme's files lie beside the pages, nothing is loaded from elsewhere
html_theme = "furo"
html_title = "Polypath"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
