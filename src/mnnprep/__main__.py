"""``python -m mnnprep``."""

from mnnprep.cli.main import main

main()
