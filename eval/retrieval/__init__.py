"""Retrieval: visuals and texts that find each other, and documents that are found for queries."""
