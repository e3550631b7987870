"""Serve the page: on loopback, with nothing fetched from elsewhere, by the server or by the browser."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scanner_jax.app.rendering import FOLDER

LOOPBACK = ("127.0.0.1", "localhost", "::1")

LARGEST_UPLOAD = 100 * 2**20
"""Bytes of a picture; a photo that needs more has more pixels than `images.PIXEL_LIMIT`, or is not compressed."""

LARGEST_QUESTION = 2**20
"""Bytes of any other request; a picture in it is a name."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy. Gradio needs inline scripts; whatever runs, it reaches no other server."""

FILE_POLICY = "default-src 'none'; sandbox"
"""That of uploaded files, which may be documents with scripts."""

ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_VIBE_MODE": ""}
"""Nothing is reported to Gradio's makers, and its routes that let a page be rewritten are closed."""


class Guard:
    """Middleware that lets through what the page needs.

    It refuses requests under another host's name, by which a page elsewhere could reach this one (DNS rebinding),
    requests to pass on an address to another server, and large ones that are no upload; it tells browsers the policies.

    Args:
        app: what it guards.
        hosts: names that this server is called by; none allows all.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope, Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, send)
            return
        policy = FILE_POLICY if "/file=" in scope["path"] else POLICY

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, send_with_policy)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "").rpartition(":")[0].strip("[]") or headers.get("host", "")
        if self._hosts and host not in self._hosts:
            return PlainTextResponse("this server goes by another name", 421)
        if "://" in scope["path"] or "/proxy=" in scope["path"]:
            return PlainTextResponse("addresses are not fetched", 403)
        if scope["method"] == "POST" and not scope["path"].endswith("/upload"):
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return PlainTextResponse("say how long the request is", 411)
            if int(length) > LARGEST_QUESTION:
                return PlainTextResponse(f"more than {LARGEST_QUESTION:,} bytes", 413)
        return None


@contextlib.contextmanager
def gradio_settings() -> Iterator[None]:
    """Keep Gradio from reporting to its makers, and uploads in a folder that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="scanner-page-") as folder:
        own = {**ENVIRONMENT, "GRADIO_TEMP_DIR": folder}
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 takes any that is free.

    Raises:
        OSError: the port is taken, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def make_server(page: gr.Blocks, host: str) -> uvicorn.Server:
    """A server of the page; `run(sockets=[listen(...)])` serves until a signal, or `should_exit`.

    Args:
        page: made within `gradio_settings`.
        host: what it listens on; beyond loopback it goes by any name.
    """
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard, hosts=LOOPBACK if host in LOOPBACK else ())
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        css_paths=FOLDER / "app.css",
    )
    # Browsers keep a connection open to hear of the queue, which would never end by itself. Logging is
    # left as it is: uvicorn's own settings would close the handlers of all other loggers.
    config = uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config)
