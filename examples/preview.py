"""Small, faithful, or in between: python examples/preview.py photo.jpg"""

import sys

import sodec

data = sodec.compress(sys.argv[1], quality=40)
sodec.decompress(data, scale=1 / 8).save("preview.png")  # the fidelity decoder alone, then a mean of 8x8 pixels
sodec.decompress(data, mode="fidelity").save("faithful.png")  # no synthesised detail
sodec.decompress(data, fidelity=0.5).save("half.png")  # half of it
