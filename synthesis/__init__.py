"""Procedural pedestrians: the demo data set, drawn and described from one record per identity."""
