"""How near a stream comes to the size asked for, and in how many passes: ten targets over the range of each picture.

python benchmarks/target_sizes.py kodak/*.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

import sodec
from sodec.pipeline.engine import Coefficients


def main(paths: Sequence[str]) -> None:
    """Prints how many targets are met within 2 %, the worst, and passes of the coder."""
    codec = sodec.Codec()
    passes = 0
    encode = codec.engine.encode

    def counted(coefficients: Coefficients, *point: float) -> bytes:
        nonlocal passes
        passes += 1
        return encode(coefficients, *point)

    codec.engine.encode = counted  # type: ignore[method-assign, assignment]
    shares, counts = [], []
    for path in paths:
        ends = [len(codec.compress(path, quality)) for quality in (1, 100)]
        for target in np.geomspace(*ends, 10).astype(int)[:-1]:
            passes = 0
            shares.append(len(codec.compress(path, max_bytes=int(target))) / target)
            counts.append(passes)
    share = np.array(shares)
    print(
        f"{len(share)} targets: {np.mean(share >= 0.98):.1%} met within 2 %, the worst {1 - share.min():.2%} below, "
        f"{int(np.sum(share > 1))} above; passes {np.mean(counts):.1f} on average, {max(counts)} at most"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
