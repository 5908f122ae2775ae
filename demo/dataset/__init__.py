"""The drawn data sets on disk: pictures, boxes, texts, official annotation files."""
