"""The page served: asked through Gradio's client and over HTTP, and used in a real browser."""

from __future__ import annotations

import html
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from app_screenshot import PATIENCE, browser, chromium, click_example
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page

from scanner_jax import export
from scanner_jax.app.answering import LONGEST_TEXT, Desk
from scanner_jax.app.page import make_page
from scanner_jax.app.serving import LARGEST_QUESTION, gradio_settings, listen, make_server
from scanner_jax.files import read_json
from scanner_jax.model_options import Known
from scanner_jax.scanner import Request, Scanner
from scanner_jax.store import Store
from scanner_jax.wikipedia import WikipediaIndex

TEXT = "Ada and Zen Bank are so cold, Oslo again"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Served(NamedTuple):
    """A page that runs, its model with what is looked up, and who was connected to, by name or number."""

    address: str
    page: Any
    scanner: Scanner
    known: Known
    reached: set[str]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures by the names that the store knows, and others."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (120, 60), "teal").save(folder / "0.png")
    Image.new("RGB", (120, 60), "olive").save(folder / "holiday.png")
    Image.new("L", (10_000, 5_000)).save(folder / "large.png", compress_level=1)
    (folder / "letter.jpg").write_text("Dear Ada,\n")
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(bytes(1000))))
    return folder


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="module")
def served(finished_run: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model = export.export(finished_run, tmp_path_factory.mktemp("exported") / "model")
    knowledge = read_json(finished_run / "run.json")["config"]["knowledge"]
    reached: set[str] = set()
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def noted_connect(self: socket.socket, address: Any) -> None:
        reached.update([address[0]] if self.family in (socket.AF_INET, socket.AF_INET6) else [])
        connect(self, address)

    def noted_getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        reached.add(host if isinstance(host, str) else repr(host))
        return getaddrinfo(host, *arguments, **options)

    with (
        pytest.MonkeyPatch.context() as patch,
        gradio_settings(),
        WikipediaIndex.open(knowledge["wikipedia_index"]) as index,
        Scanner.from_pretrained(model) as scanner,
    ):
        patch.setattr(socket.socket, "connect", noted_connect)
        patch.setattr(socket, "getaddrinfo", noted_getaddrinfo)
        known = Known(knowledge=Store.open(knowledge["store"]), wikipedia=index)
        examples = [(TEXT, str(pictures / "0.png")), ("saw Ada again", None)]
        page = make_page(Desk(scanner, known), examples, name="model")
        server = make_server(page, "127.0.0.1")
        with listen("127.0.0.1", 0) as taken:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
            thread.start()
            yield Served(f"http://127.0.0.1:{taken.getsockname()[1]}", page, scanner, known, reached)
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return Client(served.address, verbose=False, analytics_enabled=False)


def ask(client: Client, text: str | None, picture: Path | None = None) -> str:
    answer: str = client.predict(text, handle_file(picture) if picture else None, api_name="/find")
    return answer


def marked(answer: str) -> list[tuple[str, str]]:
    """Text and type of the entities in an answer."""
    found = re.findall(r"<mark[^>]*>(.*?)<b>(\w+)</b></mark>", answer)
    return [(html.unescape(text), label) for text, label in found]


def sentence(answer: str) -> str:
    """The text in an answer, as it is read, without the types."""
    (found,) = re.findall(r'<p class="sentence"[^>]*>(.*?)</p>', answer, re.DOTALL)
    return html.unescape(re.sub("<b>.*?</b>|<[^>]*>", "", found))


def test_a_question_is_answered_with_what_was_known(served: Served, client: Client, pictures: Path) -> None:
    answer = ask(client, TEXT, pictures / "0.png")
    (found,) = served.scanner.explain([Request(text=TEXT, image=pictures / "0.png")], **served.known)
    assert sentence(answer) == TEXT
    assert marked(answer) == [(entity.text, entity.label) for entity in found.entities] != []
    texts = {known.wikipedia for known in found.knowledge.values()} - {""}
    assert texts and all(f">{text}</dd>" in answer for text in texts)
    assert "a photo of a place" in answer and "person 0.90: a person" in answer
    assert "The store has a picture of this name, 0: caption and objects are that one&#39;s." in answer
    boxes = [entity.box for entity in found.entities if entity.box]
    assert 'viewBox="0 0 120 60"' in answer and answer.count('class="box"') == len(boxes) > 0
    alone = ask(client, TEXT)
    assert marked(alone) == [
        (e.text, e.label) for e in served.scanner.predict(TEXT, wikipedia=served.known["wikipedia"])
    ]
    assert "none: no picture was given" in alone and "<svg" not in alone


def test_a_picture_that_nobody_knows_is_said(client: Client, pictures: Path) -> None:
    answer = ask(client, TEXT, pictures / "holiday.png")
    assert "pictures are not looked at" in answer and "--expert captions=MODEL" in answer
    assert "none of this picture" in answer and 'viewBox="0 0 120 60"' in answer


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_empty_input_is_said(client: Client, text: str | None) -> None:
    answer = ask(client, text)
    assert 'role="alert">Write a sentence' in answer and "<mark" not in answer


def test_a_long_text_is_said(client: Client) -> None:
    assert "5,001 characters, and 5,000 are the most here" in ask(client, "x" * (LONGEST_TEXT + 1))


@pytest.mark.parametrize(("name", "why"), [("letter.jpg", "not an image"), ("bomb.png", "more than 67,108,864 pixels")])
def test_what_is_no_picture_is_said_and_the_text_read(client: Client, pictures: Path, name: str, why: str) -> None:
    answer = ask(client, TEXT, pictures / name)
    assert f"The picture cannot be used: {why}. The sentence was read without it." in answer
    assert marked(answer) == marked(ask(client, TEXT)) != []


def test_a_picture_of_50_megapixels_is_shown_small(client: Client, pictures: Path) -> None:
    answer = ask(client, TEXT, pictures / "large.png")
    assert 'viewBox="0 0 10000 5000"' in answer and len(answer) < 100_000
    assert marked(answer) != []


@pytest.mark.parametrize(
    "text",
    ["Ada <script>alert(1)</script> &amp; Oslo", "{{value}} ${1 + 1} @children `Oslo`", "Ada \x00 \u202e Oslo"],
)
def test_markup_stays_text(client: Client, text: str) -> None:
    answer = ask(client, text)
    assert "<script" not in answer and "problem" not in answer
    assert sentence(answer) == text


def call(served: Served, *data: Any) -> str:
    """Ask over HTTP, as a program without Gradio's client does; returns the events that answer."""
    address, body = f"{served.address}/gradio_api/call/find", json.dumps({"data": data})
    event = httpx.post(address, content=body, headers={"content-type": "application/json"}).json()["event_id"]
    return httpx.get(f"{address}/{event}", timeout=PATIENCE / 1000).text


def test_half_a_character_is_replaced(served: Served) -> None:
    answered = call(served, "saw \ud83d here", None)
    assert "event: complete" in answered and "saw ? here" in re.sub("<[^>]*>", "", answered)


def test_twenty_at_once_are_answered_one_after_the_other(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain, here, most = served.scanner.explain, [], []

    def noted(*arguments: Any, **options: Any) -> Any:
        here.append(1)
        most.append(len(here))
        try:
            return explain(*arguments, **options)
        finally:
            here.pop()

    monkeypatch.setattr(served.scanner, "explain", noted)
    texts = [f"Oslo {number} again" for number in range(20)]
    jobs = [client.submit(text, None, api_name="/find") for text in texts]
    assert [sentence(job.result()) for job in jobs] == texts
    assert most == [1] * 20


def test_only_the_page_s_own_files_are_read_and_given(served: Served, pictures: Path) -> None:
    here = Path(__file__)
    for path in (here, f"{here.parent}/../pyproject.toml", "/etc/hostname"):
        assert httpx.get(f"{served.address}/gradio_api/file={path}").status_code == 403
    for place in (str(here), str(pictures / "0.png"), f"{served.address}/favicon.ico", "http://127.0.0.1:1/x.png"):
        said = call(served, TEXT, {"path": place, "meta": {"_type": "gradio.FileData"}})
        assert "event: error" in said and "<mark" not in said
    for path in (f"file={served.address}/favicon.ico", f"proxy={served.address}/favicon.ico"):
        assert httpx.get(f"{served.address}/gradio_api/{path}").status_code == 403


def test_other_files_are_refused_after_a_click_on_an_example_too(served: Served) -> None:
    """Which has Gradio make the inputs again for the session."""
    (clicked,) = [number for number, event in served.page.fns.items() if event.name == "load_example"]
    assert '"success":true' in join(served, clicked, 0)
    (find, *_) = [number for number, event in served.page.fns.items() if event.name == "find"]
    outside = {"path": str(Path(__file__)), "meta": {"_type": "gradio.FileData"}}
    for data in ((TEXT, outside), (outside, None)):
        said = join(served, find, *data)
        assert '"success":false' in said and "other files are not read" in said


def join(served: Served, number: int, *data: Any) -> str:
    """Have an event of the page happen in one session, as a browser does; returns the events that answer."""
    address, session = f"{served.address}/gradio_api/queue", "a-session"
    httpx.post(f"{address}/join", json={"data": data, "fn_index": number, "session_hash": session}).raise_for_status()
    return httpx.get(f"{address}/data", params={"session_hash": session}, timeout=PATIENCE / 1000).text


def test_other_names_and_large_requests_are_refused(
    served: Served, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, status in (("elsewhere.example", 421), ("localhost:1", 200), ("[::1]:1", 200)):
        assert httpx.get(served.address, headers={"host": host}).status_code == status
    call = f"{served.address}/gradio_api/call/find"
    assert httpx.post(call, content=b"{" + b" " * LARGEST_QUESTION).status_code == 413
    assert httpx.post(call, content=iter([b"{}"])).status_code == 411
    monkeypatch.setattr(served.page, "max_file_size", 1000)
    upload = {"files": ("0.png", bytes(2000))}
    assert httpx.post(f"{served.address}/gradio_api/upload", files=upload).status_code == 413


def test_browsers_are_told_to_reach_no_other_server(served: Served) -> None:
    answer = httpx.get(served.address)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert httpx.get(f"{served.address}/config").json()["analytics_enabled"] is False
    assert "sandbox" in httpx.get(f"{served.address}/gradio_api/file=x").headers["content-security-policy"]


def test_nothing_else_was_reached(served: Served) -> None:
    """By this process, in which the page ran for all tests above."""
    assert served.reached and served.reached <= LOOPBACK


@pytest.fixture(scope="module")
def opened(served: Served) -> Iterator[Page]:
    """The page in a browser; in the end, no error was logged there and nothing asked of another server."""
    if chromium() is None:
        pytest.skip("no chromium: apt-get install chromium")
    complaints: list[str] = []
    asked: set[str] = set()
    with browser() as started:
        page = started.new_page(viewport={"width": 1100, "height": 800})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(served.address)
        yield page
    assert complaints == []
    assert {address for address in asked if not address.startswith((served.address, "data:", "blob:"))} == set()


def type_and_press(page: Page, text: str) -> str:
    """Ask as a person does; returns the answer's HTML."""
    page.get_by_label("Sentence").fill(text)
    page.get_by_role("button", name="Find entities").click()
    shown = page.locator("#answer .sentence", has_text=text.split()[-1])
    shown.wait_for()
    return page.locator("#answer .answer").inner_html()


def test_in_a_browser_a_typed_sentence_is_answered(served: Served, opened: Page) -> None:
    found = served.scanner.predict("saw Ada, Oslo and Quito", wikipedia=served.known["wikipedia"])
    assert found and marked(type_and_press(opened, "saw Ada, Oslo and Quito")) == [(e.text, e.label) for e in found]
    text = "<img src=x onerror=\"document.title='run'\"> {{value}} ${1 + 1} @children Oslo2"
    assert sentence(type_and_press(opened, text)) == text
    assert "run" not in opened.title()


def test_in_a_browser_an_example_is_clicked_and_a_picture_given(opened: Page, pictures: Path) -> None:
    click_example(opened, 1)
    opened.locator("#answer .picture").wait_for()
    assert opened.get_by_label("Sentence").input_value() == TEXT
    opened.locator("#picture").get_by_label("Remove Image").click()
    opened.locator("input[type=file]").set_input_files(pictures / "letter.jpg")
    opened.get_by_role("button", name="Find entities").click()
    opened.locator("#answer .problem", has_text="not an image").wait_for()


def test_in_a_browser_it_fits_a_narrow_window_and_the_dark(served: Served, opened: Page) -> None:
    opened.set_viewport_size({"width": 360, "height": 700})
    opened.emulate_media(color_scheme="dark")
    opened.goto(served.address)
    type_and_press(opened, TEXT)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    text, ground = (
        [
            int(part)
            for part in re.findall(r"\d+", opened.locator(place).evaluate(f"e => getComputedStyle(e).{what}"))[:3]
        ]
        for place, what in (("#answer .sentence", "color"), ("body", "backgroundColor"))
    )
    assert min(text) > 200 and max(ground) < 60
