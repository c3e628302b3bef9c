"""``python -m gradcheck``: see :mod:`gradcheck.cli`."""

import sys

try:
    from gradcheck import check  # noqa: F401 - the first import that needs more than torch
except ImportError as error:
    sys.exit(str(error))

from gradcheck.cli import main

if __name__ == "__main__":
    sys.exit(main(fresh=True))
