"""``python -m evaluation.phone``."""

import sys

from evaluation.phone.run import main

if __name__ == "__main__":
    sys.exit(main())
