"""``python -m evaluation.fuzz``."""

import sys

from evaluation.fuzz.run import main

if __name__ == "__main__":
    sys.exit(main())
