"""Writes the tables of docs/latency.md from reports of claim.py. Without one of a GPU its column stays empty.

python benchmarks/latency_page.py docs/latency-cpu.json [GPU.json ...]
"""

import json
import sys
from pathlib import Path

from sodec.bench.report import text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "latency.md"
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->"


def main():
    reports = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]]
    if not reports:
        sys.exit(__doc__)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}{text(reports)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
