"""What control.in and the log of FHI-aims say of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deeph_lightning.errors import DataError
from deeph_lightning.io.fhi_aims.files import read_lines, to_numbers
from deeph_lightning.io.files import open_text

if TYPE_CHECKING:
    from ase import Atoms

#: Characters at the beginning of a log that name the code.
LOG_START = 20000


class Run(NamedTuple):
    """What control.in and the log say, None where they do not."""

    fermi_energy: float | None
    n_electrons: float | None
    version: str | None
    functional: str | None
    is_converged: bool | None


def read_run(folder: Path, atoms: Atoms, name: str) -> Run:
    """Read functional and charge of control.in; version, E_F and electrons of the log.

    The log has any name: it is known by its beginning. Of several Fermi levels the last counts.
    """
    control = folder / "control.in"
    n_electrons = functional = None
    if control.is_file():
        lines = [line.partition("#")[0].split() for line in read_lines(control, name)]
        settings = {line[0]: line[1:] for line in lines if line}
        functional = " ".join(settings.get("xc", [])) or None
        charge = to_numbers(" ".join(settings.get("charge", ["0"])[:1]), control, name)
        n_electrons = float(atoms.numbers.sum()) - float(charge.sum())
    log = _find_log(folder, name)
    if log is None:
        return Run(None, n_electrons, None, functional, None)
    text = "\n".join(read_lines(log, name))
    version = re.findall(r"(?:FHI-aims version *:|Version) *(\S+)", text)
    levels = re.findall(r"\| Chemical potential \(Fermi level\)[^:\n]*: *(\S+)", text)
    electrons = re.findall(r"a total of +(\S+) electrons", text)
    ends = re.findall(
        r"(?i)self-consistency cycle (?:(converged)|not yet converged|did not converge)", text
    )
    return Run(
        to_numbers(levels[-1], log, name).item() if levels else None,
        to_numbers(electrons[0], log, name).item() if electrons else n_electrons,
        version[0] if version else None,
        functional,
        bool(ends[-1]) if ends else None,
    )


def _find_log(folder: Path, name: str) -> Path | None:
    logs = []
    for pattern in ("*.out", "*.log", "*.out.xz", "*.log.xz", "*.out.gz", "*.log.gz"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                with open_text(path, name) as file:
                    if "FHI-aims" in file.read(LOG_START):
                        logs.append(path)
    if len(logs) > 1:
        msg = (
            f"{folder}: structure '{name}' has {len(logs)} logs of FHI-aims "
            f"({', '.join(p.name for p in logs[:4])}). Keep that of the run that wrote the "
            f"matrices."
        )
        raise DataError(msg, path=folder, structure=name)
    return logs[0] if logs else None
