"""Each example's gradient in one backward pass, by listening to a network's layers."""
