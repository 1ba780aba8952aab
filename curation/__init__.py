"""Finds, cleans, grades and mixes text into parquet shards of which a chosen share suits a US third grader."""
