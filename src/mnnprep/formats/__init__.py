"""The frameworks that mnnprep prepares models of, a package each; `registry` holds the tuple of them."""
