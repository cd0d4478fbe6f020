"""What the papers share, as plain functions on tensors."""
