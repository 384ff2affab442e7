"""Writes the seed corpus of fuzz_rans to a folder: every golden payload with some choices of what to read it as.

python fuzz/seeds.py build/corpus
"""

import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "payloads"
HOSTILE = Path(__file__).parents[1] / "tests" / "hostile"

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for path in sorted(GOLDEN.glob("*.bin")):
    for choices in range(0, 64, 5):  # tables, pattern of indexes, sections and direction all vary
        for count in (0, 77, 3000):
            prefix = bytes([choices]) + count.to_bytes(2, "little")
            (folder / f"{path.stem}-{choices}-{count}").write_bytes(prefix + path.read_bytes())
for path in HOSTILE.glob("*.bin"):
    (folder / path.name).write_bytes(path.read_bytes())
print(f"{len(list(folder.iterdir()))} inputs in {folder}")
