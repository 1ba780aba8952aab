"""What curation and training share: the parquet schema, the manifest, settings, console, run records and files."""
