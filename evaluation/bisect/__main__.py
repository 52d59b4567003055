"""``python -m evaluation.bisect``."""

import sys

from evaluation.bisect.run import main

if __name__ == "__main__":
    sys.exit(main())
