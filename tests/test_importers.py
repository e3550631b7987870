"""Importing published knowledge files, from invented ones and (where they are) the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner_jax.store import Store, StoreError
from scanner_jax.store.__main__ import main
from scanner_jax.store.importers import cut_repetition, read_captions, read_notes
from scanner_jax.types import Example
from scanner_jax.wikipedia import WikipediaIndex

DATA = Path("data")

CORPUS = {
    "train": (Example("t1", ("Mia", "sails", "\u00a0")), Example("t2", ("Go", "#Oslo"))),
    "dev": (Example("d1", ("Hello", "Bergen")),),
    "test": (Example("e1", ("Rain", "again")),),
}

NOTES = {
    "train": "Mia\tB-PER\nsails\tO\n\u00a0\tO\n<EOS>\tX\nMia\tX\nis\tX\n\tX\na\tX\nsailor.\tX\n\n"
    "Go\tO\n#Oslo\tB-LOC\n<EOS>\tX\nOslo\tX\ncity\tX\n\n",
    "valid": "Hello\tO\nBergen\tB-LOC\n<EOS>\tX\nA\tX\ntown\tX\n",
    "test": "Rain\tO\nagain\tO\n<EOS>\tX\nnothing\tX\n\n",
}


def notes_folder(folder: Path, end: str = "\r\n", **changed: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in {**NOTES, **changed}.items():
        (folder / f"{name}.txt").write_bytes(text.replace("\n", end).encode())
    return folder


def real_corpus(files: dict[str, str]) -> dict[str, list[Example]]:
    """A reader of its own, so that these tests check the importer and not the corpora room."""
    corpus = {}
    for split, path in files.items():
        blocks = [block.split("\n") for block in (DATA / path).read_bytes().decode().strip("\n").split("\n\n")]
        corpus[split] = [Example(head[6:], tuple(row.split("\t")[0] for row in rows)) for head, *rows in blocks]
    return corpus


def test_captions_are_split_at_the_first_colon_and_keyed_without_extension(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes("7.jpg :a sign : no dogs\r\n\n16_1.v2.PNG :zwei Möwen\n8.jpg :\n9.jpg : \n".encode())
    imported = read_captions([path])
    assert dict(imported.records) == {"7": {"text": "a sign : no dogs"}, "16_1.v2": {"text": "zwei Möwen"}}
    assert imported.remarks["skipped, empty"] == (f"{path}:4", f"{path}:5")
    again = read_captions([path, path])
    assert again.records == imported.records
    assert again.remarks["skipped, same image and caption as before"] == (f"{path}:1", f"{path}:3")


def test_malformed_captions_are_all_listed(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes(b"7.jpg :a dog\nno colon\n.jpg :x\n8.txt :x\n\xff\xfe.jpg :y\n")
    second.write_text("7.jpg :a dog\n7.jpg :a cat\n")
    with pytest.raises(StoreError) as caught:
        read_captions([first, second, tmp_path / "none.txt", tmp_path])
    lines = str(caught.value).splitlines()
    places = [f"{first}:2:", f"{first}:3:", f"{first}:4:", f"{first}:5: not UTF-8", f"{second}:2: 7.jpg has another"]
    assert len(lines) == 8
    assert all(line.startswith(place) for line, place in zip(lines[1:], places, strict=False))
    assert "does not exist" in lines[6]
    assert "is a folder" in lines[7]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kite, kite, kite, kite, kite", "kite"),
        ("red kite - red kite - red kite - red kite - red ki", "red kite"),
        ("two boats sea sea sea sea sea s", "two boats sea"),
        ("jobs jobs jobs", "jobs jobs jobs"),
        ("no, no, no, no thanks to you", "no, no, no, no thanks to you"),
        ("ha ha ha ha says the dog, dog, dog, dog, do", "ha ha ha ha says the dog"),
        ("no no no no way no no no no thanks", "no no no no way no no no no thanks"),
        ("art artist artistic arts", "art artist artistic arts"),
        ("", ""),
    ],
)
def test_only_a_repetition_up_to_the_end_is_cut(text: str, expected: str) -> None:
    assert cut_repetition(text) == expected


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_notes_get_the_ids_of_their_examples(tmp_path: Path, end: str) -> None:
    imported = read_notes(notes_folder(tmp_path, end), CORPUS)
    texts = {key: value["text"] for key, value in imported.records}
    assert texts == {"t1": "Mia is a sailor.", "t2": "Oslo city", "d1": "A town", "e1": "nothing"}
    assert imported.remarks["examples without notes"] == ()


def test_the_last_note_of_a_split_may_be_missing_and_no_other(tmp_path: Path) -> None:
    one = NOTES["train"].split("\n\n")[0] + "\n\n"
    imported = read_notes(notes_folder(tmp_path, train=one), CORPUS)
    assert imported.remarks["examples without notes"] == ("train t2",)
    assert [key for key, _ in imported.records] == ["t1", "d1", "e1"]
    longer = {**CORPUS, "train": (*CORPUS["train"], Example("t3", ("Bye",)))}
    with pytest.raises(StoreError, match=r"train.txt: 1 sentences, and the corpus's train split has 3: only the last"):
        read_notes(tmp_path, longer)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "#Oslo\t",
            "Oslo\t",
            r"train.txt:12: expected '#Oslo', found 'Oslo', in sentence 2, example t2 of train; 1 of 2",
        ),
        ("sails\tO\n", "", r"train.txt:2: expected 'sails', found '\\xa0', in sentence 1"),
        ("#Oslo\tB-LOC\n", "", r"train.txt:12: expected '#Oslo', found the end of the sentence"),
        ("#Oslo\tB-LOC\n", "#Oslo\tO\n!\tO\n", r"train.txt:13: expected the end of the sentence, found '!'"),
        ("\u00a0\t", " \t", r"train.txt:3: expected '\\xa0', found ' '"),
        ("<EOS>\tX\nOslo", "Oslo", r"train.txt:11: a sentence without its '<EOS><TAB>X' line"),
        ("sails\tO", "\tO", r"train.txt:2: expected 'word<TAB>tag'"),
        ("is\tX", "is X", r"train.txt:6: expected 'word<TAB>tag', found 'is X'"),
    ],
)
def test_a_mismatch_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in NOTES["train"]
    with pytest.raises(StoreError, match=message):
        read_notes(notes_folder(tmp_path, train=NOTES["train"].replace(old, new)), CORPUS)


def test_problems_of_every_notes_file_are_listed(tmp_path: Path) -> None:
    folder = notes_folder(tmp_path, test=NOTES["test"] * 2, train=NOTES["train"].replace("Mia\tB", "Ida\tB"))
    (folder / "valid.txt").unlink()
    with pytest.raises(StoreError, match=r"(?s)train.txt:1: .*no valid.txt or dev.txt.*test.txt: 2 sentences"):
        read_notes(folder, CORPUS)


def test_the_captions_and_wikipedia_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, pages = tmp_path / "captions.txt", tmp_path / "pages.jsonl"
    captions.write_text("7.jpg :a dog\n8.jpg :\n")
    pages.write_text('{"title": "Oslo", "text": "A city."}\n{"title": "Oslo", "text": "Again."}\n')
    assert main(["import", "captions", str(captions), str(tmp_path / "new" / "store")]) == 0
    assert main(["import", "wikipedia", str(pages), str(tmp_path / "wiki" / "index.sqlite")]) == 0
    printed = capsys.readouterr().out
    assert "1 captions -> " in printed
    assert f"skipped, empty: 1 ({captions}:2)" in printed
    assert "skipped, title seen before: 1" in printed
    assert Store.open(tmp_path / "new" / "store").caption("7") == "a dog"
    with WikipediaIndex.open(tmp_path / "wiki" / "index.sqlite") as index:
        (hit,) = index.lookup(["Oslo"])
        assert hit is not None
        assert hit.text == "A city."
        assert index.provenance["sources"][0]["file"] == "pages.jsonl"


def test_the_notes_command_aligns_with_a_corpus_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, store = tmp_path / "corpus", tmp_path / "store"
    corpus.mkdir()
    for split, name in (("train", "train"), ("dev", "valid"), ("test", "test")):
        tweets = (f"IMGID:{e.id}\n" + "".join(f"{word}\tO\n" for word in e.words) for e in CORPUS[split])
        (corpus / f"{name}.txt").write_text("\n".join(tweets))
    arguments = [str(notes_folder(tmp_path / "notes")), str(store), "--corpus"]
    assert main(["import", "notes", *arguments, str(corpus)]) == 0
    assert "4 notes -> " in capsys.readouterr().out
    assert Store.open(store).notes("t1") == "Mia is a sailor."
    assert Store.open(store).provenance("notes")["corpus"]["name"] == "corpus"
    (corpus / "valid.txt").write_text("IMGID:d1\nHello\tO\nStavanger\tO\n")
    assert main(["import", "notes", *arguments, str(corpus)]) == 1
    assert "valid.txt:2: expected 'Stavanger', found 'Bergen'" in capsys.readouterr().err
    assert main(["import", "notes", *arguments, str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_bad_commands_end_with_1_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, missing = tmp_path / "captions.txt", str(tmp_path / "missing")
    captions.write_text("nonsense\nmore nonsense\n")
    store, index = str(tmp_path / "store"), str(tmp_path / "index.sqlite")
    for arguments, expected in [
        (["captions", str(captions), store], f"{captions}:2: expected 'IMAGE.jpg :caption'"),
        (["captions", missing, store], "missing does not exist"),
        (["wikipedia", missing, index], "missing does not exist"),
        (["wikipedia", str(tmp_path), index], "is a folder"),
        (["wikipedia", str(captions), index], f"{captions}:2: not JSON"),
        (["wikipedia", index, str(captions)], "exists and is no SQLite file"),
    ]:
        assert main(["import", *arguments]) == 1
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["captions.txt"]


@pytest.mark.skipif(not (DATA / "captions").is_dir(), reason="needs data/captions")
@pytest.mark.parametrize(
    ("names", "count", "empty", "cut"),
    [
        (("BLIP2_15.txt",), 8286, 2, 84),
        (("BLIP2_17.txt",), 4819, 0, 51),
        (("BLIP2_15.txt", "BLIP2_17.txt"), 13104, 2, 135),
    ],
)
def test_the_real_captions(names: tuple[str, ...], count: int, empty: int, cut: int) -> None:
    imported = read_captions([DATA / "captions" / name for name in names])
    assert len(imported.records) == count
    assert len(imported.remarks["skipped, empty"]) == empty
    assert len(imported.remarks["repetition cut"]) == cut


@pytest.mark.skipif(not (DATA / "chatgpt").is_dir(), reason="needs data/chatgpt and the two corpora")
@pytest.mark.parametrize(
    ("folder", "files", "counts"),
    [
        ("twitter2015", ("twitter2015/train.txt", "twitter2015/valid.txt", "twitter2015/test.txt"), (8254, 3)),
        ("twitter_gmner", tuple(f"twitter_gmner/txt/{split}.txt" for split in ("train", "dev", "test")), (10000, 0)),
    ],
)
def test_the_real_notes_align(folder: str, files: tuple[str, ...], counts: tuple[int, int]) -> None:
    corpus = real_corpus(dict(zip(("train", "dev", "test"), files, strict=True)))
    imported = read_notes(DATA / "chatgpt" / folder, corpus)
    assert (len(imported.records), len(imported.remarks["examples without notes"])) == counts
    swapped = {**corpus, "test": [*corpus["test"][1::-1], *corpus["test"][2:]]}
    with pytest.raises(StoreError, match=r"test.txt:\d+: expected .* 2 of \d+ sentences differ"):
        read_notes(DATA / "chatgpt" / folder, swapped)
