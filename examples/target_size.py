"""A stream of at most so many bytes: python examples/target_size.py photo.jpg"""

import sys

import sodec
from sodec.errors import TargetError

photo = sys.argv[1]
for wish in ({"max_bytes": 700}, {"target_bpp": 0.03}):
    try:
        info = sodec.inspect(sodec.compress(photo, **wish))
        print(f"{wish}: {info.bytes['total']} bytes, {info.bpp:.4f} bit per pixel, quality {info.quality:g}")
    except TargetError as error:
        print(f"{wish}: {error}")
