"""The bundle: what `prepare` writes, and how it is read back, proven again and shown."""
