"""sodec inside other people's tools, one module for each; none is imported by the package, and each is an extra."""
