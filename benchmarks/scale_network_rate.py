"""What integers cost: bits of y under the scales of the integer network against those of its float twin.

python benchmarks/scale_network_rate.py PICTURES... [--weights FOLDER]

The twin has the same trained weights, rounded nowhere, and its scale is not cut to a table's; both code the same
symbols, SKIP included. Needs train.safetensors beside the weights (a clone has it) and the extra `train`.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import sodec
from sodec.evaluate.run import find_pictures, read_picture
from sodec.stream import container, symbols
from sodec.train.checkpoint import restore

QUALITIES = (1, 50, 100)


def float_indexes(network, z):
    """`ScaleNetwork.forward` without its rounding."""
    x = torch.from_numpy(z)[None].float().clamp(-128, 127)
    layers = list(network.layers)
    for layer, upsample in zip(layers, network.upsample, strict=True):
        x = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)
        if layer is not layers[-1]:
            x = x.clamp(0, 255 / 32)
        x = F.pixel_shuffle(x, 2) if upsample == 2 else x
    return x[0]


def bits(y, scale):
    """-log2 of the Gaussian's mass on each integer."""
    upper, lower = (torch.special.ndtr((edge - y.abs()) / scale) for edge in (0.5, -0.5))
    return float(-torch.log2((upper - lower).clamp_min(1e-12)).sum())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    codec = sodec.Codec(weights=options.weights)
    parts = restore(codec.bundle.folder)
    config, network = parts.model.config, parts.model.scale_network
    print("quality  integer bits  float bits  lost")
    for quality in QUALITIES:
        total = np.zeros(2)
        for path in find_pictures(options.pictures):
            stream = container.read(codec.compress(read_picture(path), quality))
            rows, columns = math.ceil(stream.height / 16), math.ceil(stream.width / 16)
            z, y = symbols.decode(codec.bundle.coding, stream.payloads[0], quality, rows, columns)
            integer = symbols.scale_indexes(codec.bundle.coding, z, quality, rows, columns).astype(float)
            integer[integer == symbols.SKIP] = 0
            with torch.no_grad():
                offset = parts.model.gain(torch.tensor([float(quality)]))[0, :, None, None] / config.scale_step
                twin = float_indexes(network, z)[:, :rows, :columns] + offset
            for i, index in enumerate((torch.from_numpy(integer), twin.double())):
                scale = config.scale_min * torch.exp(config.scale_step * index)
                total[i] += bits(torch.from_numpy(y).double(), scale)
        print(f"{quality:7}  {total[0]:12.0f}  {total[1]:10.0f}  {100 * (total[0] / total[1] - 1):+.2f} %")


if __name__ == "__main__":
    main()
