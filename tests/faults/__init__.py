"""Faults that are really done to real runs on the embedded data; README.md says which fault is where."""
