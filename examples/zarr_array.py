"""Chunks of a zarr array as streams (extra: zarr): python examples/zarr_array.py photo.jpg"""

import sys

import numpy as np
import zarr
from PIL import Image

from sodec.integrations.zarr import SodecCodec

photo = np.asarray(Image.open(sys.argv[1]).convert("RGB"))
array = zarr.create_array(
    "photos.zarr", shape=(2, *photo.shape), chunks=(1, *photo.shape), dtype="u1",
    serializer=SodecCodec(quality=40), compressors=None, overwrite=True,
)  # fmt: skip
array[:] = photo, photo[:, ::-1]
print(f"{array.nbytes} bytes of pixels are stored in {array.nbytes_stored()}")
