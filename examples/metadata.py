"""EXIF carried along, and what it costs: python examples/metadata.py photo.jpg"""

import sys

from PIL import Image

import sodec

photo = Image.open(sys.argv[1])
exif = photo.getexif()
exif[0x013B] = "an artist"
photo.info["exif"] = exif.tobytes()
data = sodec.compress(photo, quality=40, metadata=True)
print({name: count for name, count in sodec.inspect(data).bytes.items() if count})
print("artist:", sodec.decompress(data).getexif()[0x013B])
