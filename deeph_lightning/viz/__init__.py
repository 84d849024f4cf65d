"""Drawing functions: data and an Axes in, the Axes out; no files, no pyplot state."""
