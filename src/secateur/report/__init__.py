"""What a person reads: before/after tables, measured latency, figures."""
