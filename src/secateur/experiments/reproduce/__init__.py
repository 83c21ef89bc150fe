"""The papers' first experiment: an autoencoder pruned by every method, and the tables and figures of it."""
