"""Models really trained without the forgotten, and how to be told from them."""
