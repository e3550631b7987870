"""Train and score the paper's recipe.

    python -m scanner_jax.train --config=configs/mner15.py

Any setting can be changed on the command line: --config.seed=2, --config.encoder=models/my-encoder,
--config.corpus=FOLDER. What is finished is never run again; an interrupted run goes on when the same command
is given again. SIGTERM and Ctrl-C finish the steps that were begun, save them and leave.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from scanner_jax import __version__
from scanner_jax.checkpoint import CheckpointError
from scanner_jax.command_line import CONFIG, PREPARED, config_name, parse_flags, quieten, refuse_words
from scanner_jax.files import explain, write_json
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.interrupt import Interrupted, leaving_at_signals
from scanner_jax.loop import DivergedError
from scanner_jax.phases import DamagedPhaseError
from scanner_jax.processes import ProcessesError, is_first, join, meet, several
from scanner_jax.prompts import PromptError
from scanner_jax.ranking import RankError
from scanner_jax.recipe import recipe_steps, run_recipe
from scanner_jax.report import write_report
from scanner_jax.runs import Run
from scanner_jax.store import StoreError
from scanner_jax.wikipedia import WikipediaError

_WORKDIR = flags.DEFINE_string("workdir", None, "Receives report/ and run.json; by default runs/<config>.")
_PHASES = flags.DEFINE_string("phases", None, "Folder of phases, to share between runs; by default WORKDIR/phases.")
_UNTIL = flags.DEFINE_string("until", None, "Stop after this phase (detector-teacher, candidates, ...).")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Train with other processes, of which the first listens at HOST:PORT; auto: as SLURM says."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are; found with --coordinator=auto.")
_PROCESS = flags.DEFINE_integer("process", None, "Which one this is, from 0; found with --coordinator=auto.")


def main(arguments: Sequence[str]) -> None:
    """Train; whatever stops it ends in a sentence and an exit code."""
    refuse_words(arguments)
    quieten()
    try:
        with leaving_at_signals():
            if _COORDINATOR.value or _PROCESSES.value is not None or _PROCESS.value is not None:
                join(coordinator=_COORDINATOR.value or "", count=_PROCESSES.value, index=_PROCESS.value)
                if not is_first():
                    logging.getLogger("scanner_jax").setLevel(logging.WARNING)
            _train()
            meet("the end")
    except ProcessesError as error:
        sys.exit(f"The processes do not find one another: {error}")
    except InputError as error:
        _leave(f"The recipe cannot start; this is missing or does not fit:\n{error}")
    except CheckpointError as error:
        # At once: TensorStore's threads have one more error for each array that was to follow.
        _leave(f"The recipe stopped: {error}", at_once=True)
    except (DamagedPhaseError, DivergedError, PromptError, RankError, StoreError, WikipediaError) as error:
        _leave(f"The recipe stopped: {error}")
    except OSError as error:
        _leave(f"The recipe stopped: {explain(error)}")
    except Interrupted as error:
        saved = error.saved or "what was finished or saved before is kept"
        said = f"Stopped by {error.signal.name}: {saved}; the same command goes on from there."
        # Where several have agreed to leave, each waits for the others, and none is missed.
        _leave(said, code=error.exit_code, at_once=several() and not error.saved)
    except Exception as error:
        if not several():
            raise
        traceback.print_exc()
        _leave(
            f"Process {jax.process_index()} of {jax.process_count()} stopped: {str(error).splitlines()[0]}\nIf that "
            "speaks of a connection or of another process, one of the others has ended before, and says why. Give the "
            "same command again, to all: it goes on from the last checkpoint."
        )


def _leave(said: str, *, code: int = 1, at_once: bool | None = None) -> None:
    """Say why and end; one of several processes at once, so that the others see that it is gone."""
    print(said, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if several() if at_once is None else at_once:
        os._exit(code)
    sys.exit(code)


def _train() -> None:
    """Run the recipe of the command line and write its report."""
    config, prepared = CONFIG.value, Path(PREPARED.value)
    workdir = Path(_WORKDIR.value or Path("runs") / config_name())
    root = Path(_PHASES.value) if _PHASES.value else workdir / "phases"
    # The recipe's trainings share their compiled steps, also across processes.
    jax.config.update("jax_compilation_cache_dir", str((prepared / "xla").absolute()))
    started = time.time()
    profile = workdir / "profile" if config.profile else None
    if not is_first():  # what the first one prepares is then there
        meet("inputs")
    run = Run(config=config, inputs=open_inputs(config, prepared=prepared), root=root, profile=profile)
    if is_first():
        meet("inputs")
    metrics = run_recipe(run, until=_UNTIL.value)
    if not is_first():
        return
    print(write_report(workdir / "report", run, metrics))
    write_json(workdir / "run.json", run_record(run, started=started))
    print(f"report: {workdir / 'report'}")


def run_record(run: Run, *, started: float) -> dict[str, Any]:
    """The content of run.json: what was run, on what, and where the results of its phases are."""
    corpus = run.inputs.corpus
    return {
        "command": sys.argv,
        "config": run.config.to_dict(),
        "corpus": {
            "folder": run.config.corpus,
            "name": corpus.name,
            "types": corpus.types,
            "variant": corpus.variant,
            "sha256": corpus.fingerprint,
        },
        "knowledge": run.inputs.sources.provenance(),
        "phases": {name: str(step.phase.folder(run.root)) for name, step in recipe_steps(run).items()},
        "versions": {"scanner_jax": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "devices": [device.device_kind for device in jax.devices()],
        "host": platform.node(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
        "seconds": round(time.time() - started, 1),
    }


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
