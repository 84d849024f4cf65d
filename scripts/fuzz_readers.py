"""Damage calculations at random, convert them, and count what happens.

python -m scripts.fuzz_readers              500 cases
python -m scripts.fuzz_readers --n 10000    more
python -m scripts.fuzz_readers --only openmx

Every registered format is tried: folders below ``tests/data``, and files that the writers of
the tests make. Each case must end in a clear error, or in a set that passes the gates when it
is read back; anything else (an exception that is no `DeepHError`, a hang, a written set that
fails the gates) is printed with its number and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import DeepHError
from deeph_lightning.io import deeptb
from deeph_lightning.io.formats import (
    READERS,
    detect_format,
    find_systems,
    read_structure_folder,
    write_structure_folder,
)
from deeph_lightning.io.gates import check_gates
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve.dense import eigenstates
from tests.io import fhi_aims_files, hpro_files, openmx_files, test_deeptb, test_wannier90

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = "accepted, passes gates"
#: Seconds of computing (others may use the machine too) after which a case hangs.
LIMIT = 120
NUMBER = re.compile(rb"-?\d+\.\d+(?:[eE][-+]?\d+)?")
#: Å per bohr, eV per hartree and rydberg, and their inverses.
FACTORS = (0.529177, 1.889726, 27.211386, 0.0367493, 13.605693, -1.0)


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--only", help="one format")
    parser.add_argument("--case", type=int, help="one case, by its number")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _hang)
    counts: Counter[tuple[str, str]] = Counter()
    n_bad = 0
    with tempfile.TemporaryDirectory() as folder:
        seeds = [
            (name, path)
            for name, path in make_seeds(Path(folder) / "seeds")
            if options.only in (None, name)
        ]
        print(f"{len(seeds)} calculations: {Counter(name for name, _ in seeds)}")
        for name, path in seeds:
            shutil.rmtree(Path(folder) / "work", ignore_errors=True)
            shutil.copytree(path, Path(folder) / "work" / "case")
            outcome, text = judge(Path(folder) / "work")
            if outcome != ACCEPTED:
                print(f"{path.name} ({name}) as it is: {outcome}: {text}")
        missing = set(READERS) - {name for name, _ in seeds}
        if missing and options.only is None:
            print(f"formats without a calculation to damage: {', '.join(sorted(missing))}")
        cases = range(options.n) if options.case is None else [options.case]
        for case in cases:
            rng = np.random.default_rng((options.seed, case))
            name, seed = seeds[case % len(seeds)]
            work = Path(folder) / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(seed, work / "case")
            what = damage(work / "case", rng)
            outcome, text = judge(work)
            counts[name, outcome] += 1
            if outcome.startswith("BAD") or options.case is not None:
                n_bad += outcome.startswith("BAD")
                print(f"case {case}: {name}, {what}: {outcome}: {text}")
    print_table(counts)
    return int(n_bad > 0)


def print_table(counts: Counter[tuple[str, str]]) -> None:
    """Print how often each outcome was met for each format."""
    outcomes = sorted({outcome for _, outcome in counts})
    print(f"\n{'format':14s}" + "".join(f"{outcome:>24s}" for outcome in outcomes))
    for name in sorted({name for name, _ in counts}):
        print(f"{name:14s}" + "".join(f"{counts[name, outcome]:24d}" for outcome in outcomes))
    totals = (sum(n for (_, o), n in counts.items() if o == outcome) for outcome in outcomes)
    print(f"{'all':14s}" + "".join(f"{total:24d}" for total in totals))


def _hang(*_: object) -> None:
    raise TimeoutError(f"no end after {LIMIT} s")


def judge(work: Path) -> tuple[str, str]:
    """Convert a folder; return the outcome and its message."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        system = read_structure_folder(work / "case", ("H", "S", "rho", "H_pred"))
        check_gates(system)
        write_structure_folder(system, work / "out")
    except DeepHError as error:
        is_clear = "case" in str(error) and len(str(error)) < 1500
        return ("clear error" if is_clear else "BAD message"), str(error)
    except Exception as error:  # noqa: BLE001  # this is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "BAD crash", f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    try:
        check_gates(read_structure_folder(work / "out"))
    except Exception as error:  # noqa: BLE001
        return "BAD acceptance", f"{type(error).__name__}: {error}"
    return ACCEPTED, ""


def make_seeds(folder: Path) -> list[tuple[str, Path]]:
    """Return calculations of every format."""
    seeds = [
        (detect_format(path) or "", path) for path in find_systems(ROOT / "tests" / "data")
    ]
    if importlib.util.find_spec("gpaw") is None:
        seeds = [(name, path) for name, path in seeds if name != "gpaw"]
    folder.mkdir()
    water = with_electrons(
        read_structure_folder(ROOT / "tests" / "data" / "structures" / "H2O_0")
    )
    for name in ("text", "hdf5"):
        fhi_aims_files.write_periodic(folder / f"aims_{name}", water, use_hdf5=name == "hdf5")
        seeds.append(("fhi_aims", folder / f"aims_{name}"))
    for spin in (0, 1, 3):
        path = folder / f"openmx_{spin}"
        path.mkdir()
        openmx_files.write_scfout(
            path / "water.scfout", openmx_files.spinful(water, spin), spin
        )
        seeds.append(("openmx", path))
    test_wannier90.write_run(folder / "wannier90")
    seeds.append(("wannier90", folder / "wannier90"))
    test_deeptb.write_run(folder / "deeptb", water)
    seeds.append(("deeptb", folder / "deeptb"))
    if importlib.util.find_spec("HPRO") is not None:
        hpro_files.Calculation().write(folder / "hpro", folder / "hpro")
        seeds.append(("hpro", folder / "hpro"))
    (folder / "lmdb").mkdir()
    (folder / "lmdb" / "data.mdb").write_bytes(b"\0" * 16 + deeptb.LMDB_MAGIC + b"\1" * 100)
    seeds.append(("deeptb", folder / "lmdb"))
    (folder / "hamgnn").mkdir()
    np.savez(folder / "hamgnn" / "graph_data.npz", graph=np.array({"a": 1}, dtype=object))
    seeds.append(("hamgnn", folder / "hamgnn"))
    return seeds


def with_electrons(molecule: SystemData, n_electrons: int = 8) -> SystemData:
    """Fill the lowest states of a molecule: density matrix, electrons, Fermi level."""
    energies, states = eigenstates(molecule.H, molecule.S, [0, 0, 0])
    n = n_electrons // 2
    rho = 2 * (states[0, :, :n] @ states[0, :, :n].conj().T).real
    first, pairs = molecule.H.orbital_offsets, molecule.H.pairs
    blocks = [
        rho[first[i] : first[i + 1], first[j] : first[j + 1]]
        for i, j in zip(pairs.i, pairs.j, strict=True)
    ]
    values = np.concatenate([block.ravel() for block in blocks])
    return replace(
        molecule,
        rho=Operator(molecule.atoms, molecule.basis, pairs, values, "1"),
        n_electrons=float(n_electrons),
        fermi_energy=float(energies[0, n - 1 : n + 1].mean()),
    )


def damage(folder: Path, rng: np.random.Generator) -> str:
    """Change one file, at random; return what was done."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = files[rng.integers(len(files))]
    path.chmod(0o644)
    kinds = [truncated, flipped, swapped, scaled, scaled, without_line, with_garbage, removed]
    kind = kinds[rng.integers(len(kinds))]
    is_hdf5 = h5py.is_hdf5(path)
    if is_hdf5 and kind in (swapped, scaled, without_line, with_garbage):
        how = damaged_hdf5(path, rng)
    else:
        how = kind(path, rng)
    return f"{path.name} {how}"


def truncated(path: Path, rng: np.random.Generator) -> str:
    """Cut a file off."""
    content = path.read_bytes()
    size = int(rng.integers(len(content) + 1))
    path.write_bytes(content[:size])
    return f"cut to {size} of {len(content)} bytes"


def flipped(path: Path, rng: np.random.Generator) -> str:
    """Change some bytes, anywhere or in the first thousand."""
    content = bytearray(path.read_bytes())
    reach = min(len(content), 1000) if rng.random() < 0.5 else len(content)
    places = rng.integers(max(reach, 1), size=rng.integers(1, 9)).tolist() if content else []
    for place in places:
        content[place] = int(rng.integers(256))
    path.write_bytes(bytes(content))
    return f"with other bytes at {places}"


def swapped(path: Path, rng: np.random.Generator) -> str:
    """Exchange two words of a text, or two stretches of bytes."""
    content = path.read_bytes()
    words = list(re.finditer(rb"\S+", content))
    if len(words) < 2:
        return "as it is"
    a, b = sorted(rng.choice(len(words), 2, replace=False).tolist())
    first, second = words[a], words[b]
    path.write_bytes(
        content[: first.start()] + second[0] + content[first.end() : second.start()]
        + first[0] + content[second.end() :]
    )  # fmt: skip
    return f"with words {a} and {b} exchanged"


def scaled(path: Path, rng: np.random.Generator) -> str:
    """Multiply the numbers by a ratio of units: all of a text, a stretch of binary ones."""
    factor = float(rng.choice(FACTORS))
    content = path.read_bytes()
    if b"\0" not in content[:4000]:
        lines = content.splitlines(keepends=True)
        first, last = sorted(rng.integers(len(lines) + 1, size=2).tolist())
        if rng.random() < 0.5:
            first, last = 0, len(lines)
        lines[first:last] = [
            NUMBER.sub(lambda m: b"%.17g" % (float(m[0]) * factor), x)
            for x in lines[first:last]
        ]
        path.write_bytes(b"".join(lines))
        return f"lines {first} to {last} times {factor}"
    start = int(rng.integers(8)) + 8 * int(rng.integers(max(len(content) // 8, 1)))
    count = min(int(rng.integers(1, 500)), (len(content) - start) // 8)
    if count < 1:
        return "as it is"
    numbers = np.frombuffer(content, "<f8", count, start) * factor
    path.write_bytes(content[:start] + numbers.tobytes() + content[start + 8 * count :])
    return f"{count} numbers from byte {start} times {factor}"


def without_line(path: Path, rng: np.random.Generator) -> str:
    """Remove a line."""
    lines = path.read_bytes().splitlines(keepends=True)
    if not lines:
        return "as it is"
    n = int(rng.integers(len(lines)))
    path.write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
    return f"without line {n}"


def with_garbage(path: Path, rng: np.random.Generator) -> str:
    """Put something odd where a word was."""
    odd = [b"nan", b"inf", b"-1", b"0", b"99999999999999999999", b"1e400", b"\xff\xfe", b"x",
           b"[]", b"null", b"-0.5", b"{", b"1 2", b""]  # fmt: skip
    content = path.read_bytes()
    words = list(re.finditer(rb"[^\s,\]\[{}:]+", content))
    if not words:
        return "as it is"
    word = words[rng.integers(len(words))]
    new = odd[rng.integers(len(odd))]
    path.write_bytes(content[: word.start()] + new + content[word.end() :])
    return f"with {new!r} instead of {word[0][:20]!r}"


def removed(path: Path, rng: np.random.Generator) -> str:  # noqa: ARG001
    """Remove the file, or leave it empty."""
    path.unlink()
    return "removed"


def damaged_hdf5(path: Path, rng: np.random.Generator) -> str:
    """Change one dataset: names, values, shape, type."""
    with h5py.File(path, "r+") as file:
        keys: list[str] = []
        file.visititems(lambda k, v: keys.append(k) if isinstance(v, h5py.Dataset) else None)
        if not keys:
            return "as it is"
        key, other = (keys[n] for n in rng.integers(len(keys), size=2))
        value = file[key][()]
        choice = int(rng.integers(9))
        if choice == 0 and key != other:
            second = file[other][()]
            del file[key], file[other]
            file[key], file[other] = second, value
            return f"with {key} and {other} exchanged"
        del file[key]
        if choice == 1:
            return f"without {key}"
        if choice == 2:
            file[key + "x"] = value
            return f"with {key} renamed"
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufc":
            file[key] = "odd"
            return f"with {key} a text"
        if choice == 3:
            file[key] = value * float(rng.choice(FACTORS))
            return f"with {key} in other units"
        if choice == 4:
            file[key] = value.ravel()[: int(rng.integers(value.size + 1))]
            return f"with {key} cut"
        if choice == 5:
            file[key] = np.swapaxes(value, 0, -1) if value.ndim > 1 else value[::-1]
            return f"with {key} turned"
        if choice == 6:
            file[key] = value.astype(rng.choice(["S8", "f2", "i1", "c8", "u1"]))
            return f"with {key} of another type"
        changed = np.array(value)
        if changed.size:
            odd = [np.nan, np.inf, 1e300, -1.0, 1e-3, 2.0**40]
            new = odd[rng.integers(len(odd))]
            with np.errstate(all="ignore"):
                changed.ravel()[int(rng.integers(changed.size))] = np.array(new).astype(
                    changed.dtype
                )
        file[key] = changed
        return f"with an odd number in {key}"


if __name__ == "__main__":
    sys.exit(main())
