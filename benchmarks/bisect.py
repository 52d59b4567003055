"""`mnnprep bisect` on planted faults: see bisect_faults.py, which this runs.

    python benchmarks/bisect.py [--faults 100] [--seed 0] [--own 5] [--net NAME]... [--json FILE]

Python has a module of this name, and a script's own directory comes first: whoever imports ``bisect`` beside
here gets Python's.
"""

if __name__ == "__main__":
    import runpy
    import sys

    sys.exit(runpy.run_path(str(__file__).replace("bisect.py", "bisect_faults.py"))["main"]())
else:
    from _bisect import *  # noqa: F403
    from _bisect import bisect_right as bisect  # noqa: F401
    from _bisect import insort_right as insort  # noqa: F401
