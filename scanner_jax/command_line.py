"""What the commands that take a recipe share: its flags, and sentences for what is wrong with them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe: a file of configs/, as configs/mner15.py:small.")
PREPARED = flags.DEFINE_string("prepared", "prepared", "Folder for data derived from corpora.")


def config_name() -> str:
    """`configs/mner15.py:small` -> `mner15-small`."""
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return "-".join(filter(None, [Path(path).stem, variant]))


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line; a wrong setting ends in a sentence, before anything is read or compiled."""
    try:
        rest = flags.FLAGS(arguments)
        CONFIG.value.lock()  # a file that cannot be loaded is only reported at its first use
        return rest
    except flags.Error as error:
        reason = str(error).strip().splitlines()[-1]  # a config's own error comes with its traceback before it
        sys.exit(f"{reason}\nRun with --help for the flags; scanner_jax/settings.py lists the settings.")
    except (OSError, SyntaxError) as error:
        sys.exit(f"--config: no config can be loaded from that file; the recipes are in configs/\n{error}")
    except (AttributeError, KeyError, TypeError) as error:
        sys.exit(f"a setting does not exist or does not fit: {error}\nscanner_jax/settings.py lists them.")


def refuse_words(arguments: Sequence[str]) -> None:
    """End in a sentence where words follow that belong to no flag."""
    if len(arguments) > 1:
        raise app.UsageError(
            f"unexpected arguments {' '.join(arguments[1:])}; settings are given as --config.NAME=VALUE"
        )


def quieten() -> None:
    """Let this package speak, and libraries as far as there is something to do."""
    # Orbax writes ten lines for every checkpoint, and the tracebacks of errors that it raises as well.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("jax").setLevel(logging.WARNING)
    logging.getLogger("scanner_jax").setLevel(logging.INFO)
