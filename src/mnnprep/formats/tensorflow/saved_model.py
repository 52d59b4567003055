"""Loading a SavedModel: one of its signatures."""

from __future__ import annotations

from pathlib import Path

from mnnprep.deps import require
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.formats.tensorflow import effects
from mnnprep.formats.tensorflow.loaded import Loaded, from_function, specs_of
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs, Source
from mnnprep.safety.error_text import message


def load_savedmodel(source: Source, wants: InputSpecs) -> Loaded:
    """One signature of a SavedModel.

    Raises:
        RefusedError: TensorFlow can't load it or it has no signature.
        UsageError: the signature is unknown.
    """
    tf = require("tensorflow")
    try:
        if not source.trust:
            effects.refuse(effects.of_saved_model(source.path))
        model = tf.saved_model.load(source.path)
    except MnnprepError:
        raise
    except Exception as error:  # NotFoundError, OSError, and what Python functions in the graph raise
        raise RefusedError(
            "TensorFlow can't load this SavedModel",
            seen=message(error),
            next="load it with tf.saved_model.load where it was made",
        ) from error
    signatures = dict(model.signatures)
    if not signatures:
        raise RefusedError(
            "the SavedModel has no signature",
            seen=Path(source.path).name,
            next=(
                "save it with one: tf.saved_model.save(model, path,"
                " signatures=model.__call__.get_concrete_function(...)), or model.export(path)"
            ),
        )
    name = source.signature or ("serving_default" if "serving_default" in signatures else "")
    if name not in signatures:
        told = (
            f"the SavedModel has no signature {name}"
            if name
            else "the SavedModel has no signature serving_default"
        )
        raise UsageError(
            told,
            seen=", ".join(signatures),
            next="choose one: " + ", ".join(f"--signature {s}" for s in signatures),
        )
    function = signatures[name]
    keywords = list(function._arg_keywords)
    outputs = sorted(function.structured_outputs)
    tensors = function.inputs[: len(keywords)]

    def call(arrays: Arrays) -> Arrays:
        made = function(**{n: tf.constant(arrays[n]) for n in keywords})
        return {n: made[n].numpy() for n in outputs}

    return from_function(
        function, keywords, outputs, specs_of(zip(keywords, tensors, strict=True), wants), call, keep=model
    )
