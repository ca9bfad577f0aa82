"""Transformers for text: attention, blocks, and the models made of them."""
