"""The zoo: models of other people's libraries, pruned to half their channels by Secateur and by Torch-Pruning.

Every model is built from a config, with random weights, at a reduced width, depth and image size, but is its library's
real class. Each case, one model and one library, runs in a process of its own with the same limits. From the
repository's root:

    sh benchmarks/zoo/setup.sh zoo-venv && zoo-venv/bin/python -m benchmarks.zoo --table docs/zoo.md
"""
