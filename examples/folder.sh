#!/usr/bin/env bash
# A folder there and back: examples/folder.sh PICTURES [options of the model]
set -euo pipefail
pictures=$1
shift
sodec compress "$pictures" -o streams -r --workers 2 --quality 40 "$@"
# Again: what is there is skipped, as after Ctrl-C.
sodec compress "$pictures" -o streams -r --quality 40 "$@"
sodec decompress streams -o restored -r --scale 1/2 "$@"
