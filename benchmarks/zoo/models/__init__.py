"""The zoo's models, one file per family."""
