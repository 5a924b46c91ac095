"""Data: manifests, corpora, training batches and the encoder-feature cache."""
