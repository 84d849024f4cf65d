"""Look over an installation: ``python -m deeph_lightning.doctor``.

Prints versions, devices, optional packages and data, then runs a self-test of a few seconds.
Every finding that is wrong says what to do; the exit status is 1 if something essential is.
Nothing but the standard library is imported at the start: this must run where little else does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent
#: Optional packages and what they are for.
OPTIONAL = {
    "torch-scatter": "sums over neighbours; pip install --no-build-isolation torch-scatter",
    "tensorboard": "logger=tensorboard; pip install tensorboard",
}
#: Largest relative error of symmetries in float64.
TOLERANCE = 1e-10


class Findings:
    """What was found, printed at once.

    Attributes
    ----------
    n_wrong
        Number of essential things that are wrong.
    """

    def __init__(self) -> None:
        self.n_wrong = 0

    def section(self, title: str) -> None:
        """Begin a section."""
        _print(f"\n{title}")

    def note(self, name: str, text: str) -> None:
        """State a fact."""
        _print(f"  {'':4} {name:20} {text}")

    def check(self, name: str, text: str, *, is_good: bool, advice: str) -> None:
        """State the outcome of an essential check; what to do if it failed."""
        _print(f"  {'ok' if is_good else 'BAD':4} {name:20} {text}")
        if not is_good:
            self.n_wrong += 1
            _print(f"  {'':4} {'':20} -> {advice}")


def main() -> None:
    """Start from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deeph_lightning.doctor",
        description="Print versions, devices and data; run a self-test of a few seconds. "
        "Exit status 1 if something essential is missing or wrong.",
    )
    parser.parse_args()
    findings = Findings()
    check_versions(findings)
    if findings.n_wrong == 0:
        show_devices(findings)
        show_optional(findings)
        check_files(findings)
        check_network(findings)
    else:
        _print("\nDevices, data and self-test need these packages; repeat when they are there.")
    if findings.n_wrong:
        _print(f"\n{findings.n_wrong} essential thing(s) to repair, see '->' above.")
        raise SystemExit(1)
    _print("\nAll is well.")


def check_versions(findings: Findings) -> None:
    """Compare the installed packages with what the package requires."""
    findings.section("Versions")
    findings.note("deeph_lightning", f"{_version()} at {PACKAGE_DIR}")
    findings.check(
        "python",
        f"{platform.python_version()} on {platform.platform()}",
        is_good=sys.version_info >= (3, 11),
        advice="Python 3.11 or newer is needed: make setup PYTHON=python3.11",
    )
    try:
        from packaging.requirements import Requirement
    except ImportError:
        advice = "make setup in a checkout, or: pip install packaging"
        findings.check("packaging", "not installed", is_good=False, advice=advice)
        return
    for requirement in map(Requirement, _requirements()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = None
        is_good = found is not None and requirement.specifier.contains(found, prereleases=True)
        text = found or "not installed"
        findings.check(
            requirement.name,
            text if is_good else f"{text}, needed: {requirement.specifier}",
            is_good=is_good,
            advice=f"make setup in a checkout, or: pip install '{requirement}'",
        )


def show_devices(findings: Findings) -> None:
    """Print processors, memory and GPUs, and how torch will use them."""
    import torch

    findings.section("Devices")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings.note("CPU", f"{_cpu_name()}, {cores} cores, {torch.get_num_threads()} threads")
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        findings.note("memory", f"{total / 2**30:.1f} GiB")
    for n in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(n)
        memory = f"{device.total_memory / 2**30:.1f} GiB"
        findings.note(f"GPU {n}", f"{device.name}, {memory}, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        findings.note("GPU", "none that torch can use")
        if shutil.which("nvidia-smi"):
            findings.note("", "-> there is an NVIDIA driver: this torch is a CPU build, or the")
            findings.note("", "   driver is too old for it; rm -r .venv && make setup")


def show_optional(findings: Findings) -> None:
    """Print the packages that may be missing."""
    findings.section("Optional")
    for name, purpose in OPTIONAL.items():
        try:
            findings.note(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            findings.note(name, f"not installed ({purpose})")
    findings.note("wandb account", "not needed: logger=wandb writes offline")


def check_files(findings: Findings) -> None:
    """Look for the configuration and for the shipped data, and compare its checksum."""
    from deeph_lightning.config.paths import CONF_DIR, shipped

    findings.section("Files")
    findings.check(
        "configuration",
        str(CONF_DIR),
        is_good=(CONF_DIR / "train.yaml").is_file(),
        advice="the installation is not complete; install the package again",
    )
    archive = Path(shipped("data/graphene/graphene.h5"))
    if not archive.is_file():
        findings.note("graphene set", "not here; a checkout of the repository has it")
        findings.note("", "-> other data: data=folder data.root=DIR")
        return
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    stated = re.search(
        rf"^([0-9a-f]{{64}})\s+{archive.name}$",
        (archive.parent / "README.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    findings.check(
        "graphene set",
        f"{archive}, {archive.stat().st_size / 1e6:.1f} MB, sha256 {found[:12]}...",
        is_good=stated is not None and stated[1] == found,
        advice=f"the file is not the one of its README; git checkout {archive}",
    )


def check_network(findings: Findings) -> None:
    """Test symmetries and one training step of ELCT, as configured, on two atoms in float64."""
    import numpy as np
    import torch
    from ase import Atoms
    from omegaconf import OmegaConf

    from deeph_lightning.config.paths import CONF_DIR
    from deeph_lightning.config.targets import build
    from deeph_lightning.data.build import graph_from_structure, operator_from_blocks

    findings.section("Self-test (ELCT, two atoms, float64)")
    start = time.perf_counter()
    basis = {"B": [0, 1], "N": [0, 0, 1, 1, 2]}
    r_target = {"B-B": 4.0, "B-N": 4.0, "N-N": 4.0}
    cell = [[2.6, 0.1, 0.0], [-1.2, 2.3, 0.2], [0.1, 0.0, 4.1]]
    atoms = Atoms("BN", positions=[[0.0, 0.0, 0.0], [0.2, 1.5, 0.3]], cell=cell, pbc=True)
    node = dict(OmegaConf.load(CONF_DIR / "model" / "elct.yaml"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build({**node, "basis": basis, "r_target": r_target}, key="model")
        graph = graph_from_structure(atoms, model.basis, model.r_message, r_target)
        sizes = [model.basis.n_orb(label) for label in atoms.get_chemical_symbols()]
        blocks = [torch.randn(n, n) for n in sizes]
        graph.H_onsite = torch.cat([(block + block.T).flatten() for block in blocks])
        graph.H_hopping = torch.randn(graph.hopping_ptr[-1])
        graph.H_hopping_mask = torch.ones(graph.n_target, dtype=torch.bool)
        model.fit_statistics(lambda: iter([graph]))
        model.double()

    def predict(structure: Atoms):
        bare = graph_from_structure(structure, model.basis, model.r_message, r_target)
        with torch.no_grad():
            return operator_from_blocks(bare, model(bare), model.basis, structure)

    advice = "this is a fault of the installation or of the package; please report this output"
    H = predict(atoms)
    scale = np.abs(H.values).max()
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    errors = {"hermiticity": H.hermiticity_residual()[0] / scale}
    for name, turn in (("rotation", Q * np.sign(np.linalg.det(Q))), ("inversion", -np.eye(3))):
        expected = H.rotated(turn)
        errors[name] = np.abs(predict(expected.atoms).values - expected.values).max() / scale
    for name, error in errors.items():
        findings.check(
            name,
            f"largest error {error:.1e} of max |H|, at most {TOLERANCE:.0e}",
            is_good=bool(error <= TOLERANCE),
            advice=advice,
        )
    losses = _two_losses(model, graph)
    findings.check(
        "training step",
        f"loss {losses[0]:.6f} -> {losses[1]:.6f} eV^2",
        is_good=losses[1] < losses[0],
        advice=advice,
    )
    findings.note("time", f"{time.perf_counter() - start:.1f} s")


def _two_losses(model, graph) -> tuple[float, float]:
    """Return the mean square error before and after one step of an optimiser."""
    import torch

    def loss() -> torch.Tensor:
        found = model(graph)
        return sum((found[key] - getattr(graph, key)).square().mean() for key in found)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = loss()
    before.backward()
    optimizer.step()
    with torch.no_grad():
        return float(before), float(loss())


def _version() -> str:
    from deeph_lightning import __version__

    return __version__


def _requirements() -> list[str]:
    """Return the requirements of the package; of pyproject.toml where it is not installed."""
    try:
        return metadata.requires("deeph-lightning") or []
    except metadata.PackageNotFoundError:
        text = (PACKAGE_DIR.parent / "pyproject.toml").read_text(encoding="utf-8")
        return list(tomllib.loads(text)["project"]["dependencies"])


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(r"model name\s*:\s*(.+)", text)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _print(line: str) -> None:
    sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
