"""``python -m evaluation.faults``."""

import sys

from evaluation.faults.run import main

if __name__ == "__main__":
    sys.exit(main())
