"""Files to captions: what is in a folder, its decoding, the model, and the tables and subtitles that come of it."""
