"""Open the page: `python -m scanner_jax.app --model FOLDER`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scanner_jax.app.answering import Desk
from scanner_jax.app.clicked import EXAMPLES, read_examples
from scanner_jax.command_line import quieten
from scanner_jax.files import explain
from scanner_jax.interrupt import Interrupted, leaving_at_signals
from scanner_jax.model_options import add_model_options, opened

INSTALL = 'pip install "scanner_jax[app]"'

DESCRIPTION = """Open a page on this machine: a sentence and a picture in; entities, boxes on the picture and the
knowledge that was used out. It runs until Ctrl-C."""

EPILOG = """examples
  python -m scanner_jax.app --model exported/mner15 --wikipedia prepared/wikipedia.sqlite
  python -m scanner_jax.app --model exported/demo --wikipedia prepared/demo/wikipedia.sqlite \\
      --store prepared/demo/knowledge --examples prepared/demo/tweets

The store knows pictures by the names of their files. The page asks nothing of other servers; what is uploaded is kept
for an hour at most, and gone when the page ends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit status: 128 plus the signal's number, 1 with what is wrong."""
    options = _parser().parse_args(arguments)
    quieten()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("scanner_jax").setLevel(logging.WARNING)
    try:
        with leaving_at_signals():
            _serve(options)
    except ImportError as error:
        if error.name not in ("gradio", "uvicorn", "fastapi", "starlette"):
            raise
        print(f"error: the page needs Gradio: {INSTALL} ({error})", file=sys.stderr)
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
    except ValueError as error:  # of model, store, index or examples
        print(f"error: {error}", file=sys.stderr)
    except Interrupted as error:
        print(f"the page was stopped by {error.signal.name}", file=sys.stderr)
        return error.exit_code
    return 1


def _serve(options: argparse.Namespace) -> None:
    from scanner_jax.app.page import make_page
    from scanner_jax.app.serving import LOOPBACK, gradio_settings, listen, make_server

    try:
        taken = listen(options.host, options.port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ValueError(f"--host {options.host} --port {options.port}: {reason}") from error
    with taken, gradio_settings(), opened(options) as (scanner, known):
        examples = read_examples(options.examples) if options.examples else EXAMPLES
        page = make_page(Desk(scanner, known), examples, name=options.model.resolve().name)
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{host}:{taken.getsockname()[1]} shows {options.model}; Ctrl-C ends it", flush=True)
        if options.host not in LOOPBACK:
            print(f"whoever reaches {options.host} can use it: it asks for no password", file=sys.stderr)
        make_server(page, options.host).run(sockets=[taken])


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number up to 65535, found {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scanner_jax.app",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    add = parser.add_argument
    add("--examples", type=Path, metavar="FILE", help="sentences to click on, with their pictures where they have any: "
        "what predict takes as --input, or a corpus's folder")  # fmt: skip
    add(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="to listen on (%(default)s, which only this machine reaches)",
    )
    add("--port", type=_port, default=7860, metavar="N", help="to listen on (%(default)s); 0 takes any that is free")
    return parser


if __name__ == "__main__":
    sys.exit(main())
