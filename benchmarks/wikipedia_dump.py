"""How fast a dump becomes an index, and in how much memory: a dump piece, repeated under other titles.

    python benchmarks/wikipedia_dump.py [--dump data/wikipedia/enwiki-sample.xml.bz2] [--times 60] [--workers 2]

Each repetition is a bzip2 stream of its own, as in multistream dumps. The last line is JSON: `pages_per_second` of the
dump, redirects and other namespaces among them, and `xml_mb_per_second` of it unpacked; the peak memory of the
process that reads and builds, and of the largest of those that strip markup.
"""

from __future__ import annotations

import argparse
import bz2
import json
import multiprocessing
import re
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from scanner_jax.wikipedia import BuildCounts
from scanner_jax.wikipedia.resuming import build_source

TITLE = re.compile(rb"(?<=<title>)[^<]*(?=</title>)|(?<=<redirect title=\")[^\"]*(?=\")")


def repeat(source: Path, times: int, path: Path) -> int:
    """Write the dump; returns the bytes of its XML."""
    xml = bz2.decompress(source.read_bytes())
    first, last = xml.index(b"<page>"), xml.rindex(b"</page>") + len(b"</page>\n")
    size = 0
    with path.open("wb") as file:
        file.write(bz2.compress(xml[:first]))
        for number in range(times):
            pages = TITLE.sub(lambda match, number=number: match[0] + b" %d" % number, xml[first:last])
            size += len(pages)
            file.write(bz2.compress(pages))
        file.write(bz2.compress(xml[last:]))
    return size


def build(dump: Path, index: Path, workers: int) -> tuple[float, int, BuildCounts, float, float]:
    """Build; seconds, pages read, what was built, and the peak MB of this process and of its largest child."""
    started = time.perf_counter()
    built = build_source(dump, index, workers=workers)
    seconds = time.perf_counter() - started
    own, workers_own = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return seconds, built.report.read, built.counts, own, workers_own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, default=Path("data/wikipedia/enwiki-sample.xml.bz2"))
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dump, index = Path(folder) / "dump.xml.bz2", Path(folder) / "index.sqlite"
        size = repeat(options.dump, options.times, dump)
        # In another process, whose memory is the build's alone.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, pages, counts, own, largest = pool.submit(build, dump, index, options.workers).result()
        print(f"{pages:,} pages, {size / 1e6:,.0f} MB of XML, {seconds:.1f} s: {counts}")
        results = {
            "workers": options.workers,
            "pages_per_second": round(pages / seconds),
            "xml_mb_per_second": round(size / 1e6 / seconds, 1),
            "rss_mb": round(own),
            "worker_rss_mb": round(largest) if options.workers > 1 else None,
            "index_mb": round(index.stat().st_size / 1e6, 1),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
