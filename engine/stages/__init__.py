"""The five stages and the making of synthetic images before them, one file each."""
