"""``python -m evaluation.quantized [--only TEXT] [--keep DIR]``: the table of quantized nets.

The files are made first, in a process of their own, since TensorFlow stays out of this one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from evaluation.quantized.run import run, table

parser = argparse.ArgumentParser(prog="python -m evaluation.quantized", description=__doc__)
parser.add_argument("--only", default="", help="part of a file's name: the others are left out")
parser.add_argument("--keep", default="", help="a directory for the files, used again if they are there")
options = parser.parse_args()

with TemporaryDirectory() as temporary:
    directory = options.keep or temporary
    command = [sys.executable, "-m", "evaluation.quantized.make", directory]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    sys.stdout.write(f"{table(run([Path(f) for f in made if options.only in Path(f).name]))}\n")
