"""From a picture to a stream and back: tiles, target sizes, views, and the networks on a device."""
