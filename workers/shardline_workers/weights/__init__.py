"""From the formats of files to the layout that kernels read."""
