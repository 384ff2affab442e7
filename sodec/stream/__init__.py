"""Streams: the .sodec container, its sections, its coded symbols, and what its bytes are spent on."""

# The first bytes of a stream: neither ASCII nor valid UTF-8, so no text file looks like a stream. They stand here and
# not in container.py because Pillow's plugin must not import NumPy.
MAGIC = b"\x9esd"
