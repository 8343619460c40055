"""One file per method; `models.registry` finds every class here that has a `name`."""
