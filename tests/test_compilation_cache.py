"""The cache of compiled programs, and compiling ahead of the first prediction."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax.monitoring
import pytest

from scanner_jax import compilation_cache, detection, export, predict, recognition, warming
from scanner_jax.compilation_cache import keep_compiled, user_folder
from scanner_jax.scanner import Scanner
from scanner_jax.types import ImageObject, Knowledge

TEXTS = ["saw Ada again today", "Lake Mira, and Quito are great!", "why is Zen Bank so cold?", "nothing here", "Oslo"]
KNOWN = Knowledge(caption="a photo of a place", objects=(ImageObject((1, 2, 30, 40), "person", 0.9),))
COMPILED = "/jax/core/compile/backend_compile_duration"
HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export(finished_run, tmp_path_factory.mktemp("exported") / "model", weights="safetensors")


@pytest.fixture
def forgotten() -> None:
    """No program of either stage is in this process."""
    detection._forward.cache_clear()
    recognition._forward.cache_clear()


@pytest.fixture
def two_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage has two lengths to pad to, so that there is less to compile."""
    for module in (detection, recognition, warming):
        monkeypatch.setattr(module, "length_buckets", lambda most: (32, most))


@contextlib.contextmanager
def events() -> Iterator[Counter[str]]:
    """What JAX says that it does meanwhile; compiling counts where a program is read from disk as well."""
    seen: Counter[str] = Counter()

    def count(event: str, **_: str | int) -> None:
        seen[event] += 1

    def count_duration(event: str, duration_secs: float, **_: str | int) -> None:
        seen[event] += 1

    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(count_duration)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_listener(count)
        jax.monitoring.unregister_event_duration_listener(count_duration)


def test_after_warming_up_no_prediction_compiles(folder: Path, forgotten: None, two_lengths: None) -> None:
    with events() as seen:
        scanner = Scanner.from_pretrained(folder, warm_up=True)
        assert seen[COMPILED] >= 10  # two lengths of a sentence, and two of prompts by 4 numbers of spans
        assert scanner.warm_up() == 0
    with events() as seen:
        texts = [*TEXTS, " ".join(TEXTS), " ".join(TEXTS * 9)]
        assert sum(len(scanner.predict(text, knowledge=known)) for text in texts for known in (KNOWN, None)) > 20
    assert not seen[COMPILED]
    with events() as seen:
        scanner.predict_batch(TEXTS)
    assert seen[COMPILED]  # the listener does hear of what is compiled


def test_warming_up_for_batches(folder: Path, forgotten: None, two_lengths: None) -> None:
    scanner = Scanner.from_pretrained(folder)
    assert scanner.warm_up(batch_size=3) == 2 * (3 + 4)  # 1, 2, 3 texts; 1, 2, 4, 8 spans
    assert scanner.warm_up(batch_size=2) == 0
    with events() as seen:
        for count in (1, 2, 3, 4, 10):
            scanner.predict_batch((TEXTS * 2)[:count], batch_size=3, knowledge=KNOWN)
    assert not seen[COMPILED]
    with pytest.raises(ValueError, match="batch_size=0"):
        scanner.warm_up(batch_size=0)


def test_what_was_compiled_is_read_from_disk_by_the_next_process(
    folder: Path, forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process: one that has nothing of it in memory."""
    monkeypatch.setattr(compilation_cache, "LEAST_SECONDS", 0.0)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with events() as first:
        expected = Scanner.from_pretrained(folder, compilation_cache=tmp_path / "xla").predict_batch(TEXTS)
    programs = list((tmp_path / "xla").iterdir())
    assert first[MISS] >= 2 and len(programs) >= 2
    detection._forward.cache_clear()
    recognition._forward.cache_clear()
    with events() as second:
        assert Scanner.from_pretrained(folder, compilation_cache=tmp_path / "xla").predict_batch(TEXTS) == expected
    assert second[HIT] >= 2 and not second[MISS]
    assert list((tmp_path / "xla").iterdir()) == programs
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chosen = user_folder()
    assert chosen is not None and chosen.parent == tmp_path / "cache" / "scanner_jax"
    monkeypatch.setattr(compilation_cache, "_processor", lambda: "another")
    assert user_folder() != chosen
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        chosen = user_folder()
        assert chosen is not None and chosen.parent == tmp_path / "home" / ".cache" / "scanner_jax"


def test_by_default_it_is_the_users_and_it_can_be_turned_off(folder: Path) -> None:
    Scanner.from_pretrained(folder, compilation_cache=False)
    assert jax.config.values["jax_compilation_cache_dir"] is None
    Scanner.from_pretrained(folder)
    assert jax.config.values["jax_compilation_cache_dir"] == str(user_folder())


def test_what_jax_has_already_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert keep_compiled() == tmp_path / "own" and not caplog.messages
    assert keep_compiled(tmp_path / "own") == tmp_path / "own" and not caplog.messages
    assert keep_compiled(tmp_path / "other") == tmp_path / "own"
    assert "own already, so not in" in caplog.messages[0] and not (tmp_path / "other").exists()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert keep_compiled(tmp_path / "file" / "xla") is None
    assert "cannot be written" in caplog.text and jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "xla").mkdir(mode=0o500)
    assert keep_compiled(tmp_path / "xla") is None and "cannot be written" in caplog.text


def test_the_commands_options(
    folder: Path, tmp_path: Path, two_lengths: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--model", str(folder), "--text", TEXTS[0]]
    assert predict.main([*plain, "--compilation-cache", "none"]) == 0
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert predict.main([*plain, "--compilation-cache", str(tmp_path / "xla"), "--warm-up"]) == 0
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "xla")
    said = capsys.readouterr().err
    assert "compiling programs for batches of 1" in said and "programs are ready" in said
