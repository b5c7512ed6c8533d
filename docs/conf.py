"""How Sphinx makes the documentation: `sphinx-build -n -W docs build/docs`, without a network."""

from gradcheck import __version__

project = "gradcheck"
author = "The gradcheck developers"
copyright = "The gradcheck developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"gradcheck {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_use_rtype = False
napoleon_use_ivar = True
# Names of other packages have their own documentation, which is not looked up while this is made.
default_role = "code"
nitpick_ignore_regex = [("py:.*", ".*")]
