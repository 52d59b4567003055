import sys

from evaluation.opinfo.run import main

if __name__ == "__main__":
    sys.exit(main())
