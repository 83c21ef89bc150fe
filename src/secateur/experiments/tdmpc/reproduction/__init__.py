"""The papers' control experiment: a TD-MPC agent pruned by every method, judged by its return."""
