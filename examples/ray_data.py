"""Pictures and tar shards over Ray Data (extra: ray): python examples/ray_data.py FOLDER OUT

Both may be URLs, as s3://bucket/folder. Without a cluster, Ray starts one on this machine. A job that died goes on when
it is started again.
"""

import sys

from sodec.integrations import ray as sodec_ray

done = sodec_ray.compress(sodec_ray.read(sys.argv[1]), to=sys.argv[2], workers=2, quality=40)
for error in sodec_ray.errors(done):
    print(error, file=sys.stderr)
