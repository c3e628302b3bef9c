"""Loss functions whose forward, backward and second derivative were derived by hand.

The Modules of :mod:`manual_grad.modules`, which are all here too, and the functions of :mod:`manual_grad.functional`
have the names and signatures of torch's. ``python -m manual_grad list`` says what each of them is.
"""

from manual_grad import functional
from manual_grad.kernels import show_config
from manual_grad.modules import *  # noqa: F403
from manual_grad.modules import __all__ as _modules
from manual_grad.patching import patch

__version__ = "0.1.0"

__all__ = ["functional", "patch", "show_config"]
__all__ += _modules
