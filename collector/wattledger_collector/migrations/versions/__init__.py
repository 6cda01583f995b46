"""One module for each step of the schema, oldest first; a step that has been released is never edited."""
