"""A format like any other: python examples/pillow_plugin.py photo.jpg"""

import sys

from PIL import Image

import sodec

Image.open(sys.argv[1]).convert("RGB").save("photo.sodec", quality=50)
with Image.open("photo.sodec") as image:  # reads the header alone
    print(image.format, image.mode, image.size, "with sodec", sodec.__version__)
    image.thumbnail((128, 128))  # decodes the preview
    image.save("thumbnail.png")
