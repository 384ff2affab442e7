"""Streams: the .sodec container, its sections, its coded symbols, and what its bytes are spent on."""
