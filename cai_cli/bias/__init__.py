"""Estimators of a judge's biases: arrays in, an estimate with its interval out; no rows, no files."""
