"""Where the overlaps beside predicted Hamiltonians come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.core.basis import species_labels, structure_name
from deeph_lightning.errors import BasisMismatchError, CheckpointError, ConfigError, DataError
from deeph_lightning.io.files import SAME_POSITION, cell_to_write
from deeph_lightning.io.formats import SystemData, detect_format, read_structure_folder

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
        ``learned``, ``file`` or ``none``.
    folder
        DeepH folder with overlaps, or folder of such by name of the structure; of ``file``.
    """

    kind: str
    folder: Path | None = None

    @classmethod
    def choose(cls, value: str | None, predictor: Predictor) -> Overlaps:
        """Read the key ``overlap``.

        Parameters
        ----------
        value
            ``learned``, ``none``, a folder, or None: learned where the checkpoint has them.
        predictor
            The network.

        Raises
        ------
        CheckpointError
            Learned overlaps are asked for, and the checkpoint has none or bad ones.
        ConfigError
            There is no such folder.
        """
        fitted: TwoCentreOverlap = predictor.network.overlap
        if value == "none" or (value is None and not fitted.is_fitted):
            return cls("none")
        if value not in (None, "learned"):
            folder = Path(value).expanduser()
            if not folder.is_dir():
                raise ConfigError(
                    f"overlap = {value}: there is no such folder.\n  Give learned, none, or a "
                    "folder with overlap.h5 (of several structures: one sub-folder each).",
                    key="overlap",
                )
            return cls("file", folder)
        path = predictor.record["path"]
        if not fitted.is_fitted:
            raise CheckpointError(
                f"{path}: holds no learned overlaps: its training set had none, or it was "
                "trained before overlaps were learnt.\n  Train again on a set with overlaps, "
                "or give overlap=DIR with overlap.h5, or overlap=none.",
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

    def check(self, atoms: Atoms, predictor: Predictor) -> None:
        """Check, before any work, that the overlap of a structure is there (see `read`)."""
        if self.kind == "file":
            self.read(atoms, predictor)

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
