"""A CompressAI model's symbols coded with sodec.entropy, faster and exact: pip install sodec compressai"""

import time

import numpy as np
import torch
from compressai.entropy_models import GaussianConditional

from sodec import entropy

conditional = GaussianConditional([0.11 * 1.13**i for i in range(64)])  # any model's: model.gaussian_conditional
conditional.update()
lengths = conditional._cdf_length.tolist()  # its tables are laid out like ours, the escape last
rows = [row[:n] for row, n in zip(conditional._quantized_cdf.numpy(), lengths, strict=True)]
offsets = np.cumsum([0, *lengths]).astype(np.int32)
tables = entropy.Tables(np.concatenate(rows), offsets, conditional._offset.numpy(), conditional.entropy_coder_precision)
scales = torch.rand(1, 192, 32, 48) ** 4  # of a 768x512 picture's latent
latent = torch.randn(scales.shape) * scales
indexes, symbols = conditional.build_indexes(scales), conditional.quantize(latent, "symbols")

start = time.perf_counter()
data = entropy.encode(symbols.short().numpy(), indexes.byte().numpy(), tables)
decoded = torch.from_numpy(entropy.decode(data, indexes.byte().numpy(), tables))
ours, start = time.perf_counter() - start, time.perf_counter()
(theirs,) = conditional.compress(latent, indexes)
assert torch.equal(decoded, symbols.short())
assert torch.equal(decoded.float(), conditional.decompress([theirs], indexes))
ratio = (time.perf_counter() - start) / ours
print(f"{symbols.numel()} symbols: {len(data)} bytes, CompressAI {len(theirs)}; {ratio:.0f} times as fast")
