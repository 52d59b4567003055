import sys

from evaluation.random_graphs.run import main

if __name__ == "__main__":
    sys.exit(main())
