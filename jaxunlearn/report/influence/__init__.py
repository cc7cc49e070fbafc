"""The page of tokens coloured by influence."""
