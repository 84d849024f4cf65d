"""Check command-line overrides before Hydra sees them: unknown names get the nearest known one.

Hydra says of an unknown key that it is "not in struct" and advises ``+key``, which adds a key
that nothing reads; of an unknown group option it lists the others. Here every override is
compared with what the chosen groups really contain, and one error names the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from deeph_lightning.config.paths import CONF_DIR
from deeph_lightning.config.targets import listed, nearest
from deeph_lightning.config.validate import dotted_keys
from deeph_lightning.errors import ConfigError


def compose_checked(
    config_name: str,
    overrides: Sequence[str],
    *,
    is_multirun: bool = False,
    config_dir: str | None = None,
) -> DictConfig:
    """Check the overrides and return the composed configuration, Hydra's own node included.

    Parameters
    ----------
    config_name
        ``train``, ``predict``, ...
    overrides
        The overrides as typed. Of a sweep, every value is checked and the first is composed.
    is_multirun
        ``-m`` was given, so that comma lists are sweeps.
    config_dir
        A further folder of configuration files (``--config-dir``).

    Raises
    ------
    ConfigError
        An override cannot be parsed, or names an unknown group, option or key.
    """
    with _hydra(config_dir) as loader, _as_config_error():
        parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
        if not is_multirun:
            _refuse_sweeps(parsed)
        choices = _check_groups(parsed, loader)
        known: dict[str, str] = {}
        for selection in _selections(choices):
            known |= dict(dotted_keys(compose(config_name, selection)))
        _check_keys(parsed, known, _groups(loader))
        return compose(config_name, [_first(o) for o in parsed], return_hydra_config=True)


@contextmanager
def _hydra(config_dir: str | None) -> Iterator[ConfigLoader]:
    """Set Hydra up as its own `main` does, and put back what was there before."""
    search_path = create_config_search_path(str(CONF_DIR))
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: {folder} is not a folder.", key="--config-dir")
        anchor = SearchPathQuery(provider="schema")
        search_path.prepend(provider="command-line", path=f"file://{folder}", anchor=anchor)
    version.setbase("1.3")
    shared = GlobalHydra.instance()
    before, shared.hydra = shared.hydra, None
    try:
        yield Hydra.create_main_hydra2("check", search_path).config_loader
    finally:
        shared.hydra = before


@contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause = f"\n  {error.__cause__}" if error.__cause__ is not None else ""
        raise ConfigError(f"the configuration cannot be composed: {error}{cause}") from None


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: a list of values is a sweep, which needs -m.\n"
                f"  Sweep: add -m. One list as a value: {override.key_or_group}=[...]",
                key=override.key_or_group,
            )


def _groups(loader: ConfigLoader) -> list[str]:
    return [g for g in loader.list_groups("") if g != "hydra"]


def _is_ours(override: Override) -> bool:
    """Hydra's own keys are left to Hydra."""
    name = override.key_or_group
    return name != "hydra" and not name.startswith(("hydra.", "hydra/"))


def _values(override: Override) -> list[str]:
    """Return every value of an override as it would be typed."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_interval_sweep():
        return [str(override.value().start)]  # type: ignore[union-attr]
    return [str(v) for v in override.sweep_string_iterator()]


def _first(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{str(override.input_line).split('=', 1)[0]}={_values(override)[0]}"


def _check_groups(parsed: Sequence[Override], loader: ConfigLoader) -> dict[str, list[str]]:
    """Return the options that each group override asks for, after checking that they exist."""
    groups = set(_groups(loader))
    choices: dict[str, list[str]] = {}
    for override in parsed:
        group = override.key_or_group
        if group not in groups or not _is_ours(override):
            continue
        if override.type is OverrideType.DEL:
            continue
        options = loader.get_group_options(group, results_filter=ObjectType.CONFIG)
        for value in _values(override):
            for option in value.strip("[]").split(","):
                if option in options or option == "null":
                    continue
                guess = nearest(option, options)
                raise ConfigError(
                    f"{group}={option}: there is no {group} option {option!r}.\n"
                    + (f"  Did you mean {group}={guess[0]}? " if guess else "  ")
                    + f"Options: {listed(options, 30)}.",
                    key=group,
                )
        name = str(override.input_line).split("=", 1)[0]
        choices[group] = [f"{name}={value}" for value in _values(override)]
    return choices


def _selections(choices: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield group overrides such that every option of every group appears once."""
    first = {group: options[0] for group, options in choices.items()}
    yield list(first.values())
    for group, options in choices.items():
        for option in options[1:]:
            yield list((first | {group: option}).values())


def _check_keys(
    parsed: Sequence[Override], known: Mapping[str, str], groups: Sequence[str]
) -> None:
    """Refuse overrides of keys that are not there; `known` maps each key to its kind."""
    values = [key for key, kind in known.items() if kind != "node"] + list(groups)
    for override in parsed:
        key = override.key_or_group
        is_added = override.type in (OverrideType.ADD, OverrideType.FORCE_ADD)
        if key in known or key in groups or is_added or not _is_ours(override):
            continue
        guess = nearest(key, values)
        value = str(override.input_line).split("=", 1)[-1]
        lines = [f"{key} is not a key of this configuration."]
        if guess:
            lines.append(f"  Did you mean {guess[0]}={value}? Nearest: {listed(guess)}.")
        parent, _, name = key.rpartition(".")
        if not parent or parent in known:
            siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
            shown = [n for n in sorted(siblings) if n != "_target_"]
            lines.append(f"  Keys of {parent or 'the top level'}: {listed(shown, 30)}.")
        if parent in known and f"{parent}._target_" not in known and parent not in groups:
            lines.append(f"  To add {name!r} to {parent}: +{key}={value}")
        lines.append("  `--help` lists groups and options, `--cfg job` shows every key.")
        raise ConfigError("\n".join(lines), key=key)
