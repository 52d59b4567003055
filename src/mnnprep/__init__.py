"""mnnprep: from a trained model to a file MNN takes, proven to compute the same thing."""

__version__ = "0.1.0"
