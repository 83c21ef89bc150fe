"""Experiments on real data; each fits in one or two readable files. They use the public names, as a user would."""
