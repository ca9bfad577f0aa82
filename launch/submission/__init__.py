"""What a job takes along: the words, the code as it was, a folder."""
