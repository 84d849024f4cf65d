"""From systems to batches: graphs, their store on disk, sampler and data module."""
