"""Loss functions with hand-derived forward, backward and second derivative.

The Modules of :mod:`manual_grad.modules`, which are also available here, and the functions of
:mod:`manual_grad.functional` have torch's names and signatures. ``python -m manual_grad list`` describes each of them.
"""

from manual_grad import functional
from manual_grad.kernels import show_config
from manual_grad.modules import *  # noqa: F403
from manual_grad.modules import __all__ as _modules
from manual_grad.patching import patch

__version__ = "0.1.0"

__all__ = ["functional", "patch", "show_config"]
__all__ += _modules
