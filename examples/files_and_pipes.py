"""File objects and pipes: python examples/files_and_pipes.py < photo.jpg > photo.sodec"""

import io
import sys

import sodec

data = sodec.compress(sys.stdin.buffer, quality=30)
sys.stdout.buffer.write(data)
picture = sodec.decompress(io.BytesIO(data), output="numpy")
print(f"{picture.shape} in {len(data)} bytes", file=sys.stderr)
