"""The checks: from the user's call to the report."""
