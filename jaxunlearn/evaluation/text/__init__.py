"""What a language model says of given texts: statistics, answers, metrics, logs."""
