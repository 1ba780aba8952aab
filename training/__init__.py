"""Tokenizes the shards a manifest names and trains a GPT that knows what it does not know."""
