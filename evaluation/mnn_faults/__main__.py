import sys

from evaluation.mnn_faults.page import main

if __name__ == "__main__":
    sys.exit(main())
