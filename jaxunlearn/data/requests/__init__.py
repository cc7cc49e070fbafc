"""What a request to forget means: exact, fuzzy and near-duplicate matches."""
