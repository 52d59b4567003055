"""Loading a TensorFlow source of any kind."""

from __future__ import annotations

import sys

from mnnprep.deps import require
from mnnprep.formats.tensorflow.factory_source import load_factory
from mnnprep.formats.tensorflow.graph_files import load_checkpoint, load_graph
from mnnprep.formats.tensorflow.keras_files import load_keras
from mnnprep.formats.tensorflow.loaded import Loaded
from mnnprep.formats.tensorflow.saved_model import load_savedmodel
from mnnprep.model.messages import InputSpecs, Source


def load(source: Source, wants: InputSpecs) -> Loaded:
    """Load *source* on one thread of the CPU.

    Raises:
        UsageError: the call does not fit the source.
        RefusedError: the source can't be taken.
    """
    tf = require("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.get_logger().setLevel("ERROR")
    for entry in reversed(source.search_path):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    if source.kind == "savedmodel":
        return load_savedmodel(source, wants)
    if source.kind in ("keras", "keras-h5"):
        return load_keras(source, wants)
    if source.kind == "tf-factory":
        return load_factory(source, wants)
    return load_checkpoint(source, wants) if source.kind == "tf-checkpoint" else load_graph(source, wants)
