"""What is left of a damaged stream: python examples/salvage.py photo.jpg

Only a picture of more than one tile (1024 pixels) has anything else than the lost tile, so this one is made larger.
"""

import sys
import warnings

from PIL import Image

import sodec
from sodec.errors import CorruptStreamError, DamageWarning

photo = Image.open(sys.argv[1]).convert("RGB").resize((1500, 300))
data = bytearray(sodec.compress(photo, quality=40))
data[-20] ^= 0xFF  # in the last tile
try:
    sodec.decompress(bytes(data))
except CorruptStreamError as error:
    print(f"by default: {error}")
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always", DamageWarning)
    sodec.decompress(bytes(data), on_error="conceal").save("salvaged.png")
print(f"salvaged: {told[0].message}")
