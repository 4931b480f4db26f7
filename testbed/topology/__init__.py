"""The topology document: model, loading, checks, schema. Pure."""
