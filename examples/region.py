"""A part of a picture, from the tiles that reach into it: python examples/region.py photo.jpg"""

import sys

import sodec

data = sodec.compress(sys.argv[1], quality=40)
info = sodec.inspect(data)
x, y, width, height = info.width // 4, info.height // 4, info.width // 2, info.height // 2
part = sodec.decompress(data, region=(x, y, width, height))
print(f"{part.size} of {info.width}x{info.height}")
part.save("region.png")
