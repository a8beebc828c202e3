"""The studio: the toolkit in a browser."""
