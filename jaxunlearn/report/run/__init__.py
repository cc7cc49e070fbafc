"""The report of one unlearning run."""
