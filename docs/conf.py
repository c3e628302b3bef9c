"""Sphinx configuration of the site; build it with ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402

import manual_grad  # noqa: E402

torch.set_num_threads(1)  # the site is built by several processes, which share the cores

project = "manual_grad"
author = "manual_grad contributors"
version = release = manual_grad.__version__
project_copyright = author

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.githubpages", "myst_nb", "extension"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|collections|typing|os|contextlib)\..*"),  # their documentation is not available offline
    # aliases of long types, and what has no page of its own
    (r"py:.*", r"(optional|Call|Sample|Arguments|Tensor|Compared|Regime|Listener)"),
    (r"py:.*", r".*\.(Tensor|Sample|Arguments|Compared|LinearLogProb|LogProbAndEntropy)"),
]

autodoc_typehints = "signature"
autodoc_use_type_comments = False
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_numpy_docstring = False

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
nb_execution_mode = "off"  # notebooks are committed with their output

html_theme = "furo"
html_title = "manual_grad"
html_math_renderer = "mathml"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c8f", "color-brand-content": "#0b5c8f"},
    "dark_css_variables": {"color-brand-primary": "#6cb8e8", "color-brand-content": "#6cb8e8"},
    "top_of_page_buttons": [],
}
