"""What an engine is: something that computes the Hamiltonian of a structure.

To add one: a class with these methods in a file of ``generate/engines``, and a file of
``conf/engine`` with its name and arguments. Objects are sent to other processes, so they hold
settings only; packages of the code are imported inside `Engine.check` and `Engine.run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.io.system import SystemData


class Engine(Protocol):
    """A code with its settings.

    Attributes
    ----------
    n_attempt
        How many ways to reach self-consistency it knows, at least one.
    incidental
        Settings that may differ where a data set is continued: they do not change the result,
        or are paths of files whose hashes `check` gives.
    """

    n_attempt: int
    incidental: tuple[str, ...]

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check, before any calculation, that all of them can be done.

        Parameters
        ----------
        structures
            What is to be computed: elements, periodicity and electrons must suit the settings.

        Returns
        -------
        dict
            Plain facts that decide the result beside the configuration: version of the code,
            hashes of files that it reads. A data set is continued with the same facts only.

        Raises
        ------
        MissingDependencyError
            A package or program is not installed.
        ConfigError
            A setting is wrong, or does not suit a structure.
        """

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure.

        Parameters
        ----------
        structure
            Structure, Å; ``structure.info["name"]`` is its name, ``structure.pbc`` says along
            which vectors it is periodic.
        folder
            Empty folder for files of the code. It is removed if the calculation succeeds, and
            kept for inspection if it fails.
        attempt
            0, 1, ... below `n_attempt`: which way to self-consistency to take.

        Returns
        -------
        SystemData
            As the readers give it: H (eV) and S, E_F, electrons, and `code_output.facts`.

        Raises
        ------
        NotConvergedError
            The density is not self-consistent. The next attempt is made, if there is one.
        DeepHError
            The structure cannot be computed; it is left out and listed.
        """
