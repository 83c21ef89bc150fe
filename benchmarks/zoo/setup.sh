#!/bin/sh
# Make the zoo's environment in the folder $1, from the repository's root:
#
#     sh benchmarks/zoo/setup.sh zoo-venv && zoo-venv/bin/python -m benchmarks.zoo
#
# torch comes first and from the constraints, so that no library brings a build of its own.
set -eu
python3 -m venv "$1"
"$1/bin/pip" install --quiet --constraint constraints.txt torch==2.13.0
"$1/bin/pip" install --quiet --constraint constraints.txt --editable .
"$1/bin/pip" install --quiet --no-deps --requirement benchmarks/zoo/requirements.txt
