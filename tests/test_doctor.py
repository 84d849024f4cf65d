"""The doctor: a healthy installation passes, a missing package is named with its remedy."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from deeph_lightning import doctor


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["doctor"])


def test_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main()
    text = capsys.readouterr().out
    for part in ("torch", "CPU", "torch-scatter", "conf", "rotation", "loss", "All is well."):
        assert part in text
    assert "BAD" not in text


def test_missing_and_old_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = metadata.version

    def pretend(name: str) -> str:
        if name == "vesin":
            raise metadata.PackageNotFoundError(name)
        return "2.6.3" if name == "lightning" else version(name)

    monkeypatch.setattr(metadata, "version", pretend)
    with pytest.raises(SystemExit) as caught:
        doctor.main()
    assert caught.value.code == 1
    text = capsys.readouterr().out
    assert "BAD  lightning            2.6.3, needed: <2.7,>=2.6.6" in text
    assert "pip install 'vesin>=" in text
    assert "2 essential thing(s)" in text


def test_damaged_data(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "graphene.h5").write_bytes(b"not what it was")
    (tmp_path / "README.md").write_text("0" * 64 + "  graphene.h5\n")
    monkeypatch.setattr(
        "deeph_lightning.config.paths.shipped", lambda _: str(tmp_path / "graphene.h5")
    )
    findings = doctor.Findings()
    doctor.check_files(findings)
    assert findings.n_wrong == 1
    assert "git checkout" in capsys.readouterr().out
