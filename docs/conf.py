"""Settings of the documentation site: ``make docs``."""

project = "jaxunlearn"
author = "the authors of jaxunlearn"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
html_theme = "furo"
html_title = "jaxunlearn"
autodoc_member_order = "bysource"
# A room gives what its modules hold.
autodoc_default_options = {"members": True, "imported-members": True}
napoleon_use_ivar = True  # attributes are described once, in the class's docstring
