"""What every entry point does: check, compose, run, and turn errors into one clear message."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from deeph_lightning.config.paths import CONF_DIR, check_writable, shipped
from deeph_lightning.config.ranks import is_first_rank, run_stamp
from deeph_lightning.config.suggest import compose_checked
from deeph_lightning.config.validate import resolve
from deeph_lightning.errors import DeepHError

# threads of numpy's and scipy's BLAS (torch has its own) bring nothing for matrices of a few
# hundred orbitals, and cost a factor of ten and more where cores are shared; read on import
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

Check = Callable[[Mapping[str, Any]], None]

OmegaConf.register_new_resolver("shipped", shipped, replace=True)
OmegaConf.register_new_resolver("run_stamp", run_stamp, replace=True, use_cache=True)


def start(task: Callable[[DictConfig], Any], config_name: str, check: Check) -> None:
    """Run an entry point from the command line.

    Overrides and the whole configuration are checked before Hydra makes a folder. A
    `DeepHError` is printed without a traceback and ends the program with status 2; the
    `debug` group re-raises it.

    Parameters
    ----------
    task
        Takes the composed configuration; what it returns goes to Hydra's sweeper.
    config_name
        The file of ``conf/`` to compose.
    check
        Takes the resolved configuration and raises `ConfigError`.
    """
    _put_flag_first("-m", "--multirun")
    args = get_args_parser().parse_args()
    shows_only = args.help or args.hydra_help or args.info or args.shell_completion
    if not shows_only and args.experimental_rerun is None:
        try:
            _check_command_line(args, config_name, check)
        except DeepHError as error:
            _fail(error)

    def guarded(cfg: DictConfig) -> Any:
        try:
            check(resolve(cfg))
            return task(cfg)
        except DeepHError as error:
            if cfg.reraise:
                raise
            _fail(error)

    decorate = hydra.main(
        version_base="1.3", config_path=str(CONF_DIR), config_name=config_name
    )
    decorate(guarded)()


def _put_flag_first(*names: str) -> None:
    """Move a flag before the overrides: argparse reads no override that comes after one."""
    flags = [word for word in sys.argv[1:] if word in names]
    sys.argv[1:] = flags + [word for word in sys.argv[1:] if word not in names]


def _check_command_line(args: argparse.Namespace, config_name: str, check: Check) -> None:
    cfg = compose_checked(
        args.config_name or config_name,
        args.overrides,
        is_multirun=args.multirun,
        config_dir=args.config_dir,
    )
    if args.cfg is not None:
        return
    own = cfg.copy()
    OmegaConf.set_struct(own, False)
    del own["hydra"]
    if "paths" in own:
        # known to Hydra only once it runs
        own.paths.run_dir = (cfg.hydra.sweep if args.multirun else cfg.hydra.run).dir
    check(resolve(own))
    if "paths" in own:
        check_writable(own.paths.run_dir, key="paths.output_root")


def _fail(error: DeepHError) -> NoReturn:
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.stderr.flush()
    raise SystemExit(2) from None


def write_resolved(cfg: DictConfig, run_dir: str | Path) -> None:
    """Write ``config_resolved.yaml``, every interpolation resolved; the first rank does."""
    if not is_first_rank():
        return
    text = OmegaConf.to_yaml(OmegaConf.create(resolve(cfg)))
    Path(run_dir, "config_resolved.yaml").write_text(text, encoding="utf-8")
