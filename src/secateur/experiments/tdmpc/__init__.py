"""Control: TD-MPC agents on dm_control, trained from state, pruned part by part, judged by their return.

Source: Hansen, Wang and Su, "Temporal difference learning for model predictive control" (arXiv 2203.04955).
"""
