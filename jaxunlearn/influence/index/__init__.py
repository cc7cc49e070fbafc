"""An index of projected gradients on disk: built once, asked often."""
