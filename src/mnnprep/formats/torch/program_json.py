"""The JSON of an exported program, judged before torch reads it.

torch's reader trusts what it reads (torch/_export/serde/serialize.py): it follows a node's target by
attributes from the module ``torch`` (``torch.os.system``), evaluates sizes as Python by ``sympy.sympify`` and
guards by ``exec``, imports what the structure of the inputs names, and writes names into the source of a
function that it then compiles. So each of these has to be of a form that is known: targets from the list of
operators, arithmetic on symbols, plain containers, identifiers.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from mnnprep.formats.torch import operators

_TARGET = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\.\w+)?")
_HIGHER_ORDER = frozenset(
    {
        "cond",
        "while_loop",
        "scan",
        "map_impl",
        "associative_scan",
        "wrap_with_set_grad_enabled",
        "wrap_with_autocast",
    }
)


def _words(text: str, prefix: str = "") -> frozenset[str]:
    return frozenset(prefix + word for word in text.split())


_PYTHON = (
    _words(
        "add sub mul truediv floordiv mod pow neg pos eq ne lt le gt ge and_ or_ xor not_ invert lshift"
        " rshift abs getitem index",
        prefix="_operator.",
    )
    | _words(
        "ceil floor trunc sqrt exp log log2 log10 cos cosh sin sinh tan tanh acos asin atan atan2 pow fabs",
        prefix="math.",
    )
    | _words(
        "sym_int sym_float sym_max sym_min sym_not sym_ite sym_sqrt sym_sum sym_fresh_size _sym_sqrt",
        prefix="torch.",
    )
)

# sympy's own nodes, and those that torch adds (torch/utils/_sympy/functions.py).
_FUNCTIONS = _words(
    "Symbol Integer Float Rational Mul Add Pow Max Min Mod Abs Not And Or Xor Eq Ne Lt Le Gt Ge Equality"
    " Unequality StrictLessThan StrictGreaterThan LessThan GreaterThan FloorDiv ModularIndexing Where"
    " PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv"
    " IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat"
    " Identity floor ceiling sqrt"
)
_GROWING = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_NAMES = frozenset({"true", "false", "oo", "int_oo", "inf"})
_GUARD_METHODS = frozenset({"size", "shape", "stride", "storage_offset", "dtype", "item", "dim", "ndim"})
_OPERATORS = (
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.USub,
    ast.UAdd,
    ast.Not,
    ast.And,
    ast.Or,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.Load,
)
_EXPRESSIONS = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.keyword)
_LONGEST = 20_000  # characters of one expression
_LARGEST = 1 << 64

_CONTAINERS = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", "collections.deque"}
)
_KEY = re.compile(r"[\w.\-/: ]*")
_WORDS = re.compile(r"(?!.*__)[\w.]*|__\w+__|\w*")
# Fields whose values become part of Python source, or attributes that are set
# (torch/_export/serde/schema.py).
_IDENTIFIERS = frozenset({"name", "as_name", "user_input_name", "forward_arg_names"})
_PATHS = frozenset({"parameter_name", "buffer_name", "tensor_constant_name", "fqn"})
_OBJECTS = frozenset({"as_custom_obj", "as_opaque", "custom_obj", "custom_obj_values"})
_VALUES = frozenset({"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"})


def program_faults(text: bytes) -> Iterator[str]:
    """Name what isn't allowed in the JSON *text* of an exported program.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep.
    """
    program = json.loads(text)
    if not isinstance(program, dict):
        raise ValueError("it is not an object")
    stack: list[tuple[str, Any]] = [("", program)]
    while stack:
        key, value = stack.pop()
        yield from filter(None, _faults(key, value))
        if isinstance(value, dict):
            if key in _VALUES:
                yield from (f"the name {name!r:.80}" for name in value if not name.isidentifier())
            if key == "range_constraints":
                yield from filter(None, (_expression_fault(name, guard=False) for name in value))
            if key not in ("metadata", "guards_code"):
                stack += list(value.items())
        elif isinstance(value, list):
            stack += [(key, member) for member in value]


def _faults(key: str, value: object) -> Iterator[str]:
    if key in ("target", "as_operator") and isinstance(value, str):
        yield _target_fault(value)
    elif key == "expr_str":
        yield _expression_fault(value, guard=False)
    elif key == "guards_code" and isinstance(value, str):
        yield _expression_fault(value, guard=True)
    elif key in ("in_spec", "out_spec") and isinstance(value, str) and value:
        yield from _structure_faults(value, called=key == "in_spec")
    elif key in _OBJECTS and value:
        yield "an object of a class of its own"
    elif key == "treespec_namedtuple_fields" and value:
        yield from (
            f"the name {name!r:.80}"
            for name in re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(value))
            if not _WORDS.fullmatch(name)
        )
    elif (key in _IDENTIFIERS and isinstance(value, str) and value and not value.isidentifier()) or (
        key in _PATHS and isinstance(value, str) and not _WORDS.fullmatch(value)
    ):
        yield f"the name {value!r:.80}"


def _target_fault(target: str) -> str:
    if target in _PYTHON:
        return ""
    found = _TARGET.fullmatch(target)
    if found and found[1] == "higher_order" and not found[3]:
        known = found[2] in _HIGHER_ORDER
    else:
        known = bool(found) and f"{found[1]}::{found[2]}" in operators.allowed()  # type: ignore[index]
    return "" if known else f"the operator {target:.80}"


def _expression_fault(text: object, *, guard: bool) -> str:
    """Say what is wrong with a size (or with a *guard*), empty if it is arithmetic.

    A guard may also look at the inputs.
    """
    shown = f"the expression {text!r:.80}"
    if not isinstance(text, str) or len(text) > _LONGEST or not text.isascii() or "\n" in text:
        return shown
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return shown
    growing = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _GROWING:
            growing += 1
        if not (_guard_part(node) if guard else False) and not _arithmetic(node):
            return shown
    return shown if growing > 1 else ""


def _arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            return False
        return node.func.id not in _GROWING or _small(node.args[-1] if node.args else None)
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or node.id in _NAMES or bool(re.fullmatch(r"[a-z_]{1,12}\d+", node.id))
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return bool(re.fullmatch(r"\w{0,60}|[-+.\de]{1,40}", node.value))
        return node.value is None or (isinstance(node.value, int | float) and abs(node.value) < _LARGEST)
    return isinstance(node, (*_EXPRESSIONS, *_OPERATORS))


def _small(exponent: ast.expr | None) -> bool:
    """Whether a power's exponent is a number of at most two digits, or a symbol, which stays unevaluated."""
    if isinstance(exponent, ast.Call) and isinstance(exponent.func, ast.Name):
        if exponent.func.id == "Symbol":
            return True
        exponent = (
            exponent.args[0]
            if exponent.func.id in ("Integer", "Rational", "Float") and exponent.args
            else None
        )
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    if not isinstance(exponent, ast.Constant):
        return False
    return isinstance(exponent.value, int | float) and abs(exponent.value) < 100


def _guard_part(node: ast.AST) -> bool:
    """Whether *node* is of what only guards have: ``L['x']['k'].size()[0]``."""
    if isinstance(node, ast.Call):
        return (
            isinstance(node.func, ast.Attribute)
            and not node.keywords
            and all(isinstance(a, ast.Constant) for a in node.args)
        )
    if isinstance(node, ast.Attribute):
        return node.attr in _GUARD_METHODS
    if isinstance(node, ast.Name):
        return node.id == "L"
    return isinstance(node, ast.Subscript)


def _structure_faults(text: str, *, called: bool) -> Iterator[str]:
    """Name the faults of the structure of inputs or outputs (torch/utils/_pytree.py: ``treespec_dumps``).

    Of what is *called* the outermost keys are keywords, which become parameters of a function.
    """
    shown = f"the structure {text!r:.80}"
    try:
        version, root = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        yield shown
        return
    stack = [root] if version == 1 else [None]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict) or not isinstance(node.get("children_spec"), list):
            yield shown
            return
        if node.get("type") not in _CONTAINERS:
            yield f"a structure of the type {node['type']!r:.80}"
        context = node.get("context")
        if not _plain(context, identifiers=called and node in root.get("children_spec", ())):
            yield f"a structure with the keys {context!r:.80}"
        stack += node["children_spec"]


def _plain(context: object, *, identifiers: bool) -> bool:
    """Whether a container's own description is plain.

    It is a list of plain keys (or of *identifiers*), a number or nothing.
    """
    try:
        keys = json.loads(context) if isinstance(context, str) else context
    except (ValueError, RecursionError):
        return False
    if keys is None or isinstance(keys, int):
        return True
    if not isinstance(keys, list):
        return False
    if identifiers:
        return all(isinstance(k, str) and k.isidentifier() for k in keys)
    return all(isinstance(k, int) or (isinstance(k, str) and bool(_KEY.fullmatch(k))) for k in keys)
