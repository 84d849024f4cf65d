"""From a node with `_target_` to an object, through an allow-list.

A node is a plain mapping ``{"_target_": "package.module.Name", argument: value, ...}``. The
class or function must live in an allowed package, and the arguments must be its arguments: the
signature is the schema. Checkpoints carry nodes too, so this is also what keeps a foreign
checkpoint from calling anything else.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deeph_lightning.errors import ConfigError

_ALLOWED = ["deeph_lightning.", "torch.optim.", "torch.nn.", "lightning.", "torchmetrics."]
_RESERVED = {"_target_"}
_SCALARS = (bool, int, float, str, type(None))


def register_prefix(prefix: str) -> None:
    """Allow targets of one more package, from code only (a plug-in, a test)."""
    if not prefix.endswith("."):
        raise ConfigError(f"a target prefix ends with a dot: {prefix!r} -> {prefix + '.'!r}")
    if prefix not in _ALLOWED:
        _ALLOWED.append(prefix)


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return the known names that `name` may have meant, best first."""
    known = sorted(set(known))
    found = difflib.get_close_matches(name, known, n=n, cutoff=0.6)
    if not found:
        # a key written without its group, or with another one: `lr` for `optimizer.lr`
        leaf = name.rsplit(".", 1)[-1]
        found = [
            k
            for k in known
            if difflib.get_close_matches(leaf, [k.rsplit(".", 1)[-1]], n=1, cutoff=0.75)
        ][:n]
    return found


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Join names for a message, cut with a count."""
    names = list(names)
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def locate(target: object, *, key: str) -> Callable[..., Any]:
    """Import the class or function that `_target_` names.

    Raises
    ------
    ConfigError
        The name is outside the allowed packages or does not exist.
    """
    if not isinstance(target, str) or not target.startswith(tuple(_ALLOWED)):
        raise ConfigError(
            f"{key}._target_ = {target!r} is not in an allowed package.\n"
            f"  Allowed: {listed(p + '*' for p in _ALLOWED)}. "
            "Code of your own joins by deeph_lightning.config.targets.register_prefix.",
            key=f"{key}._target_",
        )
    found = _import(target, key)
    # a name can be reached through another package (torch.nn.torch.load): judge the origin
    home = f"{getattr(found, '__module__', '')}."
    if not callable(found) or not home.startswith(tuple(_ALLOWED)):
        raise ConfigError(
            f"{key}._target_ = {target!r} is not a class or function of an allowed package "
            f"(it is defined in {home[:-1] or 'no module'}).\n"
            f"  Allowed: {listed(p + '*' for p in _ALLOWED)}.",
            key=f"{key}._target_",
        )
    return typing.cast("Callable[..., Any]", found)


def _import(target: str, key: str) -> object:
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # a missing third-party package is its own error, not a misspelt target
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigError(
            f"{key}._target_ = {target!r}: there is no module {error.name!r}.\n"
            "  Correct the name, or install the package that has it.",
            key=f"{key}._target_",
        ) from None
    if not hasattr(module, name):
        guess = nearest(name, (n for n in vars(module) if not n.startswith("_")))
        raise ConfigError(
            f"{key}._target_ = {target!r}: {module_name} has no {name!r}."
            + (f"\n  Nearest: {listed(guess)}." if guess else ""),
            key=f"{key}._target_",
        )
    return getattr(module, name)


def check_node(
    node: Mapping[str, Any],
    *,
    key: str,
    supplied: Iterable[str] = (),
    also: Iterable[str] = (),
) -> None:
    """Compare the keys of one node with the signature of its target.

    Parameters
    ----------
    node
        Plain mapping with `_target_`.
    key
        Dotted place of the node in the configuration, for messages.
    supplied
        Arguments that the program adds when it builds the object.
    also
        Further keys of the node that the program reads itself.

    Raises
    ------
    ConfigError
        An unknown argument, a missing one, or a scalar of the wrong type.
    """
    function = locate(node.get("_target_"), key=key)
    supplied = set(supplied)
    parameters = inspect.signature(function).parameters
    keywords = {
        name: p
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = sorted((set(keywords) - supplied) | set(also))
    for name in node:
        if name in _RESERVED or name in accepted or is_open:
            continue
        guess = nearest(str(name), accepted)
        why = "is set by the program" if name in supplied else "is not an argument"
        raise ConfigError(
            f"{key}.{name} {why} of {function.__name__}.\n"
            + (f"  Nearest: {listed(guess)}. " if guess else "  ")
            + f"Accepted: {listed(accepted, 30)}.\n"
            f"  Fix conf/{key.split('.')[0]}/ or the command line.",
            key=f"{key}.{name}",
        )
    missing = [
        name
        for name, p in keywords.items()
        if p.default is p.empty and name not in node and name not in supplied
    ]
    if missing:
        raise ConfigError(
            f"{key}: {function.__name__} needs {listed(missing)}, which the configuration does "
            f"not give.\n  Add it on the command line: +{key}.{missing[0]}=VALUE",
            key=f"{key}.{missing[0]}",
        )
    _check_scalars(function, node, key)


def _check_scalars(function: Callable[..., Any], node: Mapping[str, Any], key: str) -> None:
    """Refuse a scalar that its annotation does not allow (`l_max: four`)."""
    call = function.__init__ if inspect.isclass(function) else function
    try:
        hints = typing.get_type_hints(call)
    except (NameError, TypeError, AttributeError):
        return  # annotations that cannot be evaluated say nothing
    parameters = inspect.signature(function).parameters
    for name, value in node.items():
        if name not in hints or name not in parameters or not isinstance(value, _SCALARS):
            continue
        if value is None and parameters[name].default is None:
            continue
        members = _members(hints[name])
        if any(_allows(member, value) for member in members):
            continue
        expected = " or ".join(getattr(m, "__name__", str(m)) for m in members)
        raise ConfigError(
            f"{key}.{name} = {value!r} is of type {type(value).__name__}, expected "
            f"{expected.replace('NoneType', 'null')}.\n"
            f"  Correct it on the command line: {key}.{name}=VALUE",
            key=f"{key}.{name}",
        )


def _members(hint: object) -> tuple[object, ...]:
    """Return the alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(m for part in typing.get_args(hint) for m in _members(part))
    return (hint,)


def _allows(member: object, value: object) -> bool:
    """Whether a scalar may be given for one alternative; what cannot be told is allowed."""
    if typing.get_origin(member) is typing.Literal:
        return value in typing.get_args(member)
    kind = typing.get_origin(member) or member
    if not isinstance(kind, type):
        return True
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def build(node: Mapping[str, Any], *, key: str, **extra: Any) -> Any:
    """Build the object that a node describes; nested nodes are built first.

    Parameters
    ----------
    node
        Plain mapping with `_target_`.
    key
        Dotted place of the node in the configuration, for messages.
    extra
        Arguments that the program supplies.
    """
    check_node(node, key=key, supplied=extra)
    function = locate(node["_target_"], key=key)
    arguments = {
        name: _build_nested(value, f"{key}.{name}")
        for name, value in node.items()
        if name not in _RESERVED
    }
    return function(**arguments, **extra)


def _build_nested(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, key=key)
        return {name: _build_nested(v, f"{key}.{name}") for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_build_nested(v, f"{key}.{n}") for n, v in enumerate(value)]
    return value
