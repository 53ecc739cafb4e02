"""Media inside shards: WebDataset tar files and Parquet files with a column of bytes. Nothing is unpacked to disk."""
