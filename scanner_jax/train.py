"""Train and score the paper's recipe.

    python -m scanner_jax.train --config=configs/mner15.py

Any setting can be changed on the command line: --config.seed=2, --config.encoder=models/my-encoder,
--config.corpus=FOLDER. What is finished is never run again; an interrupted run goes on when the same command
is given again. SIGTERM and Ctrl-C finish the step, save it and leave.
"""

from __future__ import annotations

import os
import platform
import sys
import time
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
from scanner_jax.prompts import PromptError
from scanner_jax.ranking import RankError
from scanner_jax.recipe import recipe_steps, run_recipe
from scanner_jax.report import write_report
from scanner_jax.stages import Run
from scanner_jax.store import StoreError
from scanner_jax.wikipedia import WikipediaError

_WORKDIR = flags.DEFINE_string("workdir", None, "Receives report/ and run.json; by default runs/<config>.")
_PHASES = flags.DEFINE_string("phases", None, "Folder of phases, to share between runs; by default WORKDIR/phases.")
_UNTIL = flags.DEFINE_string("until", None, "Stop after this phase (detector-teacher, candidates, ...).")


def main(arguments: Sequence[str]) -> None:
    """Train; whatever stops it ends in a sentence and an exit code."""
    refuse_words(arguments)
    quieten()
    try:
        with leaving_at_signals():
            _train()
    except InputError as error:
        sys.exit(f"The recipe cannot start; this is missing or does not fit:\n{error}")
    except CheckpointError as error:
        print(f"The recipe stopped: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)  # at once: TensorStore's threads have one more error for each array that was to follow
    except (DamagedPhaseError, DivergedError, PromptError, RankError, StoreError, WikipediaError) as error:
        sys.exit(f"The recipe stopped: {error}")
    except OSError as error:
        sys.exit(f"The recipe stopped: {explain(error)}")
    except Interrupted as error:
        saved = error.saved or "what was finished or saved before is kept"
        print(f"Stopped by {error.signal.name}: {saved}; the same command goes on from there.", file=sys.stderr)
        sys.exit(error.exit_code)


def _train() -> None:
    """Run the recipe of the command line and write its report."""
    config, prepared = CONFIG.value, Path(PREPARED.value)
    workdir = Path(_WORKDIR.value or Path("runs") / config_name())
    root = Path(_PHASES.value) if _PHASES.value else workdir / "phases"
    # The recipe's trainings share their compiled steps, also across processes.
    jax.config.update("jax_compilation_cache_dir", str((prepared / "xla").absolute()))
    started = time.time()
    profile = workdir / "profile" if config.profile else None
    run = Run(config=config, inputs=open_inputs(config, prepared=prepared), root=root, profile=profile)
    metrics = run_recipe(run, until=_UNTIL.value)
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
