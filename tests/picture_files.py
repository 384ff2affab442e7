"""Files of pictures, made for tests."""

import io
import struct
import zlib


def saved(image, kind, **options):
    """A file of a PIL image, at its beginning."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def png(width, height, depth, kind, rows, *chunks):
    """A PNG of these raw rows, its ancillary chunks before the pixels."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = b"".join(b"\0" + row for row in rows)
    parts = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IDAT", zlib.compress(body))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")
