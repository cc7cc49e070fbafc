"""Any number of runs on one page, each beside the retrained model."""
