"""Pictures and tar shards over Ray Data (extra: ray): python examples/ray_data.py FOLDER OUT

Without a cluster, Ray starts one on this machine.
"""

import sys

from sodec.integrations import ray as sodec_ray

streams = sodec_ray.compress(sodec_ray.read(sys.argv[1]), workers=2, quality=40)
for error in sodec_ray.write(streams, sys.argv[2]):
    print(error, file=sys.stderr)
