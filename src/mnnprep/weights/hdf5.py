"""HDF5 files of Keras (``.weights.h5`` and older) as plans: every numeric dataset, by its path.

Format facts (keras/src/saving/saving_lib.py): ``layers/NAME/vars/0`` and so on, the optimizer under
``optimizer/vars``; before Keras 3 ``LAYER/LAYER/kernel:0`` under ``model_weights`` or at the root.  A
contiguous dataset lies at one offset (H5Dget_offset); others are read through h5py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep import deps
from mnnprep.weights import dtypes
from mnnprep.weights.content import Content, damaged
from mnnprep.weights.files import File, Lazy
from mnnprep.weights.hdf5_guard import refuse_outside
from mnnprep.weights.plan import Tensor, stored

if TYPE_CHECKING:
    from h5py import Dataset, Group

MAGIC = b"\x89HDF\r\n\x1a\n"


def read(file: File) -> Content:
    """Nested dictionaries as the groups are.

    Raises:
        RefusedError: the file is damaged or takes data from outside itself, or h5py is not installed.
    """
    deps.require("h5py")
    import h5py

    tensors: dict[str, Tensor] = {}
    left: list[tuple[str, str]] = []
    try:
        book = h5py.File(file.stream(), "r")
        refuse_outside(book, file.name, file.size)

        def visit(path: str, node: Dataset | Group) -> None:
            if isinstance(node, h5py.Dataset):
                tensor = _tensor(file, path, node)
                if tensor is None:
                    left.append((path, "not numeric"))
                else:
                    tensors[path] = tensor

        book.visititems(visit)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise damaged(file.name, file.size, error) from error
    tree = {path.removeprefix("model_weights/"): tensor for path, tensor in tensors.items()}
    return Content(tree, "Keras HDF5", left_out=tuple(left))


def _tensor(file: File, path: str, node: Dataset | Group) -> Tensor | None:
    dtype = node.dtype.newbyteorder("=").name if node.dtype.kind in "fiubc" else ""
    if not dtypes.known(dtype) or node.shape is None:
        return None
    shape = tuple(int(n) for n in node.shape)
    offset = node.id.get_offset() if node.dtype.isnative else None
    if offset is not None:
        return stored(dtype, shape, file, int(offset))
    size = dtypes.byte_size(dtype, Tensor(dtype, shape, ()).elements)
    return stored(
        dtype, shape, Lazy(f"{file.name}:{path}", size, lambda: node[()].astype(dtype).tobytes()), 0
    )
