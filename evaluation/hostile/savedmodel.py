"""SavedModels and TF1 checkpoints whose initializers, assets, resources and restore operations reach beyond
them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from evaluation.hostile.case import Canary, field, hostile, relative
from evaluation.hostile.graphdef import PLACEHOLDER, after, graph_bytes, node, saved_model, text
from evaluation.hostile.tensorflow_files import checkpoint, looked_up


def collection(name: str, *nodes: str) -> bytes:
    return field(4, [field(1, name), field(2, [field(1, [field(1, n) for n in nodes])])])


for _key in ("saved_model_main_op", "legacy_init_op"):

    @hostile(
        "savedmodel", "init", _key, "an operation that loading runs, and that writes", control="savedmodel"
    )
    def _(canary: Canary, key: str = _key) -> Path:
        nodes = [
            PLACEHOLDER,
            text("f", canary.written),
            text("t", "x"),
            node("init", "WriteFile", ["f", "t"]),
            *after(),
        ]
        return saved_model(canary, nodes, collections=collection(key, "init"))


@hostile("savedmodel", "init", "table-initializer", "a table initializer that writes", control="savedmodel")
def _(canary: Canary) -> Path:
    nodes = [
        PLACEHOLDER,
        text("f", canary.written),
        text("t", "x"),
        node("init", "WriteFile", ["f", "t"]),
        *after(),
    ]
    return saved_model(canary, nodes, collections=collection("table_initializer", "init"))


def asset(canary: Canary, name: str) -> Path:
    """A SavedModel that reads an asset of this name into its output."""
    info = field(1, [field(1, "f:0")]) + field(2, name)
    any_info = field(1, "type.googleapis.com/tensorflow.AssetFileDef") + field(2, info)
    collections = field(4, [field(1, "saved_model_assets"), field(2, [field(5, [field(1, any_info)])])])
    nodes = [PLACEHOLDER, text("f", "none"), *looked_up()]
    return saved_model(
        canary,
        nodes,
        collections=collections + collection("saved_model_main_op", "init"),
        assets=field(6, info),
    )


@hostile(
    "savedmodel",
    "assets",
    "parent",
    "an asset with .. in its name, read into an output",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    return asset(canary, relative(canary.secret_text, canary.model / "saved" / "assets"))


@hostile(
    "savedmodel",
    "assets",
    "absolute",
    "an asset with an absolute name, read into an output",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    return asset(canary, canary.secret_text)


@hostile(
    "savedmodel",
    "assets",
    "symlink",
    "an asset that is a link to the secret, read into an output",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    made = asset(canary, "a.txt")
    (made / "assets").mkdir()
    os.symlink(canary.secret_text, made / "assets" / "a.txt")
    return made


@hostile("savedmodel", "assets", "extra-symlink", "variables that are a link to the secrets")
def _(canary: Canary) -> Path:
    made = saved_model(canary, [PLACEHOLDER, *after()])
    checkpoint(canary)
    (made / "variables").mkdir()
    for end in ("index", "data-00000-of-00001"):
        os.symlink(canary.secrets / f"ckpt.{end}", made / "variables" / f"variables.{end}")
    return made


@hostile(
    "savedmodel",
    "init",
    "tf2-initialize",
    "a resource of a TF2 SavedModel whose initializer writes when it is loaded",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    return _tf2(canary, "initialize")


@hostile(
    "savedmodel",
    "init",
    "tf2-restore",
    "a restore function of a TF2 object that writes when it is loaded",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    return _tf2(canary, "restore")


@hostile(
    "savedmodel", "effects", "tf2-function", "a TF2 SavedModel whose signature writes", control="savedmodel"
)
def _(canary: Canary) -> Path:
    return _tf2(canary, "function")


@hostile(
    "savedmodel",
    "effects",
    "tf2-read",
    "a TF2 SavedModel whose signature reads the secret",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    return _tf2(canary, "read")


@hostile(
    "savedmodel",
    "assets",
    "tf2-asset",
    "a TF2 SavedModel with a tracked asset whose name was changed to the secret's",
    control="savedmodel",
)
def _(canary: Canary) -> Path:
    (canary.root / "vocabulary.txt").write_text("a" * 64)
    made = _tf2(canary, "asset")
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # type: ignore[import-not-found]

    saved = SavedModel.FromString((made / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].asset_file_def[0].filename = relative(canary.secret, made / "assets")
    (made / "saved_model.pb").write_bytes(saved.SerializeToString())
    return made


def _tf2(canary: Canary, kind: str) -> Path:
    import tensorflow as tf  # type: ignore[import-not-found]

    class Writer(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc, name-defined]
        def _create_resource(self) -> Any:
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

        def _initialize(self) -> None:
            tf.io.write_file(canary.written, "x")

        def _serialize_to_tensors(self) -> dict[str, Any]:
            return {"a": tf.constant(1.0)}

        def _restore_from_tensors(self, restored: dict[str, Any]) -> Any:
            return tf.io.write_file(canary.written, tf.strings.as_string(restored["a"]))

    made = tf.Module()
    if kind in ("initialize", "restore"):
        made.held = Writer()
        _ = made.held.resource_handle  # makes the resource
    if kind == "asset":
        made.held = tf.saved_model.Asset(str(canary.root / "vocabulary.txt"))

    def call(x: Any) -> dict[str, Any]:
        if kind == "function":
            tf.io.write_file(canary.written, "x")
        if kind in ("read", "asset"):
            name = made.held.asset_path if kind == "asset" else canary.secret
            return {"y": 0 * x + tf.io.decode_raw(tf.io.read_file(name), tf.float32)}
        if kind == "initialize":
            with tf.control_dependencies(
                [tf.raw_ops.LookupTableSizeV2(table_handle=made.held.resource_handle)]
            ):
                return {"y": tf.identity(x)}
        return {"y": tf.identity(x)}

    made.f = tf.function(call, input_signature=[tf.TensorSpec([1, 16], tf.float32, name="x")])
    target = canary.model / "saved"
    tf.saved_model.save(made, str(target), signatures={"serving_default": made.f})
    Path(canary.written).unlink(missing_ok=True)
    return target


@hostile(
    "tf-checkpoint",
    "effects",
    "write-on-restore",
    "a meta graph whose restore operation writes",
    extra=("--outputs", "y"),
)
def _(canary: Canary) -> Path:
    checkpoint(canary)
    for end in ("index", "data-00000-of-00001"):
        (canary.secrets / f"ckpt.{end}").rename(canary.model / f"net.{end}")
    saver = field(1, "f:0") + field(2, "f:0") + field(3, "init")
    nodes = [
        PLACEHOLDER,
        text("f", canary.written),
        text("t", "x"),
        node("init", "WriteFile", ["f", "t"]),
        *after(),
    ]
    path = canary.model / "net.meta"
    path.write_bytes(field(1, [field(4, "train")]) + field(2, graph_bytes(nodes)) + field(3, saver))
    return path


@hostile(
    "tf-checkpoint",
    "effects",
    "linked",
    "a checkpoint whose index and data are links to the secrets",
    extra=("--outputs", "y"),
)
def _(canary: Canary) -> Path:
    checkpoint(canary)
    for end in ("index", "data-00000-of-00001"):
        os.symlink(canary.secrets / f"ckpt.{end}", canary.model / f"net.{end}")
    saver = field(1, "f:0") + field(2, "f:0") + field(3, "f")
    path = canary.model / "net.meta"
    path.write_bytes(
        field(1, [field(4, "train")])
        + field(2, graph_bytes([PLACEHOLDER, text("f", "x"), *after()]))
        + field(3, saver)
    )
    return path
