"""The engine: from a revision of a deployment repository to running guests."""
