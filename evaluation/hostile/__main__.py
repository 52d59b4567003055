"""``python -m evaluation.hostile``."""

import sys

from evaluation.hostile.run import main

if __name__ == "__main__":
    sys.exit(main())
