"""What the longer figures of the examples look like, apart from what is learned."""
