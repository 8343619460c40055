"""Pseudo labels from features: k-reciprocal Jaccard similarity, DBSCAN, cross-modal label correction.

Exact and sparse: nothing here holds an N x N matrix. docs/clustering.md has the definitions and the numbers.
"""
