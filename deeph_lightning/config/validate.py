"""Checks of a composed configuration, before anything is opened or written.

Every node with `_target_` is compared with the signature of its class, all values that are
still ``???`` are reported at once, and the plain keys go through a pydantic model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deeph_lightning.config.targets import check_node, listed, nearest
from deeph_lightning.errors import ConfigError

# arguments that the program supplies when it builds the object of a node
SUPPLIED: dict[str, tuple[str, ...]] = {
    "model": ("basis", "r_target"),
    "loss": ("basis",),
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "trainer": ("callbacks", "logger", "plugins", "default_root_dir"),
}
# keys of a node that the program reads itself
ALSO: dict[str, tuple[str, ...]] = {
    "trainer": ("num_threads", "matmul_precision"),
}


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TrainConfig(_Plain):
    """Top-level keys of ``conf/train.yaml``."""

    data: dict[str, Any]
    model: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    trainer: dict[str, Any]
    callbacks: dict[str, Any]
    logger: dict[str, Any]
    report: dict[str, Any]
    paths: dict[str, str]
    task_name: str
    seed: int = Field(ge=0, lt=2**32)
    ckpt: str | None
    init_from: str | None
    monitor: str
    tags: list[str]
    test: bool
    reraise: bool

    @model_validator(mode="after")
    def _one_start(self) -> TrainConfig:
        if self.ckpt is not None and self.init_from is not None:
            raise ValueError(
                "ckpt (go on with a run) and init_from (start anew from its weights) exclude "
                "each other; drop one"
            )
        return self


class PredictConfig(_Plain):
    """Keys of ``conf/predict.yaml``."""

    checkpoint: str | list[str]
    structure: str | list[str]
    output: str
    overlap: str | None
    orbitals: str | list[str] | None
    precision: str = Field(pattern="^(fp32|fp64)$")
    device: str
    chunk: int = Field(ge=1)
    parts: int = Field(ge=1)
    estimate: bool
    overwrite: bool
    num_threads: int | None = Field(ge=1)
    reraise: bool


class BuildConfig(_Plain):
    """Keys of ``conf/build.yaml``."""

    kind: Literal["twisted_bilayer"]
    m: int = Field(ge=1)
    r: int = Field(ge=1)
    lower: str | None
    upper: str | None
    spacing: float = Field(gt=0)
    vacuum: float = Field(gt=0)
    max_strain: float = Field(ge=0, lt=0.2)
    calculator: str | None
    calculator_options: dict[str, Any]
    fmax: float = Field(gt=0)
    n_steps: int = Field(ge=1)
    output: str
    reraise: bool


class GenerateConfig(_Plain):
    """Keys of ``conf/generate.yaml``."""

    engine: dict[str, Any]
    sampler: dict[str, Any]
    cluster: dict[str, Any]
    structure: str | list[str]
    n: int = Field(ge=1)
    output: str
    seed: int = Field(ge=0)
    min_distance: float = Field(ge=0)
    max_draws: int = Field(ge=1)
    retry_unconverged: bool
    keep_files: bool
    reraise: bool


class EvaluateConfig(_Plain):
    """Keys of ``conf/evaluate.yaml``."""

    checkpoint: str
    data: dict[Literal["root"], str]
    output: str
    split: str | None = Field(pattern="^(train|val|test)$")
    report: dict[str, Any]
    precision: str = Field(pattern="^(fp32|fp64)$")
    device: str
    num_threads: int | None = Field(ge=1)
    reraise: bool


class SolveConfig(_Plain):
    """Keys of ``conf/solve.yaml``."""

    task: Literal["bands", "density_matrix", "dos", "effective_mass", "fermi", "gap"]
    input: str
    output: str
    structure: str | None
    hamiltonian: Literal["H", "H_pred"]
    compare: str | None
    compare_hamiltonian: Literal["H", "H_pred"]
    labels: list[str] = Field(min_length=2, max_length=2)
    overlap: str | None
    n_electrons: float | None = Field(gt=0)
    kgrid: list[Annotated[int, Field(ge=1)]] | None = Field(min_length=3, max_length=3)
    k_spacing: float = Field(gt=0)
    n_k_min: int = Field(ge=1)
    smearing_eV: float = Field(gt=0)
    kpath: str | None
    n_point: int = Field(ge=2)
    window_eV: list[float] = Field(min_length=2, max_length=2)
    near_eV: float = Field(gt=0)
    project: Literal["element", "orbital", "atom", "magnetic"] | None
    velocities: bool
    overlap_threshold: float = Field(ge=0)
    solver: Literal["auto", "dense", "sparse"]
    dense_max: int = Field(ge=1)
    n_states: int | None = Field(ge=1)
    factorisation: Literal["auto", "pardiso", "mumps", "superlu"]
    factor_precision: Literal["auto", "double", "single"]
    memory_GB: float | None = Field(gt=0)
    method: Literal["auto", "gaussian", "tetrahedron", "kpm"]
    width_eV: float = Field(gt=0)
    n_energy: int = Field(ge=2)
    n_moments: int = Field(ge=2)
    n_vectors: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    k: list[float] | None = Field(min_length=3, max_length=3)
    band: int | None
    html: bool
    export: list[Literal["ase", "pymatgen", "wannier90"]]
    n_jobs: int
    reraise: bool

    @model_validator(mode="after")
    def _in_order(self) -> SolveConfig:
        if not self.window_eV[0] < self.window_eV[1]:
            raise ValueError(f"window_eV = {self.window_eV}: the lower energy comes first")
        if self.n_jobs == 0:
            raise ValueError("n_jobs = 0: give the number of processes, or -1 for every core")
        return self


def dotted_keys(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every dotted key and its kind: ``node``, ``value`` or ``missing`` (``???``).

    Interpolations are not resolved: some can be only once the program runs.
    """
    for name in map(str, node):
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name):
            yield key, "missing"
            continue
        child = None if OmegaConf.is_interpolation(node, name) else node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            yield key, "node"
            yield from dotted_keys(child, f"{key}.")
        else:
            yield key, "value"


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain containers, every interpolation resolved.

    Raises
    ------
    ConfigError
        Values that are still ``???``, all of them, each with the option that supplies it; or
        an interpolation that cannot be resolved.
    """
    missing = [key for key, kind in dotted_keys(cfg) if kind == "missing"]
    if missing:
        options = " ".join(f"{key}=VALUE" for key in missing)
        raise ConfigError(
            f"{listed(missing)}: no value is given.\n  Add on the command line: {options}",
            key=missing[0],
        )
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}",
            key=error.full_key,
        ) from None
    return {str(key): value for key, value in plain.items()}  # type: ignore[union-attr]


def check_train(config: Mapping[str, Any]) -> None:
    """Check a resolved training configuration.

    Raises
    ------
    ConfigError
        An unknown or missing key, an argument that a class does not have, a value out of range,
        a data set that does not exist.
    """
    _check_plain(TrainConfig, config)
    for name in ("model", "loss", "optimizer", "scheduler", "trainer", "data", "report"):
        check_node(
            config[name], key=name, supplied=SUPPLIED.get(name, ()), also=ALSO.get(name, ())
        )
    for group in ("callbacks", "logger"):
        _check_named_nodes(config[group], group)
    _check_data_root(config["data"])


def check_predict(config: Mapping[str, Any]) -> None:
    """Check a resolved prediction configuration; see `check_train`."""
    _check_plain(PredictConfig, config)


def check_build(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration of a structure to build; see `check_train`."""
    _check_plain(BuildConfig, config)


def check_generate(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration of a generator; see `check_train`."""
    _check_plain(GenerateConfig, config)
    for name in ("engine", "cluster"):
        check_node(config[name], key=name)
    _check_named_nodes(config["sampler"], "sampler")


def check_evaluate(config: Mapping[str, Any]) -> None:
    """Check a resolved evaluation configuration; see `check_train`."""
    _check_plain(EvaluateConfig, config)
    check_node(config["report"], key="report")
    _check_data_root(config["data"])


def check_solve(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration of a solver; see `check_train`."""
    _check_plain(SolveConfig, config)


def _check_named_nodes(nodes: Mapping[str, Any], group: str) -> None:
    """Check the nodes of a group whose options add up, such as callbacks."""
    for name, node in nodes.items():
        if node is None:  # removed by callbacks.NAME=null
            continue
        if not isinstance(node, Mapping):
            raise ConfigError(
                f"{group}.{name} = {node!r}: expected a node with _target_, or null to "
                f"remove it.",
                key=f"{group}.{name}",
            )
        check_node(node, key=f"{group}.{name}")


def _check_data_root(node: Mapping[str, Any]) -> None:
    root = node.get("root")
    if isinstance(root, str) and not Path(root).expanduser().exists():
        raise ConfigError(
            f"data.root = {root}: there is no such file or folder.\n"
            "  The shipped set (data=graphene) is part of the repository: run in a checkout,\n"
            "  or point to your own DeepH folders: data=folder data.root=/path/to/folders",
            key="data.root",
        )


def _check_plain(schema: type[BaseModel], config: Mapping[str, Any]) -> None:
    try:
        schema.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(_plain_message(key, first, schema.model_fields), key=key) from None


def _plain_message(key: str, error: Any, known: Iterable[str]) -> str:
    if error["type"] == "extra_forbidden":
        guess = nearest(key, known)
        return (
            f"{key} is not a key of this configuration.\n"
            + (f"  Nearest: {listed(guess)}. " if guess else "  ")
            + f"Known: {listed(known, 30)}."
        )
    if error["type"] == "missing":
        return f"{key} is missing from the configuration."
    text = re.sub(r"^Value error, ", "", error["msg"])
    if not key:
        return text
    return f"{key} = {error['input']!r}: {text}.\n  Correct it on the command line: {key}=VALUE"
