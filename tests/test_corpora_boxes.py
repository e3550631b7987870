"""Boxes of a corpus: what is read from its XML files, what is only told, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from scanner_jax.corpora import CorpusError, load_corpus, read_corpus
from scanner_jax.corpora.__main__ import main
from scanner_jax.corpora.fingerprints import KNOWN_VARIANTS, SplitFingerprint, recognise
from scanner_jax.types import Box, Entity

Named = tuple[str, Box]

MIRA, DOG = (10.0, 20.0, 110.0, 220.0), (0.0, 0.0, 50.0, 60.0)
TRAIN = """IMGID:1
Mira\tB-PER
Okafor\tI-PER
and\tO
Mira\tB-PER
Okafor\tI-PER
in\tO
Tamsin\tB-LOC

IMGID:2
Reds\tB-ORG

IMGID:1
Mira\tB-PER
"""


def xml(objects: list[Named], *, size: tuple[int, int] = (200, 300), filename: str = "1.jpg") -> str:
    boxes = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[0]:g}</xmin><ymin>{box[1]:g}</ymin>"
        f"<xmax>{box[2]:g}</xmax><ymax>{box[3]:g}</ymax></bndbox></object>"
        for name, box in objects
    )
    width, height = (f"<{side}>{length}</{side}>" for side, length in zip(("width", "height"), size, strict=True))
    return f"<annotation><filename>{filename}</filename><size>{width}{height}</size>{boxes}</annotation>"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Tweets of two images; each test writes the XML files that it needs."""
    folder = tmp_path / "tweets"
    (folder / "xml").mkdir(parents=True)
    (folder / "train.txt").write_text(TRAIN)
    (folder / "dev.txt").write_text("IMGID:3\nTamsin\tB-LOC\n")
    (folder / "test.txt").write_text("IMGID:4\nMira\tB-PER\n")
    return folder


def write(corpus: Path, image: str, text: str) -> None:
    (corpus / "xml" / f"{image}.xml").write_text(text, encoding="utf-8")


def boxes(entities: tuple[Entity, ...]) -> list[tuple[Box, ...]]:
    return [entity.boxes for entity in entities]


def test_an_entity_has_the_boxes_that_bear_its_surface(corpus: Path) -> None:
    # The file's own name counts; what stands in <filename> is another image's.
    write(corpus, "1", xml([("Mira Okafor", MIRA), ("Tamsin", DOG), ("Mira Okafor", DOG)], filename="2.jpg"))
    first, other, second = read_corpus(corpus).splits["train"]
    assert boxes(first.entities) == [(MIRA, DOG), (MIRA, DOG), (DOG,)]  # equal mentions share their boxes
    assert boxes(other.entities) == [()]  # no file
    assert boxes(second.entities) == [()]  # the same image, another surface: "Mira" is not "Mira Okafor"


def test_white_space_of_xml_is_one_blank_and_no_other(corpus: Path) -> None:
    write(corpus, "1", xml([("\n Mira\n\tOkafor ", MIRA), ("Tamsin\u00a0", DOG)]))
    first = read_corpus(corpus).splits["train"][0]
    assert boxes(first.entities) == [(MIRA,), (MIRA,), ()]


def test_orphans_are_listed_and_not_fatal(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(corpus, "1", xml([("Mira Okafro", MIRA), ("mira okafor", MIRA), ("Tamsin", DOG), ("Mira Okafro", DOG)]))
    write(corpus, "9", xml([("Reds", MIRA)]))
    found = read_corpus(corpus)
    assert boxes(found.splits["train"][0].entities) == [(), (), (DOG,)]
    assert main(["check", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 names in xml/ that are no entity's; their boxes are left out: 1 'Mira Okafro' (perhaps 'Mira Okafor'); "
        in (printed)
    )
    assert "1 'mira okafor'" in printed
    assert "1 files in xml/ whose image no sentence has: 9.xml" in printed


def test_many_orphans_are_counted(corpus: Path) -> None:
    write(corpus, "1", xml([(f"nobody {number}", MIRA) for number in range(7)]))
    (warning,) = [warning for warning in read_corpus(corpus).warnings if "no entity's" in warning]
    assert warning.startswith("7 names") and warning.count("nobody") == 5 and warning.endswith("; ...")


def test_a_split_without_gold_makes_no_orphans(corpus: Path) -> None:
    (corpus / "test.txt").write_text("IMGID:4\nMira\n")
    write(corpus, "4", xml([("Mira", MIRA)]))
    assert not [warning for warning in read_corpus(corpus).warnings if "xml/" in warning]


def test_odd_boxes_are_listed(corpus: Path) -> None:
    outside, flat, turned = (-1.0, 20.0, 50.0, 301.0), (5.0, 5.0, 5.0, 9.0), (9.0, 5.0, 5.0, 9.0)
    write(corpus, "1", xml([("Mira Okafor", outside), ("Tamsin", flat), ("Tamsin", turned)]))
    write(corpus, "2", xml([("Reds", outside)], size=(0, 0)))  # how some tools say that they do not know
    found = read_corpus(corpus)
    assert boxes(found.splits["train"][0].entities) == [(outside,), (outside,), ()]
    (warning,) = [warning for warning in found.warnings if "odd boxes" in warning]
    assert warning == (
        "3 odd boxes in xml/: 1 'Mira Okafor': [-1, 20, 50, 301] reaches out of 200 x 300, kept as it is; "
        "1 'Tamsin': [5, 5, 5, 9] has no area, left out; 1 'Tamsin': [9, 5, 5, 9] has no area, left out"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation><object>", "XML that cannot be read"),
        ("", "XML that cannot be read"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "XML that cannot be read"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "XML that cannot be read"),
        (xml([(" ", MIRA)]), "object 1 without a name"),
        (xml([("Reds", MIRA)]).replace("10", "ten"), "object 1, 'Reds': no box"),
        (xml([("Reds", MIRA)]).replace("10", "nan"), "object 1, 'Reds': no box"),
        (xml([("Reds", MIRA)]).replace("<xmin>10</xmin>", ""), "object 1, 'Reds': no box"),
        (xml([("Reds", MIRA)]).replace("<xmin>10</xmin>", "<xmin>10</xmin>" * 2), "object 1, 'Reds': no box"),
        (xml([("Reds", MIRA)]).replace("bndbox", "polygon"), "object 1, 'Reds': no box"),
    ],
)
def test_what_cannot_be_read_is_named(corpus: Path, text: str, said: str) -> None:
    write(corpus, "2", text)
    (corpus / "dev.txt").write_text("IMGID:3\nno tag\n")  # another problem, told in the same breath
    with pytest.raises(CorpusError, match="xml/2.xml: ") as raised:
        read_corpus(corpus)
    assert said in str(raised.value) and "dev.txt" in str(raised.value)


def test_boxes_are_part_of_the_fingerprint(corpus: Path, tmp_path: Path) -> None:
    without = load_corpus(corpus, prepared_dir=tmp_path / "prepared")
    assert not without.has_boxes
    write(corpus, "1", xml([("Tamsin", DOG)]))
    one = load_corpus(corpus, prepared_dir=tmp_path / "prepared")
    write(corpus, "1", xml([("Tamsin", MIRA)]))
    other = load_corpus(corpus, prepared_dir=tmp_path / "prepared")
    assert len({without.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert other.has_boxes and other.split_fingerprints["train"].groundable == {"LOC": 1}
    assert boxes(other.splits["train"][0].entities) == [(), (), (MIRA,)]
    assert other == read_corpus(corpus)


def test_check_counts_groundable_entities(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(corpus, "1", xml([("Mira Okafor", MIRA), ("Mira Okafor", DOG)]))
    write(corpus, "3", xml([("Tamsin", DOG)]))
    assert main(["check", str(corpus)]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["groundable", "/", "not", "train", "dev", "test", "all"] in printed
    assert ["LOC", *"0 / 1 1 / 0 0 / 0 1 / 1".split()] in printed
    assert ["PER", *"2 / 1 0 / 0 0 / 1 2 / 2".split()] in printed
    assert ["all", *"2 / 3 1 / 0 0 / 1 3 / 4".split()] in printed
    assert "boxes: 3 in 2 files of xml/; one entity has up to 2".split() in printed


def test_sizes_are_compared_with_the_images(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for image, size in {"1": (200, 300), "2": (640, 480), "3": (200, 300), "4": (0, 0)}.items():
        write(corpus, image, xml([], size=size))
    folder = corpus / "images"
    folder.mkdir()
    Image.new("RGBA", (200, 300)).save(folder / "1.jpg", format="PNG")  # as some published ones are
    Image.new("RGB", (20, 30)).save(folder / "2.png")
    (folder / "3.jpg").write_bytes(b"no image")
    assert main(["check", str(corpus)]) == 0  # images/ lies in the corpus
    printed = capsys.readouterr().out
    assert "images:      1 of those in xml/ have the size stated there" in printed
    assert "warning:     1 images of another size: 2 20 x 30, stated 640 x 480" in printed
    assert "warning:     1 images that cannot be read: 3" in printed
    (folder / "1.jpg").unlink()
    assert main(["check", str(corpus), "--images", str(folder)]) == 0
    assert f"warning:     1 images not in {folder}: 1" in capsys.readouterr().out
    assert main(["check", str(corpus), "--images", str(folder / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_v1_is_told_by_its_groundable_entities() -> None:
    v1 = next(variant for variant in KNOWN_VARIANTS if variant.name == "Twitter-GMNER v1")
    found = {name: SplitFingerprint(split.sentences, 0, {"PER": 7000}, name) for name, split in v1.splits.items()}
    found["dev"] = dataclasses.replace(found["dev"], groundable={"PER": 6716})
    assert recognise(found).variant == "Twitter-GMNER v1 (by its numbers of tweets and of groundable entities)"
    found["dev"] = dataclasses.replace(found["dev"], groundable={"PER": 6717})
    assert "by its numbers of tweets alone" in recognise(found).variant


def test_counts_of_the_real_corpus() -> None:
    folder = Path(__file__).parent.parent / "data" / "twitter_gmner"
    if not folder.is_dir():
        pytest.skip("needs data/twitter_gmner")
    found = read_corpus(folder)
    groundable = {name: sum(split.groundable.values()) for name, split in found.split_fingerprints.items()}
    assert groundable == {"train": 4733, "dev": 991, "test": 1046}
    entities = [entity for split in found.splits.values() for example in split for entity in example.entities]
    assert max(len(entity.boxes) for entity in entities) == 22
    assert sum(not entity.boxes for example in found.splits["test"] for entity in example.entities) == 1497
    assert len(found.annotations) == 5612 and found.warnings == ()
