"""Decodes without PyTorch, after `sodec export-onnx graphs`: python examples/onnx_decode.py graphs photo.sodec

sodec's coder reads the integers. Everything else is graphs, which other languages can run too.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from sodec import entropy, weights
from sodec.models.noise import place_noise
from sodec.stream import container

folder, path = map(Path, sys.argv[1:])
bundle = weights.find("", folder)
coding, stream = bundle.coding, container.read(path.read_bytes())
(payload,) = stream.payloads  # a larger picture has several tiles of 1,024 pixels, each decoded like this
rows, columns = -(-stream.height // 16), -(-stream.width // 16)

decoder = entropy.Decoder(payload)
(z_tables,) = coding.z_tables
channels = np.arange(z_tables.count, dtype=np.uint8)[:, None, None]  # each channel of z has its table
z = decoder.read(channels.repeat(-(-rows // 4), 1).repeat(-(-columns // 4), 2), z_tables)
offsets = coding.offsets[round(2 * stream.quality) - 2]
indexes = coding.scale_network.indexes(np.ascontiguousarray(z.transpose(1, 2, 0)), offsets)[:rows, :columns]
symbols = decoder.read(np.where(indexes == 0, np.uint8(entropy.SKIP), indexes).transpose(2, 0, 1), coding.y_tables)
decoder.finish()


def run(graph, **inputs):
    session = onnxruntime.InferenceSession(folder / f"{graph}.onnx")
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


quality = np.array([stream.quality], np.float32)
y_hat = run("dequantise", symbols=symbols[None].astype(np.int32), z=z[None].astype(np.int32), quality=quality)["y_hat"]
fidelity = run("fidelity", y_hat=y_hat, quality=quality)  # the fidelity picture, and features that guide the decoder
noise = place_noise(bundle.config["noise"], 4 * rows, 4 * columns)[None]  # FORMAT.md, section 8.1, defines it
folded = run("decoder", y_hat=y_hat, quality=quality, noise=noise, **fidelity)["picture"]
pixels = folded.reshape(3, 4, 4, 4 * rows, 4 * columns).transpose(3, 1, 4, 2, 0).reshape(16 * rows, 16 * columns, 3)
pixels = ((pixels + 0.5).clip(0, 1) * 255).round().astype(np.uint8)
Image.fromarray(pixels[: stream.height, : stream.width]).save(path.with_suffix(".png"))
