"""Where the overlaps beside predicted Hamiltonians come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.core.basis import OrbitalBasis, species_labels, structure_name
from deeph_lightning.core.two_centre_integrals import OrbitalOverlaps
from deeph_lightning.data.build import element_of
from deeph_lightning.errors import BasisMismatchError, CheckpointError, ConfigError, DataError
from deeph_lightning.io.files import SAME_POSITION, cell_to_write
from deeph_lightning.io.formats import detect_format, read_structure_folder
from deeph_lightning.io.orbitals import KEPT, files_in, find_orbitals
from deeph_lightning.io.system import SystemData

if TYPE_CHECKING:
    from ase import Atoms

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.nn.overlap import TwoCentreOverlap

#: Largest residual of learned overlaps with which they are taken for two-centre integrals.
MAX_RESIDUAL = 1e-4


@dataclass(frozen=True)
class Overlaps:
    """The chosen source of overlaps.

    Attributes
    ----------
    kind
        ``learned``, ``file``, ``orbitals`` or ``none``.
    folder
        DeepH folder with overlaps, or folder of such by name of the structure; of ``file``.
    integrals
        Overlaps of the orbitals that were given; of ``orbitals``.
    """

    kind: str
    folder: Path | None = None
    integrals: OrbitalOverlaps | None = None

    @classmethod
    def choose(
        cls,
        value: str | None,
        predictor: Predictor,
        orbitals: str | Path | Sequence[str | Path] | None = None,
    ) -> Overlaps:
        """Read the keys ``overlap`` and ``orbitals``.

        Parameters
        ----------
        value
            ``learned``, ``orbitals``, ``none``, a folder, or None: from the orbitals where some
            are given, else learned where the checkpoint has them.
        predictor
            The network.
        orbitals
            Orbital files, see `find_orbitals`; None: those that the training set keeps.

        Raises
        ------
        CheckpointError
            Learned overlaps are asked for, and the checkpoint has none or bad ones.
        ConfigError
            There is no such folder, or there are no orbital files.
        BasisMismatchError
            Orbital files have other shells than the checkpoint.
        """
        if value == "orbitals" or (value is None and orbitals is not None):
            if orbitals is None:
                orbitals = Path(predictor.record.get("data", {}).get("root") or ".") / KEPT
                if not files_in(orbitals):
                    raise ConfigError(
                        f"overlap = orbitals: no orbital files are given, and the training set "
                        f"keeps none in {orbitals}.\n  Add orbitals=FILE, orbitals=[FILE,FILE] "
                        f"or orbitals=FOLDER (.orb, .ion, .ion.xml, .pao).",
                        key="orbitals",
                    )
            return cls("orbitals", integrals=_integrals(orbitals, predictor.basis))
        if orbitals is not None:
            raise ConfigError(
                f"overlap = {value}: orbitals are given, but not used.\n  Give "
                "overlap=orbitals, or leave out orbitals=.",
                key="orbitals",
            )
        fitted: TwoCentreOverlap = predictor.network.overlap
        if value == "none" or (value is None and not fitted.is_fitted):
            return cls("none")
        if value not in (None, "learned"):
            folder = Path(value).expanduser()
            if not folder.is_dir():
                raise ConfigError(
                    f"overlap = {value}: there is no such folder.\n  Give learned, none, or a "
                    "folder with overlap.h5 (of several structures: one sub-folder each); or "
                    "orbitals, with orbitals=FILES.",
                    key="overlap",
                )
            return cls("file", folder)
        path = predictor.record["path"]
        if not fitted.is_fitted:
            raise CheckpointError(
                f"{path}: holds no learned overlaps: its training set had none, or it was "
                "trained before overlaps were learnt.\n  Train again on a set with overlaps, "
                "or give overlap=DIR with overlap.h5, overlap=orbitals orbitals=FILES, or "
                "overlap=none.",
                path=path,
            )
        residual = float(fitted.residual)
        if residual > MAX_RESIDUAL:
            raise CheckpointError(
                f"{path}: the overlaps of its training set are no two-centre integrals of one "
                f"basis: {residual:.1e} of them is left, at most "
                f"{MAX_RESIDUAL:.0e} expected.\n  Check the basis of that set; give "
                "overlap=DIR with overlap.h5, or overlap=none.",
                path=path,
            )
        return cls("learned")

    @property
    def mark(self) -> str:
        """What tells these overlaps from others, for the mark of a prediction."""
        if self.integrals is None:
            return self.kind
        digest = hashlib.sha256()
        for label, functions in sorted(self.integrals.orbitals.items()):
            digest.update(label.encode())
            for function in functions:
                digest.update(function.r.tobytes() + function.value.tobytes())
        return f"{self.kind} {digest.hexdigest()[:16]}"

    def check(self, atoms: Atoms, predictor: Predictor) -> None:
        """Check, before any work, that the overlap of a structure can be had (see `read`).

        Raises
        ------
        BasisMismatchError
            There is no orbital file of a species.
        """
        if self.kind == "file":
            self.read(atoms, predictor)
        elif self.integrals is not None:
            known = self.integrals.basis.labels
            missing = sorted(set(species_labels(atoms).tolist()) - set(known))
            if missing:
                name = structure_name(atoms)
                raise BasisMismatchError(
                    f"structure '{name}' holds {', '.join(missing)}, but the orbital files are "
                    f"of {', '.join(known)} only.\n  Add theirs: orbitals=[FILE,FILE]",
                    structure=name,
                )

    def predict(
        self, atoms: Atoms, predictor: Predictor, info: Mapping[str, Any] | None = None
    ) -> SystemData:
        """Predict H of a structure and add its overlap.

        Parameters
        ----------
        atoms
            Structure.
        predictor
            The network.
        info
            What `SystemData.info` shall say.
        """
        names = ("H", "S") if self.kind == "learned" else ("H",)
        operators = predictor.operators(atoms, names)
        if self.kind == "file":
            operators["S"] = self.read(atoms, predictor)
        elif self.integrals is not None:
            operators["S"] = self.integrals.operator(atoms)
        return SystemData(
            name=structure_name(atoms),
            atoms=atoms,
            basis=predictor.basis,
            H=operators["H"],
            S=operators.get("S"),
            n_electrons=predictor.n_electrons(atoms),
            info=dict(info or {}),
        )

    def read(self, atoms: Atoms, predictor: Predictor) -> Operator:
        """Read the overlap of a structure from its folder.

        Raises
        ------
        DataError
            There is none, or it is of another structure.
        BasisMismatchError
            It has other orbitals.
        """
        assert self.folder is not None
        name = structure_name(atoms)
        inner = self.folder / name
        folder = inner if inner.is_dir() else self.folder
        system = read_structure_folder(folder, ("S",)) if detect_format(folder) else None
        if system is None or system.S is None:
            raise DataError(
                f"overlap={self.folder}: there is no overlap of structure '{name}' (looked for "
                f"DeepH folders with overlap.h5 at {inner} and {self.folder}).\n"
                "  Add it, or use overlap=learned.",
                path=folder,
                structure=name,
            )
        there = system.atoms
        if (
            len(there) != len(atoms)
            or np.any(species_labels(there) != species_labels(atoms))
            or not np.allclose(there.positions, atoms.positions, rtol=0, atol=SAME_POSITION)
            or not np.allclose(there.cell, cell_to_write(atoms), rtol=0, atol=SAME_POSITION)
        ):
            raise DataError(
                f"{folder}: its overlap is of another structure than '{name}' (atoms, their "
                "order, positions or lattice differ).\n  Give the folder of that structure.",
                path=folder,
                structure=name,
            )
        for label in sorted(set(species_labels(atoms).tolist())):
            if system.basis.shells[label] != predictor.basis.shells[label]:
                raise BasisMismatchError(
                    f"{folder}: its overlap has shells {system.basis.shells[label]} for "
                    f"{label}, the network {predictor.basis.shells[label]}.\n  Give overlaps "
                    "of the basis that the network was trained with.",
                    path=folder,
                    structure=name,
                )
        return system.S


def _integrals(
    orbitals: str | Path | Sequence[str | Path], basis: OrbitalBasis
) -> OrbitalOverlaps:
    """Read the orbitals of the species of a basis, as far as there are files."""
    files = find_orbitals(orbitals)
    found = {}
    for label in basis.labels:
        file = files.get(label) or files.get(element_of(label))
        if file is not None:
            found[label] = file.of_shells(basis.shells[label])
    if not found:
        raise ConfigError(
            f"orbitals = {orbitals}: they are of {', '.join(files)}, the network knows "
            f"{', '.join(basis.labels)}.\n  Give the files of these.",
            key="orbitals",
        )
    return OrbitalOverlaps(found)
