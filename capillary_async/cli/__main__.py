"""`python -m capillary_async.cli` is `capillary-async`."""

import sys

from capillary_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
