"""What scores are held against: leave-one-out, subsets, removal curves."""
